//! API keys on the wire. A key is `cursus_<id>_<secret>`. The id may be shown and logged. The secret is 256 random bits
//! that are returned once. The id is the beginning of the SHA-256 of the secret, so a mistyped or invented key is
//! refused without a database lookup.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::error::FieldError;
use crate::limits::{
    KEY_LIFE_SECONDS, KEY_NAME_CHARS_MAX, KEY_OVERLAP_SECONDS, KEY_OVERLAP_SECONDS_DEFAULT,
    SCOPES_MAX,
};
use crate::message::check_text;
use crate::scope::{Permission, Scope};
use crate::text::as_text;
use crate::topic::check_range;
use crate::validate::Validate;

/// Prefix of every key, by which scanners for leaked secrets recognise one.
pub const PREFIX: &str = "cursus_";

/// Splits a key into its id and its secret; `None` when it is not of that form.
#[must_use]
pub fn parts(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(PREFIX)?.split_once('_')
}

/// The text is not the id of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id of a key has 16 characters of 0-9 a-f")]
pub struct InvalidKeyId;

/// Id of a key: its public part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[0-9a-f]{16}$", example = "5f0c7a1e9b3d2468")]
pub struct KeyId(pub u64);

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        let is_id = text.len() == 16
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let id = is_id.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        id.map(Self).ok_or(InvalidKeyId)
    }
}

as_text! {
    KeyId, InvalidKeyId;
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Settings of a new API key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// Name of the key, for people. `key` when absent.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$"
    )]
    pub name: Option<String>,
    /// Scopes of the key. When absent, all scopes within its tenant: `publish`, `receive`, `manage` and `usage`.
    #[schema(min_items = 1, max_items = 32)]
    pub scopes: Option<Vec<Scope>>,
    /// Seconds until the key expires. It does not expire when absent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 1, maximum = 315360000)]
    pub expires_in_seconds: Option<u32>,
}

impl KeySettings {
    /// Scopes of the key, with the default filled in.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        let all = || {
            use Permission::{Manage, Publish, Receive, Usage};
            [Publish, Receive, Manage, Usage].map(Scope::all).to_vec()
        };
        self.scopes.clone().unwrap_or_else(all)
    }
}

impl Validate for KeySettings {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(name) = &self.name {
            check_text(&mut errors, || "/name".to_owned(), name, KEY_NAME_CHARS_MAX);
        }
        if let Some(scopes) = &self.scopes
            && !(1..=SCOPES_MAX).contains(&scopes.len())
        {
            let detail = format!("must have 1 to {SCOPES_MAX} items, has {}", scopes.len());
            errors.push(FieldError::new("/scopes", detail));
        }
        let expires = self.expires_in_seconds;
        check_range(
            &mut errors,
            "/expires_in_seconds",
            expires,
            &KEY_LIFE_SECONDS,
        );
        errors
    }
}

/// Options for the rotation of an API key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRotation {
    /// Seconds for which the old key stays valid together with the new one. 86400 (one day) when absent; 0 revokes it
    /// at once.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 0, maximum = 2592000)]
    pub overlap_seconds: Option<u32>,
}

impl KeyRotation {
    /// Seconds for which the old key stays valid, with the default filled in.
    #[must_use]
    pub fn overlap_seconds(&self) -> u32 {
        self.overlap_seconds.unwrap_or(KEY_OVERLAP_SECONDS_DEFAULT)
    }
}

impl Validate for KeyRotation {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let overlap = self.overlap_seconds;
        check_range(
            &mut errors,
            "/overlap_seconds",
            overlap,
            &KEY_OVERLAP_SECONDS,
        );
        errors
    }
}

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiKey {
    /// Id of the key: the middle part of `cursus_<id>_<secret>`.
    pub id: KeyId,
    /// Name of the key, for people.
    pub name: String,
    /// Scopes of the key.
    pub scopes: Vec<Scope>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time from which the key is refused. Absent when it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub expires_at: Option<Timestamp>,
    /// Time of its last use, accurate to a minute. Absent when it has not been used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_used_at: Option<Timestamp>,
    /// Time at which it was revoked. Absent when it is not revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub revoked_at: Option<Timestamp>,
}

/// A new API key with its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiKeyWithSecret {
    /// The whole key, `cursus_<id>_<secret>`. It is not stored and cannot be shown again.
    #[schema(pattern = "^cursus_[0-9a-f]{16}_[0-9a-f]{64}$")]
    pub secret: String,
    /// The key without its secret.
    pub key: ApiKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_key_is_sixteen_digits() {
        let id: KeyId = "00c7a1e9b3d24680".parse().unwrap();
        assert_eq!(id.to_string(), "00c7a1e9b3d24680");
        for text in [
            "",
            "0c7a1e9b3d2468",
            "00C7A1E9B3D24680",
            "+0c7a1e9b3d24680",
            "00c7a1e9b3d24680 ",
        ] {
            assert_eq!(text.parse::<KeyId>(), Err(InvalidKeyId), "{text}");
        }
    }

    #[test]
    fn a_key_to_make_names_what_is_out_of_range() {
        let settings = KeySettings {
            name: Some(String::new()),
            scopes: Some(Vec::new()),
            expires_in_seconds: Some(0),
        };
        let errors = settings.validate();
        let pointers: Vec<_> = errors.iter().map(|error| &*error.pointer).collect();
        assert_eq!(pointers, ["/name", "/scopes", "/expires_in_seconds"]);
        assert_eq!(KeySettings::default().scopes().len(), 4);
    }
}

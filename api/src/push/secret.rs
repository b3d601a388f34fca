//! Secrets of endpoints on the wire (Standard Webhooks): their form, and what a rotation asks for and returns.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::error::FieldError;
use crate::limits::{PUSH_OVERLAP_SECONDS, PUSH_SECRET_BYTES};
use crate::topic::check_range;
use crate::validate::Validate;

/// What a secret begins with.
pub const SECRET_PREFIX: &str = "whsec_";

/// The bytes of a secret. Libraries of Standard Webhooks refuse base64 without padding, or misread the alphabet for
/// URLs, so only the standard form is accepted.
///
/// # Errors
/// What a secret must be.
pub fn secret_bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    const RULE: &str =
        "must be whsec_ and the standard base64, with its padding, of 24 to 64 bytes";
    let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(RULE)?;
    let bytes = STANDARD.decode(encoded).map_err(|_| RULE)?;
    if PUSH_SECRET_BYTES.contains(&bytes.len()) {
        return Ok(bytes);
    }
    Err(RULE)
}

/// Options of a change of the secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushRotation {
    /// Seconds for which the present secret goes on to sign beside the new one. 86400, a day, by default; 0 ends it at
    /// once.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 604800)]
    pub overlap_seconds: Option<u32>,
}

impl Validate for PushRotation {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let seconds = self.overlap_seconds;
        check_range(
            &mut errors,
            "/overlap_seconds",
            seconds,
            &PUSH_OVERLAP_SECONDS,
        );
        errors
    }
}

/// A new secret. No other answer has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PushSecret {
    /// The secret of `v1`: `whsec_` and base64.
    #[schema(pattern = "^whsec_[A-Za-z0-9+/]{43}=$")]
    pub secret: String,
    /// Time until which the former secret signs, too. Absent when it has ended at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub old_secret_until: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_padded_standard_base64_of_24_to_64_bytes() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![0xfb; bytes]));
        for bytes in [24, 32, 64] {
            assert_eq!(secret_bytes(&of(bytes)).map(|read| read.len()), Ok(bytes));
        }
        let url_safe = of(32).replace('+', "-").replace('/', "_");
        let unpadded = of(32).trim_end_matches('=').to_owned();
        let bare = of(32)[6..].to_owned();
        for bad in [
            of(23),
            of(65),
            url_safe,
            unpadded,
            bare,
            format!("{} ", of(24)),
            String::new(),
        ] {
            assert!(secret_bytes(&bad).is_err(), "{bad}");
        }
    }
}

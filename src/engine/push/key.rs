//! The Ed25519 key of a tenant: signs requests (`v1a`) and the tokens that they carry as bearer. Its public half is in the
//! tenant's key set, which anybody may read, so that a receiver needs no shared secret.
//!
//! A token is a JWT: `iss` is `urn:uuid:` and the id of the installation, `sub` the tenant, `aud` the endpoint. One token
//! serves many requests; it is signed anew when less than half of its life is left.

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, Signature};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::engine::error::Error;
use crate::outbound::HeaderValue;

/// Life of a token.
const LIFE: Duration = Duration::minutes(5);

/// The key of a tenant.
pub struct TenantKey {
    id: String,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for TenantKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TenantKey({})", self.id)
    }
}

impl TenantKey {
    /// A key of its id and seed (RFC 8032); `None`: the seed has not 32 bytes.
    #[must_use]
    pub fn of(id: impl Into<String>, seed: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let id = id.into();
        Some(Self { id, pair })
    }

    /// Names it in tokens and in the key set.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Signs a text.
    pub fn sign(&self, text: &[u8]) -> Signature {
        self.pair.sign(text)
    }

    /// The public key as a key set has it: base64url without padding.
    #[must_use]
    pub fn public_x(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.public_key())
    }

    /// The public key as libraries of Standard Webhooks take it: `whpk_` and standard base64.
    #[must_use]
    pub fn public_whpk(&self) -> String {
        format!("whpk_{}", STANDARD.encode(self.pair.public_key()))
    }
}

#[derive(Debug, Clone, Serialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    iat: i64,
    exp: i64,
    jti: String,
}

/// Makes the tokens for one endpoint.
pub struct Bearer {
    header: Header,
    key: EncodingKey,
    claims: Claims,
    /// The last token, and when it is signed anew.
    last: Mutex<Option<(HeaderValue, OffsetDateTime)>>,
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer(***)")
    }
}

impl Bearer {
    /// Tokens of an installation, for a tenant, to an audience; `None`: the key cannot be used.
    #[must_use]
    pub fn of(
        key: &Arc<TenantKey>,
        installation: Uuid,
        tenant: &str,
        audience: &str,
    ) -> Option<Self> {
        let pkcs8 = key.pair.to_pkcs8v1().ok()?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key.id.clone());
        Some(Self {
            header,
            key: EncodingKey::from_ed_der(pkcs8.as_ref()),
            claims: Claims {
                iss: format!("urn:uuid:{installation}"),
                sub: tenant.to_owned(),
                aud: audience.to_owned(),
                iat: 0,
                exp: 0,
                jti: String::new(),
            },
            last: Mutex::new(None),
        })
    }

    /// The value of `Authorization` at a time.
    ///
    /// # Errors
    /// When the token cannot be signed.
    pub fn value(&self, at: OffsetDateTime) -> Result<HeaderValue, Error> {
        let mut last = self.last.lock();
        if let Some((value, renew_at)) = &*last
            // A clock that was set back makes a token that is not valid yet.
            && (*renew_at - LIFE / 2..*renew_at).contains(&at)
        {
            return Ok(value.clone());
        }
        let claims = Claims {
            iat: at.unix_timestamp(),
            exp: (at + LIFE).unix_timestamp(),
            jti: Uuid::new_v4().to_string(),
            ..self.claims.clone()
        };
        let token = jsonwebtoken::encode(&self.header, &claims, &self.key);
        let token = token.map_err(|_| Error::Internal)?;
        let mut value =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| Error::Internal)?;
        value.set_sensitive(true);
        *last = Some((value.clone(), at + LIFE / 2));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    fn key() -> Arc<TenantKey> {
        Arc::new(TenantKey::of("k1", &[7; 32]).unwrap())
    }

    #[test]
    fn a_token_verifies_with_the_public_key_and_names_both_sides() {
        let key = key();
        let bearer = Bearer::of(&key, Uuid::nil(), "acme", "https://a.example/").unwrap();
        let at = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let value = bearer.value(at).unwrap();
        let token = value
            .to_str()
            .unwrap()
            .strip_prefix("Bearer ")
            .unwrap()
            .to_owned();
        let public = DecodingKey::from_ed_components(&key.public_x()).unwrap();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.validate_exp = false;
        validation.set_audience(&["https://a.example/"]);
        let read = jsonwebtoken::decode::<Value>(&token, &public, &validation).unwrap();
        assert_eq!(read.header.kid.as_deref(), Some("k1"));
        assert_eq!(read.claims["iss"], format!("urn:uuid:{}", Uuid::nil()));
        assert_eq!(read.claims["sub"], "acme");
        assert_eq!(read.claims["exp"], 1_800_000_300);
        assert!(read.claims["jti"].is_string());
    }

    #[test]
    fn a_token_is_used_for_half_of_its_life() {
        let bearer = Bearer::of(&key(), Uuid::nil(), "acme", "a").unwrap();
        let at = OffsetDateTime::UNIX_EPOCH;
        let first = bearer.value(at).unwrap();
        assert_eq!(bearer.value(at + Duration::seconds(149)).unwrap(), first);
        let second = bearer.value(at + Duration::seconds(150)).unwrap();
        assert_ne!(second, first);
        assert_ne!(bearer.value(at).unwrap(), second, "the clock was set back");
    }

    #[test]
    fn the_public_key_is_that_of_the_seed() {
        // RFC 8032, section 7.1, test 1.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let seed: Vec<u8> = (0..32)
            .map(|at| u8::from_str_radix(&seed[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let key = TenantKey::of("k", &seed).unwrap();
        assert_eq!(
            key.public_x(),
            "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
        );
        assert_eq!(
            key.public_whpk(),
            "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
        );
        assert!(TenantKey::of("k", &seed[1..]).is_none());
    }
}

//! Signs requests (Standard Webhooks 1.0): `v1` with the secret of an endpoint, and the secret before for a while; `v1a`
//! with the key of the tenant (`key`). Pure functions. Event sinks sign with it, too.
//!
//! ```text
//! signed    := id "." timestamp "." body
//! signature := scheme "," base64( HMAC-SHA256 or Ed25519 of signed )      a header has one or more, one space between
//! ```

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use time::OffsetDateTime;

use crate::engine::push::key::TenantKey;

/// Bytes of a new secret.
const SECRET_BYTES: usize = 32;
/// Bytes of a signature as text, with the space before it: that of Ed25519 is the longer one.
const SIGNATURE_CHARS: usize = 96;

/// A new random secret.
pub fn new_secret() -> [u8; SECRET_BYTES] {
    rand::random()
}

/// A secret as the API shows it.
pub fn shown(secret: &[u8]) -> String {
    format!("{}{}", api::push::SECRET_PREFIX, STANDARD.encode(secret))
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// Value of `webhook-id`.
    pub id: &'a str,
    /// Value of `webhook-timestamp`.
    pub timestamp: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// The keys that sign the requests to an endpoint.
#[derive(Clone, Default)]
pub struct Signer {
    secrets: Vec<Secret>,
    key: Option<Arc<TenantKey>>,
}

#[derive(Clone)]
struct Secret {
    mac: Hmac<Sha256>,
    /// Until when it signs; `None`: without end.
    until: Option<OffsetDateTime>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(***)")
    }
}

impl Signer {
    /// Adds the scheme `v1` with a secret that signs until then, or without end.
    #[must_use]
    pub fn with_secret(mut self, secret: &[u8], until: Option<OffsetDateTime>) -> Self {
        // HMAC takes keys of any length.
        if let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret) {
            self.secrets.push(Secret { mac, until });
        }
        self
    }

    /// Adds the scheme `v1a` with the key of the tenant.
    #[must_use]
    pub fn with_key(mut self, key: Arc<TenantKey>) -> Self {
        self.key = Some(key);
        self
    }

    /// The value of the header `webhook-signature` at a time. Some libraries accept one space between signatures and no
    /// more.
    #[must_use]
    pub fn signature(&self, signed: Signed<'_>, at: OffsetDateTime) -> String {
        let mut value = String::with_capacity((self.secrets.len() + 1) * SIGNATURE_CHARS);
        for secret in &self.secrets {
            if secret.until.is_some_and(|until| until <= at) {
                continue;
            }
            let mut mac = secret.mac.clone();
            for part in [signed.id, ".", signed.timestamp, "."] {
                mac.update(part.as_bytes());
            }
            mac.update(signed.body);
            append(&mut value, "v1,", &mac.finalize().into_bytes());
        }
        if let Some(key) = &self.key {
            // Ed25519 reads what it signs twice, so it has to be in one piece.
            let mut whole = Vec::with_capacity(
                signed.id.len() + signed.timestamp.len() + signed.body.len() + 2,
            );
            for part in [signed.id, ".", signed.timestamp, "."] {
                whole.extend_from_slice(part.as_bytes());
            }
            whole.extend_from_slice(signed.body);
            append(&mut value, "v1a,", key.sign(&whole).as_ref());
        }
        value
    }
}

fn append(value: &mut String, scheme: &str, signature: &[u8]) {
    if !value.is_empty() {
        value.push(' ');
    }
    value.push_str(scheme);
    STANDARD.encode_string(signature, value);
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    const SIGNED: Signed<'_> = Signed {
        id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp: "1614265330",
        body: br#"{"test": 2432232314}"#,
    };
    const AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[test]
    fn the_example_of_the_standard_verifies() {
        // From the reference implementations of Standard Webhooks.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signer = Signer::default().with_secret(&secret, None);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signer.signature(SIGNED, AT), expected);
        assert_eq!(shown(&secret), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }

    #[test]
    fn the_secret_before_signs_until_its_time_is_over() {
        let until = AT + Duration::DAY;
        let signer = Signer::default()
            .with_secret(&[1; 24], None)
            .with_secret(&[2; 24], Some(until))
            .with_key(Arc::new(TenantKey::of("k", &[3; 32]).unwrap()));
        let of = |at| signer.signature(SIGNED, at);
        let during = of(AT);
        let parts: Vec<&str> = during.split(' ').collect();
        let [new, old, key] = parts[..] else {
            panic!("{during}");
        };
        assert!(new.starts_with("v1,") && old.starts_with("v1,") && key.starts_with("v1a,"));
        assert_eq!(of(until), format!("{new} {key}"));
        let only_old = Signer::default().with_secret(&[2; 24], None);
        assert_eq!(only_old.signature(SIGNED, AT), old);
    }

    #[test]
    fn secrets_are_long_and_never_the_same() {
        let (one, other) = (new_secret(), new_secret());
        assert_ne!(one, other);
        let shown = shown(&one);
        assert_eq!(api::push::secret_bytes(&shown).unwrap(), one);
    }
}

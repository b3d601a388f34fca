//! What a node computes from an API key: the SHA-256 of its secret, and its id, which is the beginning of that hash. A
//! plain hash is enough at rest, because a secret has 256 random bits. Pure functions.

use api::KeyId;
use api::key::{PREFIX, parts};
use sha2::{Digest, Sha256};

use crate::hex;

/// The hash of a key's secret, or of a whole token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::engine) struct Secret([u8; 32]);

impl Secret {
    /// The hash for a value of `Authorization`. Only the secret part of a key is hashed. Keys of the first version and
    /// tokens have no parts and are hashed whole.
    pub(super) fn of(bearer: &str) -> Self {
        let secret = parts(bearer).map_or(bearer, |(_, secret)| secret);
        Self(Sha256::digest(secret).into())
    }

    /// Makes a new key; returns it and its hash.
    pub(in crate::engine) fn new() -> (String, Self) {
        let bytes: [u8; 32] = rand::random();
        let secret = hex::encode(&bytes);
        let hash = Self(Sha256::digest(&secret).into());
        (format!("{PREFIX}{}_{secret}", hash.id()), hash)
    }

    /// The id of the key, which is not secret.
    pub(super) fn id(&self) -> KeyId {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        KeyId(u64::from_be_bytes(first))
    }

    pub(in crate::engine) fn hash(&self) -> &[u8; 32] {
        &self.0
    }

    /// The id in a key, whether or not its secret fits it.
    pub(super) fn named(bearer: &str) -> Option<KeyId> {
        parts(bearer).and_then(|(id, _)| id.parse().ok())
    }

    /// Whether the id in a key matches its secret. Also true for a value without an id.
    pub(super) fn is_of(&self, bearer: &str) -> bool {
        parts(bearer).is_none_or(|(id, _)| id.parse() == Ok(self.id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_proves_that_it_is_not_mistyped() {
        let (key, made) = Secret::new();
        assert_eq!(key.len(), "cursus_".len() + 16 + 1 + 64);
        let secret = Secret::of(&key);
        assert_eq!(secret, made);
        assert!(secret.is_of(&key));
        let last = if key.ends_with('0') { "1" } else { "0" };
        let mistyped = format!("{}{last}", &key[..key.len() - 1]);
        assert!(!Secret::of(&mistyped).is_of(&mistyped));
        assert_ne!(Secret::new().0, key);
    }

    #[test]
    fn a_key_of_the_first_version_is_all_secret() {
        let old = "csk_0f";
        let expected: [u8; 32] = Sha256::digest(old).into();
        assert_eq!(Secret::of(old).hash(), &expected);
        assert!(Secret::of(old).is_of(old));
    }
}

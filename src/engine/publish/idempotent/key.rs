//! Keys and fingerprints as they are stored: the first 128 bits of a SHA-256, so that they have one length and no text of
//! the client is kept.

use api::limits::DEDUP_ID_CHARS_MAX;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::engine::publish::draft::PublishRoute;
use crate::store::LaneId;

/// The name space of a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope {
    /// `dedup_id` of a message.
    DedupId,
    /// `Idempotency-Key` of a request to this route.
    Request(PublishRoute),
}

/// The stored form of a key.
pub(super) fn stored(lane: LaneId, scope: Scope, key: &str) -> Uuid {
    let scope = match scope {
        Scope::DedupId => 0,
        Scope::Request(PublishRoute::Single) => 1,
        Scope::Request(PublishRoute::Batch) => 2,
    };
    let mut bytes = Vec::with_capacity(size_of::<i64>() + 1 + DEDUP_ID_CHARS_MAX);
    bytes.extend_from_slice(&lane.get().to_be_bytes());
    bytes.push(scope);
    bytes.extend_from_slice(key.as_bytes());
    first_half(&Sha256::digest(&bytes).into())
}

/// The first 128 bits.
pub(super) fn first_half(hash: &[u8; 32]) -> Uuid {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    Uuid::from_bytes(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_and_scopes_have_keys_of_their_own() {
        let (one, two) = (LaneId::new(1), LaneId::new(2));
        let keys = [
            stored(one, Scope::DedupId, "k"),
            stored(two, Scope::DedupId, "k"),
            stored(one, Scope::DedupId, "l"),
            stored(one, Scope::Request(PublishRoute::Single), "k"),
            stored(one, Scope::Request(PublishRoute::Batch), "k"),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        assert_eq!(keys[0], stored(one, Scope::DedupId, "k"));
    }
}

//! Results as they are stored with a key, so that a repeated request returns exactly the first response.

use api::MessageId;
use api::message::Published;

use super::Results;
use crate::engine::error::Error;
use crate::engine::publish::draft::Draft;
use crate::store::dedup::{NewKey, Scope, UsedKey};

/// The results that the first request with this key got.
pub(super) fn stored_results(
    items: &[Draft],
    first: &UsedKey,
    fingerprint: &[u8],
) -> Result<Results, Error> {
    if first.fingerprint != fingerprint {
        return Err(Error::KeyMismatch);
    }
    let mut stored = decode(first.answer.as_deref().unwrap_or_default()).into_iter();
    let results = items.iter().map(|item| match item {
        Draft::Refused(error) => Err(error.clone()),
        Draft::Valid(_) => stored.next().ok_or(Error::KeyMismatch),
    });
    Ok(results.collect())
}

/// The results to store by key: of each new `dedup_id` its message, and of the request all of them.
pub(super) fn results_to_store(
    results: &Results,
    new_ids: &[(String, usize)],
    request: Option<&NewKey>,
) -> Vec<(Scope, String, Vec<u8>)> {
    let fresh: Vec<&Published> = results
        .iter()
        .flatten()
        .filter(|published| !published.duplicate)
        .collect();
    let ids = new_ids.iter().filter_map(|(id, index)| {
        let result = encode(std::iter::once(*fresh.get(*index)?));
        Some((Scope::DedupId, id.clone(), result))
    });
    let whole = |key: &NewKey| {
        let result = encode(results.iter().flatten());
        (key.scope, key.key.clone(), result)
    };
    ids.chain(request.map(whole)).collect()
}

/// Bit in the stored lane of a message that was a duplicate. With it a repeated request returns exactly the first
/// response.
const DUPLICATE: i64 = 1 << 62;

/// Results as they are stored: lane and offset of each message, 8 bytes each.
pub(super) fn encode<'a>(results: impl Iterator<Item = &'a Published>) -> Vec<u8> {
    let numbers = results.map(|published| {
        let flag = if published.duplicate { DUPLICATE } else { 0 };
        [published.id.lane | flag, published.id.offset]
    });
    numbers.flatten().flat_map(i64::to_be_bytes).collect()
}

/// The inverse of `encode`.
pub(super) fn decode(stored: &[u8]) -> Vec<Published> {
    let (numbers, _) = stored.as_chunks::<8>();
    let (pairs, _) = numbers.as_chunks::<2>();
    pairs
        .iter()
        .map(|pair| pair.map(i64::from_be_bytes))
        .map(|[lane, offset]| Published {
            id: MessageId {
                lane: lane & !DUPLICATE,
                offset,
            },
            duplicate: lane & DUPLICATE != 0,
        })
        .collect()
}

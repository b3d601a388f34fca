//! Results of a request as they are stored with its key, so that a repeated request returns exactly the first response.
//! They are made before the turn gives out offsets, so new messages stand relative to the first one.

use api::message::Published;

use super::Results;
use super::plan::Decision;
use crate::engine::error::Error;
use crate::engine::log::block::message_id;
use crate::engine::publish::draft::Draft;
use crate::store::dedup::KnownKey;
use crate::store::{Era, LaneId, Offset};

/// Bit in the stored lane of a message that was a duplicate.
const DUPLICATE: i64 = 1 << 62;
/// Bit in the stored lane of a message that the request has published: its offset counts from the first of them.
const RELATIVE: i64 = 1 << 61;

/// Where the era of a duplicate stands in the stored lane, above the bits of the lane.
const ERA_SHIFT: u32 = 40;

/// The results of the valid items of a request: lane and offset of each message, 8 bytes each. `None` when they are its
/// messages in order, which needs no storage.
pub(super) fn encode(lane: LaneId, decisions: &[Decision]) -> Option<Vec<u8>> {
    let is_new = |decision: &Decision| matches!(decision, Decision::New(_) | Decision::Refused(_));
    if decisions.iter().all(is_new) {
        return None;
    }
    let numbers = decisions.iter().filter_map(|decision| {
        let (flags, offset) = match decision {
            Decision::Refused(_) => return None,
            Decision::New(index) => (RELATIVE, i64::from(*index)),
            Decision::DuplicateOfNew(index) => (RELATIVE | DUPLICATE, i64::from(*index)),
            Decision::Duplicate(id) => (DUPLICATE | i64::from(id.era) << ERA_SHIFT, id.offset),
        };
        Some([lane.get() | flags, offset])
    });
    Some(numbers.flatten().flat_map(i64::to_be_bytes).collect())
}

/// The results that the first request with this key got, for the items of this one.
pub(super) fn results(lane: LaneId, known: &KnownKey, items: &[Draft]) -> Results {
    let stored = known.results.as_deref().map(decode);
    let mut index = 0;
    let results = items.iter().map(|item| {
        if let Draft::Refused(error) = item {
            return Err(error.clone());
        }
        let result = match &stored {
            Some(stored) => stored.get(index).copied(),
            None => i64::try_from(index).ok().map(|index| (RELATIVE, index)),
        };
        index += 1;
        let (flags, offset) = result.ok_or(Error::KeyMismatch)?;
        let (era, offset) = if flags & RELATIVE == 0 {
            let era = u16::try_from(flags >> ERA_SHIFT & i64::from(u16::MAX)).unwrap_or(0);
            (Era::new(era), Offset::new(offset))
        } else {
            (known.era, known.first_offset.plus(offset))
        };
        Ok(Published {
            id: message_id(lane, era, offset),
            duplicate: flags & DUPLICATE != 0,
        })
    });
    results.collect()
}

/// The flags, with the era above the lane, and the offset of each message.
fn decode(stored: &[u8]) -> Vec<(i64, i64)> {
    let (numbers, _) = stored.as_chunks::<8>();
    let (pairs, _) = numbers.as_chunks::<2>();
    pairs
        .iter()
        .map(|pair| pair.map(i64::from_be_bytes))
        .map(|[lane, offset]| (lane >> ERA_SHIFT << ERA_SHIFT, offset))
        .collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_repeated_request_gets_the_results_of_the_first() {
        let lane = LaneId::new(7);
        let known = |results| KnownKey {
            key: Uuid::nil(),
            era: Era::new(3),
            first_offset: Offset::new(100),
            fingerprint: None,
            results,
        };
        let items = || {
            [
                Draft::Valid(None),
                Draft::Refused(Error::Internal),
                Draft::Valid(None),
            ]
        };
        let offsets = |known: &KnownKey| -> Vec<Option<(u16, i64, bool)>> {
            let results = results(lane, known, &items());
            let shown = results.into_iter().map(|result| {
                let published = result.ok()?;
                assert_eq!(published.id.lane, 7);
                Some((published.id.era, published.id.offset, published.duplicate))
            });
            shown.collect()
        };
        let in_order = [
            Decision::New(0),
            Decision::Refused(Error::Internal),
            Decision::New(1),
        ];
        assert_eq!(encode(lane, &in_order), None);
        let expected = [Some((3, 100, false)), None, Some((3, 101, false))];
        assert_eq!(offsets(&known(None)), expected);
        let mixed = [
            Decision::Duplicate(message_id(lane, Era::new(2), Offset::new(5))),
            Decision::Refused(Error::Internal),
            Decision::DuplicateOfNew(0),
        ];
        let expected = [Some((2, 5, true)), None, Some((3, 100, true))];
        assert_eq!(offsets(&known(encode(lane, &mixed))), expected);
    }
}

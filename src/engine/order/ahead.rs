//! Reads the blocks ahead of the cursor, to learn the key of each message. This happens before the transaction of the
//! claim, because it may need object storage. Only committed blocks are read, and the claim moves the cursor past
//! messages that were read and no others (I4).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use api::fairness::FAIRNESS_KEY;
use api::limits::{FAIRNESS_AHEAD_MESSAGES, FAIRNESS_RUNS_MAX, KEY_CHARS_MAX};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use crate::engine::error::Error;
use crate::engine::log::block::Block;
use crate::engine::order::Dispenser;
use crate::engine::order::dispense::Fresh;
use crate::engine::order::fair::line::Line;
use crate::engine::subscriber::Subscriber;
use crate::store::{self, LaneId, Offset};

/// Bytes of blocks that one read ahead holds in memory, unless the first block alone has more.
const READ_BYTES_MAX: usize = 8 << 20;
/// Blocks read one by one at most, when reading them together fails.
const ONE_BY_ONE_MAX: usize = 64;

/// A block ahead of the cursor.
pub(super) enum AheadBlock {
    /// It was read.
    Block(Arc<Block>),
    /// It is corrupt. Its offsets count as messages without a key, so that they are handed out, fail, and are
    /// dead-lettered.
    Unreadable(Range<Offset>),
}

impl AheadBlock {
    fn offsets(&self) -> Range<Offset> {
        match self {
            Self::Block(block) => block.first_offset..block.end(),
            Self::Unreadable(offsets) => offsets.clone(),
        }
    }
}

impl Dispenser {
    /// Reads the first blocks of `offsets`, in order. They may be fewer than asked for. A read that is not done by
    /// `until` is given up for what needs no object storage.
    pub(super) async fn ahead(
        &self,
        subscriber: &Subscriber,
        lane: LaneId,
        offsets: Range<Offset>,
        until: Instant,
    ) -> Result<Vec<AheadBlock>, Error> {
        let end = offsets.start.plus(i64::from(FAIRNESS_AHEAD_MESSAGES));
        let offsets = offsets.start..end.min(offsets.end);
        let next = offsets.start;
        let read = self.read_ahead(subscriber, lane, offsets.clone());
        if let Ok(read) = timeout_at(until, read).await {
            return read;
        }
        let at_hand = self.reader.at_hand(lane, offsets).await?;
        match at_hand.first() {
            Some(first) if first.first_offset <= next => {
                Ok(at_hand.into_iter().map(AheadBlock::Block).collect())
            }
            _ => Err(Error::Unavailable("object storage")),
        }
    }

    async fn read_ahead(
        &self,
        subscriber: &Subscriber,
        lane: LaneId,
        offsets: Range<Offset>,
    ) -> Result<Vec<AheadBlock>, Error> {
        let tenant = subscriber.tenant;
        let (reader, mut blocks, mut next) = (&self.reader, Vec::new(), offsets.start);
        while next < offsets.end && blocks.len() < ONE_BY_ONE_MAX {
            let rest = next..offsets.end;
            if let Ok(read) = reader.blocks(tenant, lane, rest, READ_BYTES_MAX).await {
                blocks.extend(read.blocks.into_iter().map(AheadBlock::Block));
                break;
            }
            // A block cannot be read. The blocks before it can, and, if it is corrupt, those behind it.
            let one = match reader.block(tenant, lane, next).await {
                Ok(Some(block)) => AheadBlock::Block(block),
                Err(Error::Internal) => match self.unreadable(lane, next).await? {
                    Some(offsets) => AheadBlock::Unreadable(offsets),
                    None => break,
                },
                Err(error) if blocks.is_empty() => return Err(error),
                Ok(None) | Err(_) => break,
            };
            next = one.offsets().end;
            blocks.push(one);
        }
        Ok(blocks)
    }

    /// The offsets of the block that has `offset`, without reading it; `None` when it is gone.
    async fn unreadable(
        &self,
        lane: LaneId,
        offset: Offset,
    ) -> Result<Option<Range<Offset>>, Error> {
        let mut session = self.store.session().await?;
        let rows = store::block::covering(&mut session, lane, offset, offset.plus(1), 1).await?;
        let offsets = rows
            .first()
            .map(|row| row.first_offset..row.first_offset.plus(i64::from(row.count)));
        Ok(offsets)
    }
}

/// Adds the messages from offset `next` on to the line, up to the first gap in `blocks` or until the line is full.
/// Returns these messages and the offset after the last one.
pub(super) fn join(
    line: &mut Line,
    blocks: &[AheadBlock],
    next: Offset,
    at: OffsetDateTime,
) -> (Fresh, Offset) {
    let (mut fresh, mut next) = (Fresh::default(), next);
    let waiting = line.runs();
    for block in blocks {
        let Range { start: first, end } = block.offsets();
        if end <= next {
            continue;
        }
        if first > next {
            break;
        }
        while next < end {
            if waiting + fresh.runs() >= i64::from(FAIRNESS_RUNS_MAX) {
                return (fresh, next);
            }
            let key = match block {
                AheadBlock::Block(block) => fairness_key(block, next),
                AheadBlock::Unreadable(_) => None,
            };
            let slot = line.join(key.as_deref(), at);
            fresh.push(slot, next);
            next = next.plus(1);
        }
    }
    (fresh, next)
}

/// The fairness key of a message, cut to `KEY_CHARS_MAX` characters.
fn fairness_key(block: &Block, offset: Offset) -> Option<Cow<'_, str>> {
    let index = usize::try_from(offset.since(block.first_offset)).ok()?;
    let attributes = block.payload.get(index)?.meta().attributes;
    let (_, value) = attributes
        .into_iter()
        .find(|(name, _)| *name == FAIRNESS_KEY)?;
    let key = match value.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => &value[..end],
        None => value,
    };
    match key {
        "" => None,
        // Postgres cannot store this character in a text.
        _ if key.contains('\0') => Some(key.replace('\0', "\u{fffd}").into()),
        _ => Some(key.into()),
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::log::payload::{Meta, Payload, Records};

    use super::*;

    const T0: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    /// A block of messages of these customers.
    fn block(first_offset: i64, customers: &[&str]) -> AheadBlock {
        let mut records = Records::default();
        for customer in customers {
            let meta = Meta {
                attributes: vec![("a", "b"), (FAIRNESS_KEY, customer)],
                ..Meta::default()
            };
            records.push(&meta, b"");
        }
        let bytes = bytes::Bytes::from(records.to_payload(store::Era::FIRST));
        let total = bytes.len() as u64;
        AheadBlock::Block(Arc::new(Block {
            lane: LaneId::new(1),
            first_offset: Offset::new(first_offset),
            published_at: api::Timestamp(0),
            is_cold: false,
            payload: Payload::parse(bytes, total).unwrap(),
        }))
    }

    fn waiting(line: &Line) -> Vec<(Option<&str>, i64)> {
        line.customers()
            .map(|(_, customer)| (customer.name.as_deref(), customer.waiting))
            .collect()
    }

    #[test]
    fn messages_join_from_the_cursor_on_as_far_as_there_is_no_gap() {
        let blocks = [
            block(10, &["a", "b", "a"]),
            AheadBlock::Unreadable(Offset::new(13)..Offset::new(20)),
            block(20, &["", "b"]),
            block(30, &["c"]),
        ];
        let mut line = Line::default();
        let (fresh, next) = join(&mut line, &blocks, Offset::new(11), T0);
        assert_eq!((next, fresh.runs()), (Offset::new(22), 3));
        assert_eq!(waiting(&line), [(None, 8), (Some("b"), 2), (Some("a"), 1)]);
        // A cursor outside of these blocks: another node or retention has moved it.
        for elsewhere in [9, 22, 40].map(Offset::new) {
            let mut line = Line::default();
            let (fresh, next) = join(&mut line, &blocks, elsewhere, T0);
            assert_eq!((next, fresh.runs()), (elsewhere, 0));
        }
    }

    #[test]
    fn with_too_many_runs_nothing_more_joins() {
        let customers: Vec<String> = (0..900).map(|n| n.to_string()).collect();
        let customers: Vec<&str> = customers.iter().map(String::as_str).collect();
        let mut line = Line::default();
        line.join(None, T0);
        line.get_mut(crate::engine::order::fair::line::NO_KEY)
            .unwrap()
            .runs = i64::from(FAIRNESS_RUNS_MAX) - 5;
        let (fresh, next) = join(&mut line, &[block(0, &customers)], Offset::START, T0);
        assert_eq!((next, fresh.runs()), (Offset::new(5), 5));
    }

    #[test]
    fn of_a_long_key_the_first_characters_count() {
        let long = "ä".repeat(KEY_CHARS_MAX + 1);
        let mut line = Line::default();
        join(
            &mut line,
            &[block(0, &[&long, &long[2..]])],
            Offset::START,
            T0,
        );
        assert_eq!(waiting(&line), [(Some(&long[2..]), 2)]);
    }
}

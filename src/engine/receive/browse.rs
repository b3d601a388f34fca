//! Browse: returns messages without leasing them, one by id or a page of a topic. Called by the routes of messages. An
//! id grants nothing: its lane is resolved through the caller's tenant (I7).

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use api::limits::{BROWSE_BLOCKS_BYTES_MAX, PAGE};
use api::{MessageId, Permission, Timestamp, TopicName};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::engine::Engine;
use crate::engine::access::{Access, Tenant};
use crate::engine::catalog::TopicEntry;
use crate::engine::error::Error;
use crate::engine::log::block::StoredMessage;
use crate::engine::meter::deliveries::Payer;
use crate::store::{self, LaneId, Offset};

/// Unfiltered pages read for one page of a browse at most.
const PAGES_MAX: usize = 10;

/// Which messages of a topic a browse returns.
#[derive(Debug, Clone)]
pub struct Browse {
    /// Where it begins.
    pub from: BrowseFrom,
    /// Messages of a page at most.
    pub limit: u32,
    /// Only messages with this key.
    pub key: Option<String>,
    /// Only messages with this tag.
    pub tag: Option<String>,
}

/// Where a browse begins.
#[derive(Debug, Clone, Copy)]
pub enum BrowseFrom {
    /// The oldest kept message.
    Start,
    /// The first message published at or after a time.
    Time(api::Timestamp),
    /// A message, itself included.
    Message(MessageId),
    /// After a message.
    After(After),
}

/// Where a page of a browse ended; as text it is the `next` of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// The last message of the page.
    pub message: MessageId,
    /// The time from which the browse began. The lanes that follow the lane of the message begin there, too.
    pub since: Option<api::Timestamp>,
}

impl Engine {
    /// One message by id, to be shown. It is not leased.
    ///
    /// # Errors
    /// When it does not exist (any more) for this caller, or the database or object storage is unavailable.
    pub async fn message(&self, by: &Access, id: MessageId) -> Result<StoredMessage, Error> {
        let message = self.stored_message(by, id).await?;
        let payer = payer_of(by.tenant(), &message);
        self.tally().read_cold(payer, message.cold_bytes());
        Ok(message)
    }

    /// One message by id, of which [`Engine::body_part`] reads the body.
    ///
    /// # Errors
    /// When it does not exist (any more) for this caller, or the database or object storage is unavailable.
    pub async fn stored_message(&self, by: &Access, id: MessageId) -> Result<StoredMessage, Error> {
        let missing = || Error::not_found("message", id);
        let (lane, offset) = (LaneId::new(id.lane), Offset::new(id.offset));
        let entry = self
            .catalog()
            .topic_of_lane(self.store(), by.tenant(), lane)
            .await?
            .ok_or_else(missing)?;
        if !self.may_read(by, &entry).await? {
            return Err(missing());
        }
        let block = self
            .reader()
            .block(by.tenant().0, lane, offset)
            .await?
            .ok_or_else(missing)?;
        let index = usize::try_from(offset.since(block.first_offset)).map_err(|_| missing())?;
        let message = StoredMessage {
            block,
            index,
            topic: entry.name.clone(),
            topic_id: entry.row.topic_id,
        };
        // The message of another era at this offset is another message.
        if message.view().is_none() || message.id() != id {
            return Err(missing());
        }
        Ok(message)
    }

    /// Whether the caller may receive from the topic, or from a subscription that reads it.
    async fn may_read(&self, by: &Access, topic: &TopicEntry) -> Result<bool, Error> {
        const RECEIVE: &[Permission] = &[Permission::Receive];
        if by.covers(RECEIVE, topic.name.as_str()) {
            return Ok(true);
        }
        let mut session = self.store().session().await?;
        let (topic, names) = (topic.row.topic_id, by.like(RECEIVE));
        Ok(store::subscription::is_read_by(&mut session, topic, &names).await?)
    }

    /// A byte range of the body of a message as a stream: from memory, or by a ranged read of its object.
    ///
    /// # Errors
    /// When it does not exist any more, or the database or object storage is unavailable.
    pub async fn body_part(
        &self,
        tenant: Tenant,
        message: &StoredMessage,
        part: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let view = message.view().ok_or(Error::Internal)?;
        if let Some(body) = view.body() {
            let index = |at: u64| usize::try_from(at).unwrap_or(body.len()).min(body.len());
            let part = &body[index(part.start)..index(part.end)];
            if message.block.is_cold {
                let bytes = part.len() as u64;
                self.tally().read_cold(payer_of(tenant, message), bytes);
            }
            return Ok(stream::iter([Ok(Bytes::copy_from_slice(part))]).boxed());
        }
        let (lane, first) = (message.block.lane, message.block.first_offset);
        let mut session = self.store().session().await?;
        let row = store::block::covering(&mut session, lane, first, first.plus(1), 1)
            .await?
            .pop();
        let missing = || Error::not_found("message", message.id());
        let (object, at) = row
            .and_then(|row| row.object_id.zip(row.object_offset))
            .ok_or_else(missing)?;
        let key = store::object::keys(&mut session, &[object]).await?.pop();
        drop(session);
        let key = key.ok_or_else(missing)?.key;
        let (start, end) = view.body_range();
        let at = at.unsigned_abs() + start;
        let end = part.end.min(end - start);
        let range = at + part.start.min(end)..at + end;
        let bytes = range.end - range.start;
        let body = self.blob().stream(tenant.0.get(), &key, range).await?;
        self.tally().read_cold(payer_of(tenant, message), bytes);
        Ok(body.map_err(Error::from).boxed())
    }

    /// A page of the messages of a topic that pass the filter of `browse`, and where the next page begins. One page may
    /// need several unfiltered pages. The number of pages and the bytes held are bounded.
    ///
    /// # Errors
    /// When the topic does not exist, or the database or object storage is unavailable.
    pub async fn browse(
        &self,
        tenant: Tenant,
        topic: &TopicName,
        browse: Browse,
    ) -> Result<(Vec<StoredMessage>, Option<After>), Error> {
        let entry = self.catalog().topic(self.store(), tenant, topic).await?;
        let mut from = browse.from;
        let mut found: Vec<StoredMessage> = Vec::new();
        let mut next = None;
        for _ in 0..PAGES_MAX {
            let (messages, after) = self.unfiltered(&entry, from, browse.limit).await?;
            next = after;
            let room = browse.limit as usize - found.len();
            let mut matching = messages.into_iter().filter(|m| matches(m, &browse));
            found.extend(matching.by_ref().take(room));
            if matching.next().is_some()
                && let Some(last) = found.last()
            {
                // More messages match than fit: the next page begins after the last one that did.
                let (message, since) = (last.id(), since(from));
                next = Some(After { message, since });
                break;
            }
            let Some(after) = after else { break };
            from = BrowseFrom::After(after);
            if found.len() == browse.limit as usize || held_bytes(&found) >= BROWSE_BLOCKS_BYTES_MAX
            {
                break;
            }
        }
        if let Some(first) = found.first() {
            let payer = payer_of(tenant, first);
            let cold = found.iter().map(StoredMessage::cold_bytes);
            self.tally().read_cold(payer, cold.sum());
        }
        Ok((found, next))
    }

    /// Messages of a topic from `from` on, lane by lane, and where the next page begins. The page ends early when its
    /// blocks reach `BROWSE_BLOCKS_BYTES_MAX`.
    async fn unfiltered(
        &self,
        entry: &TopicEntry,
        from: BrowseFrom,
        limit: u32,
    ) -> Result<(Vec<StoredMessage>, Option<After>), Error> {
        let limit = limit.clamp(*PAGE.start(), *PAGE.end()) as usize;
        let since = since(from);
        let first_message = match from {
            BrowseFrom::Start | BrowseFrom::Time(_) => None,
            BrowseFrom::Message(id) => Some(id),
            BrowseFrom::After(after) => Some(after.message),
        };
        let first_lane = first_message.map_or(Ok(0), |id| {
            let lane = entry.lanes.iter().position(|lane| lane.get() == id.lane);
            lane.ok_or_else(|| Error::not_found("message", id))
        })?;
        let mut messages: Vec<StoredMessage> = Vec::new();
        let (mut room, mut cut) = (BROWSE_BLOCKS_BYTES_MAX, false);
        for (index, lane) in entry.lanes.iter().enumerate().skip(first_lane) {
            let from = if index == first_lane {
                from
            } else {
                since.map_or(BrowseFrom::Start, BrowseFrom::Time)
            };
            let mut at = self.first_offset(*lane, from).await?;
            while messages.len() <= limit && !cut {
                let want = i64::try_from(limit + 1 - messages.len()).unwrap_or(1);
                let offsets = at..at.plus(want);
                let read = self
                    .reader()
                    .blocks(entry.row.tenant_id, *lane, offsets, room)
                    .await?;
                let Some(last) = read.blocks.last() else {
                    break;
                };
                let until = last.end();
                for block in read.blocks {
                    room = room.saturating_sub(block.payload.memory_bytes());
                    let begin = usize::try_from(at.since(block.first_offset)).unwrap_or(0);
                    let all = begin..block.payload.len();
                    messages.extend(all.map(|index| StoredMessage {
                        block: block.clone(),
                        index,
                        topic: entry.name.clone(),
                        topic_id: entry.row.topic_id,
                    }));
                }
                at = until;
                cut = room == 0;
            }
        }
        let more = messages.len() > limit || cut;
        messages.truncate(limit);
        let next = messages.last().filter(|_| more).map(|last| After {
            message: last.id(),
            since,
        });
        Ok((messages, next))
    }

    /// The offset at which a browse begins in a lane.
    async fn first_offset(&self, lane: LaneId, from: BrowseFrom) -> Result<Offset, Error> {
        let mut session = self.store().session().await?;
        match from {
            BrowseFrom::Message(id) => Ok(Offset::new(id.offset)),
            BrowseFrom::After(after) => Ok(Offset::new(after.message.offset).plus(1)),
            BrowseFrom::Start => Ok(store::lane::start(&mut session, lane)
                .await?
                .unwrap_or(Offset::START)),
            BrowseFrom::Time(at) => {
                match store::block::after_time(&mut session, lane, at.into()).await? {
                    Some(first) => Ok(first),
                    None => Ok(store::block::end(&mut session, lane)
                        .await?
                        .unwrap_or(Offset::START)),
                }
            }
        }
    }
}

/// The time from which a browse reads each lane.
fn since(from: BrowseFrom) -> Option<Timestamp> {
    match from {
        BrowseFrom::Time(at) => Some(at),
        BrowseFrom::After(after) => after.since,
        BrowseFrom::Start | BrowseFrom::Message(_) => None,
    }
}

/// Bytes of the blocks that these messages keep in memory. Messages of one block stand together.
fn held_bytes(messages: &[StoredMessage]) -> usize {
    messages
        .chunk_by(|a, b| Arc::ptr_eq(&a.block, &b.block))
        .map(|of_one_block| of_one_block[0].block.payload.memory_bytes())
        .sum()
}

fn matches(message: &StoredMessage, browse: &Browse) -> bool {
    if browse.key.is_none() && browse.tag.is_none() {
        return true;
    }
    let meta = message.view().map(|view| view.meta()).unwrap_or_default();
    let passes = |wanted: &Option<String>, actual| wanted.is_none() || wanted.as_deref() == actual;
    passes(&browse.key, meta.key) && passes(&browse.tag, meta.tag)
}

/// The tenant pays for what is handed out of its messages.
fn payer_of(tenant: Tenant, message: &StoredMessage) -> Payer<'_> {
    Payer {
        tenant: tenant.0,
        topic_id: message.topic_id,
        topic: &message.topic,
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match self.since {
            Some(Timestamp(micros)) => write!(f, ".{micros}"),
            None => Ok(()),
        }
    }
}

impl FromStr for After {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (message, since) = match text.split_once('.') {
            Some((message, micros)) => (message, Some(micros.parse().map_err(drop)?)),
            None => (text, None),
        };
        Ok(Self {
            message: message.parse().map_err(drop)?,
            since: since.map(Timestamp),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_of_a_page_remembers_since_when() {
        for text in [
            "000000010000000002s3",
            "000000010000000002s3.1769860800000000",
        ] {
            let after: After = text.parse().unwrap();
            assert_eq!(after.since.is_some(), text.contains('.'));
            assert_eq!(after.to_string(), text);
        }
        for text in ["", ".1", "000000010000000002s3.", "000000010000000002s3.x"] {
            assert!(text.parse::<After>().is_err(), "{text}");
        }
    }
}

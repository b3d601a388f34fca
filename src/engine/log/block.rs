//! A block in memory, a message in it, and a message that was handed out with a receipt. A message refers to its block,
//! so cloning it copies no body.

use std::sync::Arc;

use api::limits::INLINE_BODY_BYTES_MAX;
use api::{MessageId, Timestamp, TopicName};

use crate::engine::log::payload::{Payload, View};
use crate::store::{Era, LaneId, Offset, TopicId};

/// A block in memory: the whole block, or only the head of a block with one large message.
#[derive(Debug)]
pub struct Block {
    /// Its lane.
    pub lane: LaneId,
    /// Offset of its first message.
    pub first_offset: Offset,
    /// When it was published.
    pub published_at: Timestamp,
    /// Whether it was read from object storage.
    pub is_cold: bool,
    /// Its messages.
    pub payload: Payload,
}

impl Block {
    /// Offset after its last message.
    #[must_use]
    pub fn end(&self) -> Offset {
        let messages = i64::try_from(self.payload.len()).unwrap_or(0);
        self.first_offset.plus(messages)
    }
}

/// The id of a message as clients see it.
#[must_use]
pub fn message_id(lane: LaneId, era: Era, offset: Offset) -> MessageId {
    MessageId {
        lane: lane.get(),
        era: era.get(),
        offset: offset.get(),
    }
}

/// A message that is stored.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// The block it is in.
    pub block: Arc<Block>,
    /// Its index in the block.
    pub index: usize,
    /// The topic it was published to.
    pub topic: Arc<TopicName>,
    /// Id of that topic.
    pub topic_id: TopicId,
}

impl StoredMessage {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> MessageId {
        message_id(self.block.lane, self.block.payload.era(), self.offset())
    }

    /// Its offset in its lane.
    #[must_use]
    pub fn offset(&self) -> Offset {
        let index = i64::try_from(self.index).unwrap_or(0);
        self.block.first_offset.plus(index)
    }

    /// Bytes of its encoded body and attributes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.block.payload.message_bytes(self.index)
    }

    /// Bytes of object storage that handing it out is metered with: its own, whatever else was read with it and however
    /// often. None for a body that is only linked; it is metered when it is read.
    #[must_use]
    pub fn cold_bytes(&self) -> u64 {
        let is_shown = |body: &[u8]| body.len() <= INLINE_BODY_BYTES_MAX;
        let body = self.view().and_then(|view| view.body());
        if self.block.is_cold && body.is_some_and(is_shown) {
            self.bytes()
        } else {
            0
        }
    }

    /// Its content; `None` when the block has no such message.
    #[must_use]
    pub fn view(&self) -> Option<View<'_>> {
        self.block.payload.get(self.index)
    }
}

/// A message that was handed out to a receiver.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The receipt that settles it.
    pub receipt: String,
    /// The message.
    pub message: StoredMessage,
    /// How many times it has been handed out, this time included.
    pub attempt: u32,
    /// Until when no other receiver gets it.
    pub visible_until: Timestamp,
}

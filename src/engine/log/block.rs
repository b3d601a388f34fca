//! Messages on their way out: a message in a cached block, and the same with the lease it was handed out under. Cloning
//! copies nothing of the body.

use std::sync::Arc;

use api::{MessageId, Timestamp, TopicName};

use crate::engine::log::payload::{Payload, View};

/// A block in memory, whole or (when large) its head.
#[derive(Debug)]
pub struct Block {
    /// Its lane.
    pub lane: i64,
    /// Offset of its first message.
    pub first_offset: i64,
    /// When it was published.
    pub published_at: Timestamp,
    /// Its messages.
    pub payload: Payload,
}

impl Block {
    /// Offset after its last message.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.first_offset + i64::try_from(self.payload.len()).unwrap_or(0)
    }
}

/// A message that is stored.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// The block it is in.
    pub block: Arc<Block>,
    /// Which one of the block.
    pub index: usize,
    /// The topic it was published to.
    pub topic: Arc<TopicName>,
    /// Number of that topic.
    pub topic_id: i64,
}

impl StoredMessage {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> MessageId {
        let index = i64::try_from(self.index).unwrap_or(0);
        MessageId {
            lane: self.block.lane,
            offset: self.block.first_offset + index,
        }
    }

    /// Its bytes, body and attributes as they are encoded.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.block.payload.message_bytes(self.index)
    }

    /// Its content; `None` when the block has no such message.
    #[must_use]
    pub fn view(&self) -> Option<View<'_>> {
        self.block.payload.get(self.index)
    }
}

/// A message handed out.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Settles it, once.
    pub receipt: String,
    /// The message.
    pub message: StoredMessage,
    /// How many times it has been handed out, this time included.
    pub attempt: u32,
    /// Until when nobody else gets it.
    pub visible_until: Timestamp,
}

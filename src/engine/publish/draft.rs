//! The input of a publish: messages that are checked and encoded, or one message whose body streams, and the keys that
//! prevent a second publish of the same. Built by `http`.

use crate::engine::error::Error;
use crate::engine::limit::Capacity;
use crate::engine::log::payload::{Meta, Records};

/// The items of one publish, checked and encoded. An invalid item keeps its index, so that results stand in order.
#[derive(Debug, Default)]
pub struct Drafts {
    /// The valid messages.
    pub records: Records,
    /// All items in order. The valid ones are in `records` in the same order.
    pub items: Vec<Draft>,
    /// The capacity that they are published under.
    pub capacity: Capacity,
}

/// A publish of one message whose body streams to object storage.
#[derive(Debug)]
pub struct Streamed<'a> {
    /// All of the message apart from its body.
    pub meta: Meta<'a>,
    /// The `Idempotency-Key`, unquoted. Its fingerprint is taken while the body streams.
    pub key: Option<String>,
    /// The capacity that it is published under.
    pub capacity: Capacity,
}

/// One item of [`Drafts`].
#[derive(Debug)]
pub enum Draft {
    /// Encoded in the records, with its `dedup_id` if it has one.
    Valid(Option<String>),
    /// Refused by the checks of `http`.
    Refused(Error),
}

/// The route of a publish. The same `Idempotency-Key` on another route is another key.
#[derive(Debug, Clone, Copy)]
pub enum PublishRoute {
    /// One message.
    Single,
    /// A batch, also of one message.
    Batch,
}

/// An `Idempotency-Key` and the hash of the body that it was sent with.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The route that it was sent to.
    pub route: PublishRoute,
    /// The key, unquoted, 1 to 255 characters.
    pub key: String,
    /// SHA-256 of the request body.
    pub fingerprint: [u8; 32],
}

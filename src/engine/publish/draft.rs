//! What a publish brings: messages that are checked and encoded, or one whose body streams, and the keys that guard against
//! publishing twice. Made by `http`.

use crate::engine::error::Error;
use crate::engine::limit::Capacity;
use crate::engine::log::payload::{Meta, Records};

/// Messages of one publish, checked and encoded; an invalid one keeps its place among its neighbours.
#[derive(Debug, Default)]
pub struct Drafts {
    /// The valid ones.
    pub records: Records,
    /// One per item in order; the valid ones stand in `records` in the same order.
    pub items: Vec<Draft>,
    /// Under which capacity they are published.
    pub capacity: Capacity,
}

/// A publish of one message whose body streams to object storage.
#[derive(Debug)]
pub struct Streamed<'a> {
    /// What it carries apart from its body.
    pub meta: Meta<'a>,
    /// The bare idempotency key.
    pub key: Option<String>,
    /// Under which capacity it is published.
    pub capacity: Capacity,
}

/// One item of [`Drafts`].
#[derive(Debug)]
pub enum Draft {
    /// Encoded into the records, with its `dedup_id` if it has one.
    Valid(Option<String>),
    /// Refused before it came this far.
    Refused(Error),
}

/// The route of a publish: the same `Idempotency-Key` on another one is another key.
#[derive(Debug, Clone, Copy)]
pub enum PublishRoute {
    /// One message.
    Single,
    /// A batch, also of one message.
    Batch,
}

/// An `Idempotency-Key` and what it was sent with.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// Where it was sent to.
    pub route: PublishRoute,
    /// The key, unquoted, 1 to 255 characters.
    pub key: String,
    /// SHA-256 of the request body.
    pub fingerprint: [u8; 32],
}

//! What object storage of one kind does. `Blob` checks keys and ranges, waits for slots and counts requests; a backend
//! only talks to its storage. A new kind is a module with an implementation, a case of `Storage`, and its choice in
//! `config::resolve`. The futures are boxed so that `Blob` has no type parameter; a request to storage costs far more.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use time::OffsetDateTime;

use super::metrics::Metrics;
use super::pool::Pool;
use super::source::Source;
use super::{Error, Listed};
use crate::turnstile::Owner;

/// The future of one request.
pub(super) type Request<'a, T> = BoxFuture<'a, Result<T, Error>>;
/// A body as storage returns it.
pub(super) type Pieces = BoxStream<'static, Result<Bytes, Error>>;

/// What an upload needs to send several requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uploading<'a> {
    /// Slots of the requests.
    pub(super) writes: &'a Pool,
    /// Owner of the slots.
    pub(super) owner: Owner,
    /// Counters of the requests.
    pub(super) metrics: &'a Metrics,
}

/// Object storage of one kind.
pub(super) trait Backend: fmt::Debug + Send + Sync {
    /// Writes a whole object, and returns when it is durable.
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Request<'a, ()>;

    /// Writes a body of unknown length. An object appears only when the body is complete.
    fn upload<'a>(
        &'a self,
        key: &'a str,
        source: &'a mut Source<'_>,
        uploading: Uploading<'a>,
    ) -> Request<'a, ()>;

    /// Reads the whole range, or fails.
    fn range<'a>(&'a self, key: &'a str, range: Range<u64>) -> Request<'a, Bytes>;

    /// Streams the part of the range that exists, which may be less than all of it.
    fn stream<'a>(&'a self, key: &'a str, range: Range<u64>) -> Request<'a, Pieces>;

    /// Deletes at most [`super::DELETE_KEYS_MAX`] objects. A key that does not exist is not an error.
    fn delete<'a>(&'a self, keys: &'a [String]) -> Request<'a, ()>;

    /// Returns one page of objects in the order of their keys.
    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Request<'a, Vec<Listed>>;

    /// Removes unfinished uploads that began before `before`, and returns their number.
    fn sweep_uploads<'a>(&'a self, prefix: &'a str, before: OffsetDateTime) -> Request<'a, usize>;

    /// Checks whether storage responds and grants access.
    fn check(&self) -> Request<'_, ()>;

    /// Waits for the background work of requests.
    fn drain(&self) -> BoxFuture<'_, ()>;
}

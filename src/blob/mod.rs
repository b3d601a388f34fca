//! Object storage for payload packs and large bodies: S3 or a directory. `engine` and `worker` call it; no S3 type
//! leaves it. An object is written once under a random key, so nothing here overwrites or locks.
//! Bounded and fair (I9): every request has a deadline, a number of attempts and a slot in the pool of its kind, so a
//! reader that catches up never takes a slot of a publish. Does not know blocks: the callers decide about keys, ranges
//! and when an object is needed no more.

mod backend;
mod directory;
mod error;
mod exact;
mod key;
mod metrics;
mod pool;
mod pump;
mod s3;
mod source;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, TryStreamExt};
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;

pub use error::{BoxError, Error};
pub use metrics::{Metrics, Op};
pub use pool::REQUESTS_MAX;
pub use s3::{S3Settings, Timeouts};

use backend::{Backend, Uploading};
use directory::Directory;
use pool::Pools;
use pump::Streaming;
use s3::S3;
use source::Source;

use crate::turnstile::{Owner, SERVICE};

/// Largest range that [`Blob::range`] reads, in bytes, because it is held in memory. Larger bodies go through
/// [`Blob::stream`].
pub const RANGE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key, without the configured prefix.
    pub key: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the write, by the clock of the storage.
    pub modified: OffsetDateTime,
}

/// Keys of one request that deletes objects.
const DELETE_KEYS_MAX: usize = 1_000;

/// A kind of object storage and its settings.
#[derive(Clone, Debug)]
pub enum Storage {
    /// A bucket.
    S3(S3Settings),
    /// A directory of this machine.
    Directory(PathBuf),
}

/// The location, without prefix and credentials.
impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3(settings) => write!(f, "s3://{}", settings.bucket),
            Self::Directory(root) => write!(f, "{}", root.display()),
        }
    }
}

/// A handle on object storage, to be shared in an `Arc`.
#[derive(Debug)]
pub struct Blob {
    backend: Arc<dyn Backend>,
    pools: Pools,
    metrics: Metrics,
    /// Longest pause of a client that uploads or downloads.
    pause_max: Duration,
    /// Tasks that read bodies for streams.
    pumps: TaskTracker,
}

impl Blob {
    /// Opens object storage of any kind.
    pub async fn open(storage: Storage) -> Result<Self, Error> {
        match storage {
            Storage::S3(settings) => Ok(Self::s3(settings).await),
            Storage::Directory(root) => Self::directory(&root).await,
        }
    }

    /// Objects in a bucket. Sends no request unless the credentials come from the cloud's provider chain.
    pub async fn s3(settings: S3Settings) -> Self {
        let timeouts = settings.timeouts;
        Self::over(Arc::new(S3::new(settings).await), timeouts)
    }

    /// Objects in a directory of this machine, created when missing; for the embedded mode.
    pub async fn directory(root: &Path) -> Result<Self, Error> {
        let directory = Directory::open(root).await?;
        Ok(Self::over(Arc::new(directory), Timeouts::default()))
    }

    fn over(backend: Arc<dyn Backend>, timeouts: Timeouts) -> Self {
        Self {
            backend,
            pools: Pools::new(timeouts.overall),
            metrics: Metrics::default(),
            pause_max: timeouts.pause,
            pumps: TaskTracker::new(),
        }
    }

    /// Counters, for telemetry to register.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Writes a whole object that is already in memory, and returns when it is durable. Its slot belongs to the
    /// service, not to a tenant.
    pub async fn put(&self, key: &str, body: Bytes) -> Result<(), Error> {
        key::check(key)?;
        let _slot = self.pools.writes.slot(SERVICE).await?;
        let written = self.backend.put(key, body);
        self.metrics.count(Op::Put, written).await
    }

    /// Writes a body of unknown length, holding at most one part of it in memory, and returns its length in bytes. When
    /// it fails or is dropped, nothing remains; [`Blob::sweep_uploads`] removes what a crash leaves. When the outcome
    /// of the last request is unknown, a complete object may remain that no block refers to; garbage collection deletes
    /// it.
    pub async fn upload<S, E>(
        &self,
        owner: Owner,
        key: &str,
        body: S,
        max_bytes: u64,
    ) -> Result<u64, Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BoxError>,
    {
        key::check(key)?;
        let _slot = self.pools.uploads.slot(owner).await?;
        let body = std::pin::pin!(body.map_err(Into::into));
        let mut source = Source::new(body, max_bytes, self.pause_max);
        let uploading = Uploading {
            writes: &self.pools.writes,
            owner,
            metrics: &self.metrics,
        };
        self.backend.upload(key, &mut source, uploading).await?;
        Ok(source.taken())
    }

    /// Reads exactly `range` of an object into memory, or fails.
    pub async fn range(&self, owner: Owner, key: &str, range: Range<u64>) -> Result<Bytes, Error> {
        key::check(key)?;
        let bytes = range.end.saturating_sub(range.start);
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        if bytes > RANGE_BYTES_MAX {
            return Err(Error::TooLarge {
                limit: RANGE_BYTES_MAX,
            });
        }
        let _slot = self.pools.reads.slot(owner).await?;
        let read = self.backend.range(key, range);
        self.metrics.count(Op::Get, read).await
    }

    /// Streams exactly `range` of an object at the pace of the reader. The stream ends with an error when storage
    /// returns less. It holds a slot of the pool for streams while its reader reads, or no other request needs it.
    pub async fn stream(
        &self,
        owner: Owner,
        key: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        key::check(key)?;
        if range.is_empty() {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let streaming = Streaming {
            backend: Arc::clone(&self.backend),
            pool: self.pools.streams.clone(),
            metrics: self.metrics.clone(),
            owner,
            key: key.to_owned(),
            range,
            pause_max: self.pause_max,
        };
        streaming.start(&self.pumps).await
    }

    /// Deletes objects, at most 1,000 per request. A key that does not exist is not an error.
    pub async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        for key in keys {
            key::check(key)?;
        }
        for keys in keys.chunks(DELETE_KEYS_MAX) {
            let _slot = self.pools.writes.slot(SERVICE).await?;
            let deleted = self.backend.delete(keys);
            self.metrics.count(Op::Delete, deleted).await?;
        }
        Ok(())
    }

    /// Returns one page: at most 1,000 objects in the order of their keys that begin with `prefix` and come after
    /// `after`. An empty page is the end.
    pub async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, Error> {
        key::check_prefix(prefix)?;
        let _slot = self.pools.reads.slot(SERVICE).await?;
        let listed = self.backend.list(prefix, after);
        self.metrics.count(Op::List, listed).await
    }

    /// Removes unfinished uploads that began before `before`, and returns their number. `before` must be so early that
    /// no upload of that time can still run. Only keys with `prefix` are considered, because a bucket may be shared. A
    /// directory belongs to one installation and its unfinished files have no keys yet, so there the prefix is ignored.
    pub async fn sweep_uploads(
        &self,
        prefix: &str,
        before: OffsetDateTime,
    ) -> Result<usize, Error> {
        key::check_prefix(prefix)?;
        let _slot = self.pools.writes.slot(SERVICE).await?;
        let swept = self.backend.sweep_uploads(prefix, before);
        self.metrics.count(Op::List, swept).await
    }

    /// Checks within two seconds whether storage responds and grants access. Takes no slot: a busy storage is not a
    /// broken one.
    pub async fn check(&self) -> Result<(), Error> {
        let answer = self.backend.check();
        self.metrics.count(Op::List, answer).await
    }

    /// Waits for streams to end and for the aborts of dropped uploads. Called at the end of the process, after the last
    /// request.
    pub async fn drain(&self) {
        self.pumps.close();
        self.pumps.wait().await;
        self.backend.drain().await;
    }
}

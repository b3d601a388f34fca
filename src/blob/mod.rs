//! Object storage: payload packs and big bodies, in S3 or in a directory. The engine and the workers call it, and no
//! S3 type leaves it. Objects are written once under random keys, so nothing here overwrites or locks.
//! Bounded (I9) and fair: every request has a deadline, a number of attempts and a slot in the pool of its kind; a reader that
//! catches up never takes a slot of a publish. Does not know blocks: keys, ranges and who still needs them are the caller's.

mod directory;
mod error;
mod exact;
mod key;
mod metrics;
mod pace;
mod pool;
mod pump;
mod s3;
mod source;

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, TryStreamExt};
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;

pub use error::{BoxError, Error};
pub use metrics::{Metrics, Op};
pub use s3::{S3Settings, Timeouts};

use directory::Directory;
use pool::Pools;
use s3::S3;
use source::Source;

use crate::turnstile::{Owner, SERVICE};

/// The largest answer of [`Blob::range`], in bytes: it is held in memory. Larger bodies go through [`Blob::stream`].
pub const RANGE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key, without the prefix of the settings.
    pub key: String,
    /// Size in bytes.
    pub bytes: u64,
    /// When it was written, by the clock of the storage.
    pub modified: OffsetDateTime,
}

/// A handle on object storage; cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Blob {
    place: Place,
    pools: Pools,
    metrics: Metrics,
    /// Longest pause of a client that uploads or downloads.
    pause_max: Duration,
    /// Bodies being read for a taker.
    pumps: TaskTracker,
}

#[derive(Debug)]
enum Place {
    S3(S3),
    Directory(Directory),
}

impl Blob {
    /// Objects in a bucket. Asks nothing of the network unless the credentials come from the cloud's chain.
    pub async fn s3(settings: S3Settings) -> Self {
        let timeouts = settings.timeouts;
        Self::at(Place::S3(S3::new(settings).await), timeouts)
    }

    /// Objects in a directory of this machine, created when missing: the embedded mode.
    pub async fn directory(root: &Path) -> Result<Self, Error> {
        let place = Place::Directory(Directory::open(root).await?);
        Ok(Self::at(place, Timeouts::default()))
    }

    fn at(place: Place, timeouts: Timeouts) -> Self {
        Self {
            place,
            pools: Pools::new(timeouts.overall),
            metrics: Metrics::default(),
            pause_max: timeouts.pause,
            pumps: TaskTracker::new(),
        }
    }

    /// The counters, for telemetry to register.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Writes a whole object that is in memory already; the service does, for whomever. Returns when it is durable.
    pub async fn put(&self, key: &str, body: Bytes) -> Result<(), Error> {
        key::check(key)?;
        let _slot = self.pools.writes.slot(SERVICE).await?;
        let written = async {
            match &self.place {
                Place::S3(s3) => s3.put(key, body).await,
                Place::Directory(directory) => directory.put(key, body).await,
            }
        };
        self.metrics.count(Op::Put, written).await
    }

    /// Writes a body of unknown length without holding more than one part of it, and returns its bytes. When it fails
    /// or is dropped nothing remains; what a crash leaves is taken away by [`Blob::sweep_uploads`]. A failure whose
    /// outcome is unknown may leave a whole object that nothing refers to: the garbage collection's part.
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
        match &self.place {
            Place::S3(s3) => {
                s3.upload(key, &mut source, (&self.pools.writes, owner), &self.metrics)
                    .await?;
            }
            Place::Directory(directory) => {
                let written = directory.upload(key, &mut source);
                self.metrics.count(Op::Put, written).await?;
            }
        }
        Ok(source.taken())
    }

    /// Reads exactly `range` of an object into memory; never less without an error.
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
        let read = async {
            match &self.place {
                Place::S3(s3) => s3.range(key, range).await,
                Place::Directory(directory) => directory.range(key, range).await,
            }
        };
        self.metrics.count(Op::Get, read).await
    }

    /// Reads exactly `range` of an object piece by piece, as fast as the taker takes. The stream ends with an error
    /// when storage gave less; it keeps its slot in a pool of its own until it is dropped, or its taker is too slow.
    pub async fn stream(
        &self,
        owner: Owner,
        key: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        key::check(key)?;
        let want = range.end.saturating_sub(range.start);
        if want == 0 {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let slot = self.pools.streams.slot(owner).await?;
        let opened = async {
            match &self.place {
                Place::S3(s3) => s3.open(key, range).await,
                Place::Directory(directory) => directory.stream(key, range).await,
            }
        };
        let pieces = self.metrics.count(Op::Get, opened).await?;
        let failures = self.metrics.clone();
        let exact = exact::exact(pieces, key.to_owned(), want);
        let counted = exact.inspect_err(move |_| failures.failed(Op::Get));
        let pieces = Box::pin(counted);
        Ok(pump::pump(pieces, want, self.pause_max, slot, &self.pumps))
    }

    /// Deletes objects, at most 1,000 a request. Keys that do not exist are no error.
    pub async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        for key in keys {
            key::check(key)?;
        }
        for keys in keys.chunks(s3::DELETE_KEYS_MAX) {
            let _slot = self.pools.writes.slot(SERVICE).await?;
            let deleted = async {
                match &self.place {
                    Place::S3(s3) => s3.delete(keys).await,
                    Place::Directory(directory) => directory.delete(keys).await,
                }
            };
            self.metrics.count(Op::Delete, deleted).await?;
        }
        Ok(())
    }

    /// One page, at most 1,000 objects in the order of their keys: those that begin with `prefix` and come after
    /// `after`. An empty page is the end.
    pub async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, Error> {
        key::check_prefix(prefix)?;
        let _slot = self.pools.reads.slot(SERVICE).await?;
        let listed = async {
            match &self.place {
                Place::S3(s3) => s3.list(prefix, after).await,
                Place::Directory(directory) => directory.list(prefix, after).await,
            }
        };
        self.metrics.count(Op::List, listed).await
    }

    /// Takes away uploads of keys that begin with `prefix`, began before `before` and never ended, and returns how many:
    /// a bucket may be shared. The time must be so far back that no upload can still be running. A directory belongs to
    /// one installation, and its unfinished files have no keys yet: there the prefix is of no account.
    pub async fn sweep_uploads(
        &self,
        prefix: &str,
        before: OffsetDateTime,
    ) -> Result<usize, Error> {
        key::check_prefix(prefix)?;
        let _slot = self.pools.writes.slot(SERVICE).await?;
        let swept = async {
            match &self.place {
                Place::S3(s3) => s3.sweep_uploads(prefix, before).await,
                Place::Directory(directory) => directory.sweep_uploads(before).await,
            }
        };
        self.metrics.count(Op::List, swept).await
    }

    /// Says whether storage answers and lets this node in, within two seconds. Takes no slot: busy is not broken.
    pub async fn check(&self) -> Result<(), Error> {
        let answer = async {
            match &self.place {
                Place::S3(s3) => s3.check().await,
                Place::Directory(directory) => directory.check().await,
            }
        };
        self.metrics.count(Op::List, answer).await
    }

    /// Waits for the aborts of dropped uploads; for the end of the process, after the last request.
    pub async fn drain(&self) {
        self.pumps.close();
        self.pumps.wait().await;
        match &self.place {
            Place::S3(s3) => s3.drain().await,
            Place::Directory(_) => {}
        }
    }
}

//! How many requests to object storage run at once, by kind (I9). Four pools, so that no kind can starve another: a
//! consumer that reads last week's packs must not slow an upload, and a client that downloads slowly must not stop it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;

/// Ranged reads and listings; each holds its answer in memory.
const READS: usize = 32;
/// Writes and deletes, the parts of uploads included.
const WRITES: usize = 32;
/// Uploads under way, each with one part (8 MiB) in memory and as slow as its client.
const UPLOADS: usize = 16;
/// Bodies being streamed out, as slow as their clients.
const STREAMS: usize = 64;

#[derive(Debug)]
pub(super) struct Pools {
    pub(super) reads: Pool,
    pub(super) writes: Pool,
    pub(super) uploads: Pool,
    pub(super) streams: Pool,
}

impl Pools {
    /// `wait` is the longest time anybody waits for a slot.
    pub(super) fn new(wait: Duration) -> Self {
        let pool = |name, limit| Pool {
            name,
            limit,
            wait,
            slots: Arc::new(Semaphore::new(limit)),
        };
        Self {
            reads: pool("reads", READS),
            writes: pool("writes", WRITES),
            uploads: pool("uploads", UPLOADS),
            streams: pool("streams", STREAMS),
        }
    }
}

#[derive(Debug)]
pub(super) struct Pool {
    name: &'static str,
    limit: usize,
    wait: Duration,
    slots: Arc<Semaphore>,
}

impl Pool {
    /// Waits for a slot in the order of asking; it is free again when the permit is dropped.
    pub(super) async fn slot(&self) -> Result<OwnedSemaphorePermit, Error> {
        let slot = Arc::clone(&self.slots).acquire_owned();
        match tokio::time::timeout(self.wait, slot).await {
            Ok(Ok(slot)) => Ok(slot),
            // The semaphore is never closed, so the inner error does not happen.
            Ok(Err(_)) | Err(_) => Err(Error::Busy {
                pool: self.name,
                limit: self.limit,
            }),
        }
    }
}

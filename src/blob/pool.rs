//! How many requests to object storage run at once, by kind (I9). Four pools, so that no kind can starve another: a
//! consumer that reads last week's packs must not slow an upload, and a client that downloads slowly must not stop it.
//! Within each, tenants take turns; of what is as slow as its client one tenant has three quarters at most.

use std::time::Duration;

use super::Error;
use crate::turnstile::{Owner, Place, Turnstile};

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
        let pool = |name, limit, of_one| Pool {
            name,
            limit,
            wait,
            slots: Turnstile::new(limit, of_one),
        };
        Self {
            reads: pool("reads", READS, READS),
            writes: pool("writes", WRITES, WRITES),
            uploads: pool("uploads", UPLOADS, UPLOADS / 4 * 3),
            streams: pool("streams", STREAMS, STREAMS / 4 * 3),
        }
    }
}

#[derive(Debug)]
pub(super) struct Pool {
    name: &'static str,
    limit: usize,
    wait: Duration,
    slots: Turnstile,
}

impl Pool {
    /// Waits for a slot; it is free again when it is dropped.
    pub(super) async fn slot(&self, owner: Owner) -> Result<Place, Error> {
        let slot = self.slots.enter(owner);
        let slot = tokio::time::timeout(self.wait, slot).await;
        slot.map_err(|_| Error::Busy {
            pool: self.name,
            limit: self.limit,
        })
    }
}

//! Limits how many requests to object storage run at once, by kind (I9). There are four pools, so that no kind can
//! starve another: a consumer that reads last week's packs must not slow down uploads, and neither must a client that
//! downloads slowly. Within a pool, tenants take turns. Uploads and streams are as slow as their clients, so there one
//! tenant holds at most three quarters of the slots.

use std::time::Duration;

use super::Error;
use crate::turnstile::{Owner, Place, Turnstile};

/// Range reads and listings; each holds its result in memory.
const READS: usize = 32;
/// Writes and deletes, including the parts of uploads.
const WRITES: usize = 32;
/// Uploads; each holds one part (8 MiB) in memory and is as slow as its client.
const UPLOADS: usize = 16;
/// Bodies streamed to clients; each is as slow as its client.
const STREAMS: usize = 64;
/// All of them: the connections or files that object storage may take at the same time.
pub const REQUESTS_MAX: u32 = 144;

#[derive(Debug)]
pub(super) struct Pools {
    pub(super) reads: Pool,
    pub(super) writes: Pool,
    pub(super) uploads: Pool,
    pub(super) streams: Pool,
}

impl Pools {
    /// `wait` is the longest wait for a slot.
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

const _: () = assert!(REQUESTS_MAX as usize == READS + WRITES + UPLOADS + STREAMS);

#[derive(Debug, Clone)]
pub(super) struct Pool {
    name: &'static str,
    limit: usize,
    wait: Duration,
    slots: Turnstile,
}

impl Pool {
    /// Waits for a slot, which is held until it is dropped.
    pub(super) async fn slot(&self, owner: Owner) -> Result<Place, Error> {
        let slot = self.slots.enter(owner);
        let slot = tokio::time::timeout(self.wait, slot).await;
        slot.map_err(|_| Error::Busy {
            pool: self.name,
            limit: self.limit,
        })
    }

    /// Whether a request waits for a slot.
    pub(super) fn is_waited_for(&self) -> bool {
        self.slots.is_waited_for()
    }
}

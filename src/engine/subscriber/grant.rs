//! Grants: messages of one lease for one receiver, made by a turn, a redelivery or a claim of `order`.

use std::ops::Range;

use time::OffsetDateTime;
use tokio::time::Instant;

use crate::engine::mask::lowest;
use crate::store::lease::Lease;
use crate::store::{LaneId, LeaseId, Offset};

/// Messages of one lease given to one receiver.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// Lane.
    pub lane: LaneId,
    /// Lease.
    pub lease: LeaseId,
    /// Offset of bit 0.
    pub base: Offset,
    /// The messages that are given, as bits of the lease.
    pub bits: u64,
    /// How many times they have been handed out, including this time.
    pub attempt: u32,
    /// Until when they are hidden from other receivers.
    pub deadline: OffsetDateTime,
    /// When this node learned of the lease.
    pub since: Instant,
}

impl Grant {
    /// The offsets from its first message to its last.
    #[must_use]
    pub fn offsets(&self) -> Range<Offset> {
        let first = self.base.plus(i64::from(self.bits.trailing_zeros()));
        let after = self.base.plus(i64::from(64 - self.bits.leading_zeros()));
        first..after
    }

    /// All pending messages of a lease.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
        Self {
            lane: lease.key.lane,
            lease: lease.key.lease,
            base: lease.base,
            bits: lease.pending,
            attempt: lease.attempt.unsigned_abs(),
            deadline: lease.deadline,
            since: Instant::now(),
        }
    }

    /// How many messages are given.
    #[must_use]
    pub fn messages(&self) -> u32 {
        self.bits.count_ones()
    }
}

/// Up to `wanted` messages from the end of `rest`, whose last lease comes first.
pub(super) fn take(rest: &mut Vec<Grant>, mut wanted: u32) -> Vec<Grant> {
    let mut taken = Vec::with_capacity(2);
    while wanted > 0 {
        let Some(last) = rest.last_mut() else { break };
        let bits = lowest(last.bits, wanted);
        wanted -= bits.count_ones();
        taken.push(Grant { bits, ..*last });
        last.bits &= !bits;
        if last.bits == 0 {
            rest.pop();
        }
    }
    taken
}

//! Messages of one lease given to one receiver: what a turn or a redelivery hands out.

use time::OffsetDateTime;

use crate::engine::mask::lowest;
use crate::store::lease::Lease;

/// Messages of one lease given to one receiver.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// Lane.
    pub lane: i64,
    /// Lease.
    pub lease: i64,
    /// Offset of bit 0.
    pub base: i64,
    /// The bits that are given.
    pub bits: u64,
    /// How many times they have been handed out, this time included.
    pub attempt: u32,
    /// Until when they are hidden from others.
    pub deadline: OffsetDateTime,
}

impl Grant {
    /// All that is pending in a lease.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
        Self {
            lane: lease.key.lane,
            lease: lease.key.lease,
            base: lease.base,
            bits: lease.pending,
            attempt: lease.attempt.unsigned_abs(),
            deadline: lease.deadline,
        }
    }

    /// How many messages are given.
    #[must_use]
    pub fn messages(&self) -> u32 {
        self.bits.count_ones()
    }
}

/// Up to `wanted` messages from the end of `rest`, whose last lease comes first.
pub(super) fn take(rest: &mut Vec<Grant>, wanted: u32) -> Vec<Grant> {
    let mut mine = Vec::with_capacity(2);
    let mut wanted = wanted;
    while wanted > 0 {
        let Some(last) = rest.last_mut() else { break };
        let bits = lowest(last.bits, wanted);
        wanted -= bits.count_ones();
        mine.push(Grant { bits, ..*last });
        last.bits &= !bits;
        if last.bits == 0 {
            rest.pop();
        }
    }
    mine
}

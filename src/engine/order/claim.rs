//! The claim in one lane of a subscription with an order of its own. One transaction adds the messages that were read
//! ahead of the cursor to the line, moves the cursor past them, and puts the next messages into new leases. It locks
//! the cursor first, so one claim runs at a time, on all nodes. It passes over waiting leases that another transaction
//! has locked, so it waits for no other lock.

use std::ops::Range;

use crate::engine::error::Error;
use crate::engine::lease::{expect, plan, write};
use crate::engine::order::Dispenser;
use crate::engine::order::ahead::{self, AheadBlock};
use crate::engine::order::dispense::{self, Fresh, Service};
use crate::engine::order::fair::line::{Line, Weights};
use crate::engine::order::want::Want;
use crate::engine::subscriber::Subscriber;
use crate::store::cursor::CursorRow;
use crate::store::fairness::Ahead;
use crate::store::lease::Lease;
use crate::store::{self, CursorKey, Offset, Session};

/// Times that messages are picked again because fewer wait than the line counts.
const CORRECTIONS_MAX: usize = 4;

/// The result of a claim in one lane.
#[derive(Debug, Default)]
pub(super) struct LaneClaim {
    /// Leases that were handed out.
    pub(super) given: Vec<Lease>,
    /// Whether another claim should follow at once: waiting leases were locked by another transaction, or more messages
    /// are ahead than one claim reads.
    pub(super) again: bool,
}

impl Dispenser {
    /// Claims messages in one lane, from the blocks read ahead and from waiting leases. `lane` is what was found in it
    /// before the blocks were read.
    pub(super) async fn claim(
        &self,
        subscriber: &Subscriber,
        lane: &Ahead,
        blocks: &[AheadBlock],
        want: &Want,
    ) -> Result<LaneClaim, Error> {
        let key = CursorKey {
            lane: lane.lane_id,
            subscription: subscriber.id,
        };
        let weights = Weights::of_subscriber(subscriber);
        let mut tx = self.store.tx("claim_fair").await?;
        let Some(cursor) = store::cursor::lock(&mut tx, key).await? else {
            // The next service finds that the subscription is gone.
            return Ok(LaneClaim {
                again: true,
                ..LaneClaim::default()
            });
        };
        // These statements come after the lock, so they see all that the claims before this one have committed.
        let at = store::session::now(&mut tx, self.clock.now()).await?;
        let stored_line = store::fairness::get(&mut tx, key).await?;
        let (version, before) = stored_line.unzip();
        let before = before.unwrap_or_default();
        let mut line = Line::of(before.clone());
        let (fresh, next) = ahead::join(&mut line, blocks, cursor.next_offset, at);
        let picking = Picking {
            key,
            fresh: &fresh,
            weights: &weights,
            wanted: want.messages(),
        };
        let Picks {
            slots,
            stored,
            is_complete,
        } = pick(&mut tx, &mut line, &picking).await?;
        let service = Service {
            key,
            at,
            deadline: plan::after(at, want.group.visibility_seconds),
        };
        let of_each = split(&slots, &want.asks);
        let (changes, given) = dispense::hand_out(&mut line, stored, fresh, &of_each, &service);
        line.served(&slots, &weights, at);
        let row = line.to_row();
        let passed = cursor.next_offset..next;
        if row == before && passed.is_empty() {
            // No message waits, or another transaction has locked those that wait, and none is ahead.
            return Ok(LaneClaim {
                again: !is_complete,
                ..LaneClaim::default()
            });
        }
        let mut inserted = write(
            &mut tx,
            &changes,
            subscriber.settings().attempts_max(),
            self.clock.now(),
        )
        .await?;
        inserted.truncate(given);
        let again = !is_complete || (!passed.is_empty() && next < lane.until);
        advance(&mut tx, key, cursor, passed).await?;
        let written = store::fairness::put(&mut tx, key, version, &row).await?;
        expect(written, 1)?;
        tx.commit().await?;
        Ok(LaneClaim {
            given: inserted,
            again,
        })
    }
}

/// What messages are picked for, and what from, apart from the line.
struct Picking<'a> {
    key: CursorKey,
    /// Messages that joined the line and are in no lease yet.
    fresh: &'a Fresh,
    weights: &'a Weights,
    /// Messages to pick at most.
    wanted: u32,
}

/// The messages that are next.
#[derive(Default)]
struct Picks {
    /// The slot of the customer of each message, in order.
    slots: Vec<i16>,
    /// The locked waiting leases that have messages of these.
    stored: Vec<Lease>,
    /// False when waiting leases could not be locked.
    is_complete: bool,
}

/// Picks the next messages and locks their waiting leases. The line may count leases that are gone: retention deletes
/// some, and nodes that do not know the setting yet redeliver others. Then the line is corrected and picks again.
async fn pick(tx: &mut Session, line: &mut Line, picking: &Picking<'_>) -> Result<Picks, Error> {
    let (key, fresh) = (picking.key, picking.fresh);
    for _ in 0..=CORRECTIONS_MAX {
        let slots = line.pick(picking.wanted, picking.weights);
        let needed = dispense::needed(line, fresh, &slots);
        let ranges: Vec<_> = needed.iter().map(|(_, range)| *range).collect();
        let stored = match &ranges[..] {
            [] => Vec::new(),
            _ => store::lease_waiting::lock(tx, key, &ranges).await?,
        };
        let missing = dispense::missing(&needed, &stored);
        if missing.is_empty() {
            return Ok(Picks {
                slots,
                stored,
                is_complete: true,
            });
        }
        let order_keys: Vec<i64> = missing
            .iter()
            .filter_map(|slot| line.get(*slot))
            .map(|customer| customer.order_key)
            .collect();
        let counted = store::lease_waiting::count(tx, key, &order_keys).await?;
        for (slot, counted) in missing.into_iter().zip(counted) {
            dispense::correct(line, fresh, slot, counted);
        }
    }
    // Another transaction has locked the leases for a moment.
    Ok(Picks::default())
}

/// The picks of each receiver.
fn split<'a>(slots: &'a [i16], asks: &[u32]) -> Vec<&'a [i16]> {
    let mut rest = slots;
    asks.iter()
        .map(|ask| {
            let (own, others) = rest.split_at((*ask as usize).min(rest.len()));
            rest = others;
            own
        })
        .collect()
}

/// Moves the cursor past these offsets.
async fn advance(
    tx: &mut Session,
    key: CursorKey,
    cursor: CursorRow,
    passed: Range<Offset>,
) -> Result<(), Error> {
    if passed.is_empty() {
        return Ok(());
    }
    expect(
        store::cursor::advance(tx, key, cursor, passed.end).await?,
        1,
    )
}

//! The claim of a subscription with an order of its own in one lane, a transaction of its own: messages from ahead of the
//! cursor join the line, the cursor moves past them, and what is next gets new leases. The lock of the cursor comes first
//! and lets one claim through at a time, on any node; waiting leases that another transaction has locked are passed over,
//! so it waits for no other lock.

use std::ops::Range;

use crate::engine::error::Error;
use crate::engine::lease::{expect, plan, write};
use crate::engine::order::Dispenser;
use crate::engine::order::ahead::{self, Seen};
use crate::engine::order::dispense::{self, Fresh, Service};
use crate::engine::order::fair::line::{Line, Weights};
use crate::engine::order::want::Want;
use crate::engine::subscriber::Subscriber;
use crate::store::cursor::CursorRow;
use crate::store::lease::Lease;
use crate::store::{self, Session};

/// Times that turns are worked out again because something of what should wait was not there.
const CORRECTIONS_MAX: usize = 4;

/// What a claim brought.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    /// Leases that were handed out.
    pub(super) given: Vec<Lease>,
    /// Whether it helps to look again at once: somebody was in the way, or more is ahead than one look reaches.
    pub(super) again: bool,
}

impl Dispenser {
    /// Claims in one lane what was seen of it, and what waits there; the lane goes on until `end`.
    pub(super) async fn claim(
        &self,
        subscriber: &Subscriber,
        (lane, end): (i64, i64),
        seen: &[Seen],
        want: &Want,
    ) -> Result<Claimed, Error> {
        let place = (lane, subscriber.id);
        let weights = Weights::of_subscriber(subscriber);
        let mut tx = self.store.tx("claim_fair").await?;
        let Some(cursor) = store::cursor::lock(&mut tx, place.0, place.1).await? else {
            // The next look says that the subscription is gone.
            return Ok(Claimed {
                again: true,
                ..Claimed::default()
            });
        };
        // Statements of their own: they see what was committed before the lock was free.
        let at = store::session::now(&mut tx, self.clock.now()).await?;
        let found = store::fairness::get(&mut tx, place.0, place.1).await?;
        let (version, before) = found.unzip();
        let before = before.unwrap_or_default();
        let mut line = Line::of(before.clone());
        let (fresh, next) = ahead::join(&mut line, seen, cursor.next_offset, at);
        let wanted = want.messages();
        let turns = turns(&mut tx, place, (&mut line, &fresh), (wanted, &weights)).await?;
        let Turns {
            turns,
            stored,
            is_settled,
        } = turns;
        let service = Service {
            lane: place.0,
            subscription: place.1,
            at,
            deadline: plan::after(at, want.visibility_seconds),
        };
        let of_each = split(&turns, &want.asks);
        let (changes, given) = dispense::hand_out(&mut line, (stored, fresh), &of_each, &service);
        line.served(&turns, &weights, at);
        let row = line.to_row();
        let passed = cursor.next_offset..next;
        if row == before && passed.is_empty() {
            // Nothing waits, or somebody has it, and nothing is ahead.
            return Ok(Claimed {
                again: !is_settled,
                ..Claimed::default()
            });
        }
        let mut inserted = write(&mut tx, &changes).await?;
        inserted.truncate(given);
        let again = !is_settled || (!passed.is_empty() && next < end);
        advance(&mut tx, place, cursor, passed).await?;
        let written = store::fairness::put(&mut tx, place, version, &row).await?;
        expect(written, 1)?;
        tx.commit().await?;
        Ok(Claimed {
            given: inserted,
            again,
        })
    }
}

/// Whose turn it is, and the waiting leases with their messages.
#[derive(Default)]
struct Turns {
    turns: Vec<i16>,
    stored: Vec<Lease>,
    is_settled: bool,
}

/// Works out turns and locks what they need. What the line believes to wait may be gone (retention, nodes that know
/// nothing of fairness): then the line is corrected and the turns are worked out again.
async fn turns(
    tx: &mut Session,
    place: (i64, i64),
    (line, fresh): (&mut Line, &Fresh),
    (wanted, weights): (u32, &Weights),
) -> Result<Turns, Error> {
    for _ in 0..=CORRECTIONS_MAX {
        let turns = line.turns(wanted, weights);
        let needed = dispense::needed(line, fresh, &turns);
        let ranges: Vec<_> = needed.iter().map(|(_, range)| *range).collect();
        let stored = match &ranges[..] {
            [] => Vec::new(),
            _ => store::lease_waiting::lock(tx, place, &ranges).await?,
        };
        let missing = dispense::missing(&needed, &stored);
        if missing.is_empty() {
            return Ok(Turns {
                turns,
                stored,
                is_settled: true,
            });
        }
        let keys = missing.iter().filter_map(|slot| line.get(*slot));
        let keys: Vec<i64> = keys.map(|customer| customer.order_key).collect();
        let counted = store::lease_waiting::count(tx, place, &keys).await?;
        for (slot, counted) in missing.into_iter().zip(counted) {
            dispense::correct(line, fresh, slot, counted);
        }
    }
    // Somebody has locked what waits, for a moment.
    Ok(Turns::default())
}

/// The turns of each receiver.
fn split<'a>(turns: &'a [i16], asks: &[u32]) -> Vec<&'a [i16]> {
    let mut rest = turns;
    let of_each = asks.iter().map(|ask| {
        let (own, others) = rest.split_at((*ask as usize).min(rest.len()));
        rest = others;
        own
    });
    of_each.collect()
}

async fn advance(
    tx: &mut Session,
    place: (i64, i64),
    cursor: CursorRow,
    passed: Range<i64>,
) -> Result<(), Error> {
    if passed.is_empty() {
        return Ok(());
    }
    expect(
        store::cursor::advance(tx, place, cursor, passed.end).await?,
        1,
    )
}

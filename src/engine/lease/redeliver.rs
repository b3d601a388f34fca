//! Redelivery: messages of leases past their deadline are handed out again in new leases (I3). It runs off the turn,
//! because it needs no publish, and because it locks rows that other nodes may want. Called by `receive` and `order`.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::engine::error::Error;
use crate::engine::lease::Leases;
use crate::engine::lease::ask::Ask;
use crate::engine::lease::plan::{self, Changes, Taker};
use crate::engine::lease::reshape::write;
use crate::engine::lease::set_aside::SET_ASIDE_SECONDS;
use crate::engine::subscriber::{Grant, Subscriber};
use crate::store::lease::{DueRange, Lease, LeaseKey};
use crate::store::{self, CursorKey, LaneId, Session};

/// Leases locked by one redelivery at most. It also locks no more leases than messages are wanted, so that concurrent
/// redeliveries find others.
const LEASES_MAX: u32 = 128;
/// Leases locked in one lane by one redelivery of a fair subscription: the customers of these leases share it.
const FAIR_LEASES_MAX: u32 = 256;
/// A turn that is slow to commit may add a lease with a deadline below a bound that a scan found. Bounds are lowered by
/// this margin.
const LOW_MARGIN: time::Duration = time::Duration::seconds(1);

/// The progress of one redelivery.
struct Progress<'a> {
    /// The receivers.
    ask: Ask,
    /// No lease has a deadline below it.
    low: Option<OffsetDateTime>,
    /// Leases that the receivers have got before it.
    before: &'a [Grant],
    /// Leases locked.
    locked: u32,
    /// Messages in `given`.
    messages: u32,
    /// New leases for the receivers.
    given: Vec<Lease>,
    /// Leases set aside for the dead-letter topic.
    spent: Vec<Lease>,
}

impl Progress<'_> {
    /// Whether a lease was just given. With a visibility timeout of 0 it is due again at once.
    fn has(&self, key: LeaseKey) -> bool {
        let before = |grant: &Grant| (grant.lane, grant.lease) == (key.lane, key.lease);
        self.before.iter().any(before) || self.given.iter().any(|given| given.key == key)
    }
}

impl Leases {
    /// Hands out messages that are due again: at most `ask.wanted`, and none of the leases in `before`. No lease has a
    /// deadline below `low`.
    pub async fn redeliver(
        &self,
        subscriber: &Arc<Subscriber>,
        ask: Ask,
        before: &[Grant],
        low: Option<OffsetDateTime>,
    ) -> Result<Vec<Grant>, Error> {
        let lanes = subscriber.lanes.all();
        let Some(low) = self.scan(subscriber, &lanes, low).await? else {
            return Ok(Vec::new());
        };
        // There may be more than this redelivery takes.
        subscriber.due.expect(Duration::ZERO);
        let mut tx = self.store.tx("redeliver").await?;
        let mut progress = Progress {
            ask,
            low,
            before,
            locked: 0,
            messages: 0,
            given: Vec::new(),
            spent: Vec::new(),
        };
        for lane in lanes.iter() {
            self.take_due(&mut tx, subscriber, *lane, &mut progress)
                .await?;
        }
        if progress.locked == 0 {
            // Other transactions have locked what is due. They may roll back, so a later scan tries again.
            subscriber.due.scan_later();
            return Ok(Vec::new());
        }
        tx.commit().await?;
        subscriber
            .due
            .expect(Duration::from_secs(u64::from(ask.visibility_seconds)));
        self.set_aside.add(subscriber, progress.spent);
        Ok(progress.given.iter().map(Grant::of).collect())
    }

    /// Whether a lease is due again; if so a bound below which none is.
    async fn scan(
        &self,
        subscriber: &Subscriber,
        lanes: &[LaneId],
        low: Option<OffsetDateTime>,
    ) -> Result<Option<Option<OffsetDateTime>>, Error> {
        let now = self.clock.now();
        let mut session = self.store.session().await?;
        if subscriber.is_fair() {
            // The scan passes over waiting leases, of which there may be thousands, and raises the bound beyond them.
            let id = subscriber.id;
            let (at, earliest) =
                store::lease_waiting::earliest_due_again(&mut session, now, id, lanes, low).await?;
            subscriber
                .due
                .none_below(earliest.unwrap_or(at) - LOW_MARGIN);
            return Ok(earliest.map(Some));
        }
        let (at, due) = store::lease::is_due(&mut session, now, subscriber.id, lanes, low).await?;
        if due {
            return Ok(Some(low));
        }
        subscriber.due.none_below(at - LOW_MARGIN);
        Ok(None)
    }

    /// Locks leases of one lane that are due again; a fair subscription has a limit of its own. Also returns whether
    /// these are all that it can lock.
    async fn lock_due(
        &self,
        tx: &mut Session,
        subscriber: &Subscriber,
        range: DueRange,
    ) -> Result<(Vec<Lease>, bool), Error> {
        let now = self.clock.now();
        if subscriber.is_fair() {
            let limit = i64::from(FAIR_LEASES_MAX);
            let range = DueRange { limit, ..range };
            let due = store::lease_waiting::lock_due_again(tx, now, range).await?;
            return Ok((due, true));
        }
        let due = store::lease::lock_due(tx, now, range).await?;
        let is_all = i64::try_from(due.len()).is_ok_and(|due| due < range.limit);
        Ok((due, is_all))
    }

    /// Takes leases that are due in one lane until there are enough messages. Leases whose attempts are used up are set
    /// aside, and others are taken instead.
    async fn take_due(
        &self,
        tx: &mut Session,
        subscriber: &Subscriber,
        lane: LaneId,
        progress: &mut Progress<'_>,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let ask = progress.ask;
        let settings = subscriber.settings();
        loop {
            let wanted = ask.wanted - progress.messages;
            let limit = wanted.min(LEASES_MAX.saturating_sub(progress.locked));
            if limit == 0 {
                return Ok(());
            }
            let range = DueRange {
                key: CursorKey {
                    lane,
                    subscription: subscriber.id,
                },
                low: progress.low,
                limit: i64::from(limit),
            };
            let (mut due, is_all) = self.lock_due(tx, subscriber, range).await?;
            due.retain(|row| !progress.has(row.key));
            if due.is_empty() {
                return Ok(());
            }
            progress.locked += u32::try_from(due.len()).unwrap_or(LEASES_MAX);
            // Read after the lock: retention relies on deadlines that are computed from a recent time.
            let at = store::session::now(tx, now).await?;
            let (spent, due): (Vec<_>, Vec<_>) = due.into_iter().partition(|row| {
                settings.dead_letter_topic_id.is_some()
                    && row.attempt >= i32::from(settings.max_attempts)
            });
            let deadline = plan::after(at, ask.visibility_seconds);
            let mut changes = Changes::default();
            let shares = if subscriber.is_fair() {
                plan::share(due, wanted)
            } else {
                vec![(due, wanted)]
            };
            for (due, wanted) in shares {
                changes.absorb(plan::redeliver(&due, Taker { wanted, deadline }));
            }
            let until = plan::after(at, SET_ASIDE_SECONDS);
            changes.absorb(plan::set_aside(&spent, until));
            for row in write(tx, &changes).await? {
                if row.delayed {
                    progress.spent.push(row);
                } else {
                    progress.messages += row.pending.count_ones();
                    progress.given.push(row);
                }
            }
            if is_all {
                return Ok(());
            }
        }
    }
}

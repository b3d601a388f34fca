//! Redelivery for subscriptions with an order of their own: messages of leases past their deadline are handed out again
//! in new leases (I3), shared among the customers. All other subscriptions are served by the turn. Called by `order`,
//! and by `receive` for tenants that have too much in flight.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::engine::error::Error;
use crate::engine::lease::Leases;
use crate::engine::lease::ask::Ask;
use crate::engine::lease::plan::{self, Changes, Taker};
use crate::engine::lease::write::write;
use crate::engine::subscriber::{Grant, Subscriber};
use crate::store::lease::{DueRange, Lease, LeaseKey};
use crate::store::turn::ASIDE_SECONDS;
use crate::store::{self, CursorKey, LaneId, Session};

/// Leases locked in one lane by one redelivery: the customers of these leases share it.
const LEASES_MAX: i64 = 256;

/// The progress of one redelivery.
struct Progress<'a> {
    /// The receivers.
    ask: Ask,
    /// No lease has a deadline below it.
    low: OffsetDateTime,
    /// Leases that the receivers have got before it.
    before: &'a [Grant],
    /// Whether any lease was locked.
    locked: bool,
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
        let mut tx = self.context.store.tx("redeliver").await?;
        let mut progress = Progress {
            ask,
            low,
            before,
            locked: false,
            messages: 0,
            given: Vec::new(),
            spent: Vec::new(),
        };
        for lane in lanes.iter() {
            self.take_due(&mut tx, subscriber, *lane, &mut progress)
                .await?;
        }
        if !progress.locked {
            // Other transactions have locked what is due. They may roll back, so a later scan tries again.
            subscriber.due.scan_later();
            return Ok(Vec::new());
        }
        tx.commit().await?;
        subscriber
            .due
            .expect(Duration::from_secs(u64::from(ask.visibility_seconds)));
        self.turns.set_aside.add(subscriber, progress.spent);
        Ok(progress.given.iter().map(Grant::of).collect())
    }

    /// Whether a lease is due again; if so a bound below which none is. The scan passes over waiting leases, of which
    /// there may be thousands, and raises the bound beyond them.
    async fn scan(
        &self,
        subscriber: &Subscriber,
        lanes: &[LaneId],
        low: Option<OffsetDateTime>,
    ) -> Result<Option<OffsetDateTime>, Error> {
        let now = self.context.clock.now();
        let mut session = self.context.store.session().await?;
        let (at, earliest) =
            store::lease_waiting::earliest_due_again(&mut session, now, subscriber.id, lanes, low)
                .await?;
        subscriber.due.none_below(earliest.unwrap_or(at));
        Ok(earliest)
    }

    /// Takes leases that are due in one lane until there are enough messages. Leases whose attempts are used up are set
    /// aside.
    async fn take_due(
        &self,
        tx: &mut Session,
        subscriber: &Subscriber,
        lane: LaneId,
        progress: &mut Progress<'_>,
    ) -> Result<(), Error> {
        let now = self.context.clock.now();
        let ask = progress.ask;
        let wanted = ask.wanted - progress.messages;
        if wanted == 0 {
            return Ok(());
        }
        let range = DueRange {
            key: CursorKey {
                lane,
                subscription: subscriber.id,
            },
            low: Some(progress.low),
            limit: LEASES_MAX,
        };
        let mut due = store::lease_waiting::lock_due_again(tx, now, range).await?;
        due.retain(|row| !progress.has(row.key));
        if due.is_empty() {
            return Ok(());
        }
        progress.locked = true;
        // Read after the lock: retention relies on deadlines that are computed from a recent time.
        let at = store::session::now(tx, now).await?;
        let settings = subscriber.settings();
        let (spent, due): (Vec<_>, Vec<_>) = due.into_iter().partition(|row| {
            settings
                .attempts_max()
                .is_some_and(|max| row.attempt >= max)
        });
        let deadline = plan::after(at, ask.visibility_seconds);
        let mut changes = Changes::default();
        for (due, wanted) in plan::share(due, wanted) {
            changes.absorb(plan::redeliver(&due, Taker { wanted, deadline }));
        }
        let until = plan::after(at, ASIDE_SECONDS);
        changes.absorb(plan::set_aside(&spent, until));
        for row in write(tx, &changes, settings.attempts_max(), now).await? {
            if row.delayed {
                progress.spent.push(row);
            } else {
                progress.messages += row.pending.count_ones();
                progress.given.push(row);
            }
        }
        Ok(())
    }
}

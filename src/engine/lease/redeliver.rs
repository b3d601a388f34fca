//! Redelivery: leases past their deadline are handed out again under a new id (I3), off the turn, because they wait for
//! no publish and lock rows that other nodes may want.

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
use crate::store::lease::LeaseKey;
use crate::store::{self, Session};

/// Leases locked by one redelivery; no more than messages are wanted, so that rivals find others.
const LEASES_MAX: u32 = 128;
/// Leases locked in one lane by one redelivery of a fair subscription: so far reaches the look among which customers share.
const FAIR_LEASES_MAX: u32 = 256;
/// A lease of a turn that was slow to commit may begin to exist below a bound that was seen before: the bound stays so
/// far behind.
const LOW_MARGIN: time::Duration = time::Duration::seconds(1);

/// What one redelivery has taken so far.
#[derive(Default)]
struct Taken<'a> {
    /// What the receivers have got before.
    before: &'a [Grant],
    /// Leases locked.
    locked: u32,
    /// Messages in `given`.
    messages: u32,
    /// For the receiver.
    given: Vec<store::lease::Lease>,
    /// For the dead-letter topic.
    spent: Vec<store::lease::Lease>,
}

impl Taken<'_> {
    /// Whether a lease was just given: with a visibility timeout of 0 it is due again.
    fn has(&self, key: LeaseKey) -> bool {
        let before = |grant: &Grant| (grant.lane, grant.lease) == (key.lane, key.lease);
        self.before.iter().any(before) || self.given.iter().any(|given| given.key == key)
    }
}

impl Leases {
    /// Hands out what is due again, at most what is asked for, and nothing of what was given `before`. `low` is a bound below
    /// which nothing is due.
    pub async fn redeliver(
        &self,
        subscriber: &Arc<Subscriber>,
        (ask, before): (Ask, &[Grant]),
        low: Option<OffsetDateTime>,
    ) -> Result<Vec<Grant>, Error> {
        let lanes = subscriber.lanes.all();
        let Some(low) = self.scan(subscriber, &lanes, low).await? else {
            return Ok(Vec::new());
        };
        // Whatever comes of it, there may be more.
        subscriber.due.expect(Duration::ZERO);
        let mut tx = self.store.tx("redeliver").await?;
        let mut taken = Taken {
            before,
            ..Taken::default()
        };
        for lane in lanes.iter() {
            let due = (*lane, low);
            taken = self
                .take_due(&mut tx, subscriber, due, (ask, taken))
                .await?;
        }
        if taken.locked == 0 {
            // Others have what is due; they may let go of it.
            subscriber.due.scan_later();
            return Ok(Vec::new());
        }
        tx.commit().await?;
        subscriber
            .due
            .expect(Duration::from_secs(u64::from(ask.visibility_seconds)));
        self.set_aside.add(subscriber, taken.spent);
        Ok(taken.given.iter().map(Grant::of).collect())
    }

    /// Whether something is due again; if so a bound below which nothing is.
    async fn scan(
        &self,
        subscriber: &Subscriber,
        lanes: &[i64],
        low: Option<OffsetDateTime>,
    ) -> Result<Option<Option<OffsetDateTime>>, Error> {
        let now = self.clock.now();
        let mut session = self.store.session().await?;
        if subscriber.is_fair() {
            // Between the bound and what is due there may be thousands of leases that wait for their turn: it is raised.
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

    /// Locks leases of one lane that are due again, and says whether these are all.
    async fn lock_due(
        &self,
        tx: &mut Session,
        subscriber: &Subscriber,
        (lane, low): (i64, Option<OffsetDateTime>),
        limit: u32,
    ) -> Result<(Vec<store::lease::Lease>, bool), Error> {
        let now = self.clock.now();
        if subscriber.is_fair() {
            let bounds = (low, i64::from(FAIR_LEASES_MAX));
            let due =
                store::lease_waiting::lock_due_again(tx, now, subscriber.id, lane, bounds).await?;
            return Ok((due, true));
        }
        let bounds = (low, i64::from(limit));
        let due = store::lease::lock_due(tx, now, subscriber.id, lane, bounds).await?;
        let is_all = due.len() < limit as usize;
        Ok((due, is_all))
    }

    /// Takes what is due in one lane until there is enough. Leases whose attempts are used up are set aside, and others
    /// taken in their place.
    async fn take_due<'a>(
        &self,
        tx: &mut Session,
        subscriber: &Subscriber,
        (lane, low): (i64, Option<OffsetDateTime>),
        (ask, mut taken): (Ask, Taken<'a>),
    ) -> Result<Taken<'a>, Error> {
        let now = self.clock.now();
        let settings = subscriber.settings();
        loop {
            let wanted = ask.wanted - taken.messages;
            let limit = wanted.min(LEASES_MAX.saturating_sub(taken.locked));
            if limit == 0 {
                return Ok(taken);
            }
            let (mut due, is_all) = self.lock_due(tx, subscriber, (lane, low), limit).await?;
            due.retain(|row| !taken.has(row.key));
            if due.is_empty() {
                return Ok(taken);
            }
            taken.locked += u32::try_from(due.len()).unwrap_or(LEASES_MAX);
            // Read now, not before: retention counts on deadlines that are not set by a time long gone.
            let at = store::session::now(tx, now).await?;
            let (spent, due): (Vec<_>, Vec<_>) = due.into_iter().partition(|row| {
                settings.dead_letter_topic_id.is_some()
                    && row.attempt >= i32::from(settings.max_attempts)
            });
            let deadline = plan::after(at, ask.visibility_seconds);
            let mut changes = Changes::default();
            let shares = match subscriber.is_fair() {
                true => plan::share(due, wanted),
                false => vec![(due, wanted)],
            };
            for (due, wanted) in shares {
                changes.absorb(plan::redeliver(&due, Taker { wanted, deadline }));
            }
            let until = plan::after(at, SET_ASIDE_SECONDS);
            changes.absorb(plan::set_aside(&spent, until));
            for row in write(tx, &changes).await? {
                if row.delayed {
                    taken.spent.push(row);
                } else {
                    taken.messages += row.pending.count_ones();
                    taken.given.push(row);
                }
            }
            if is_all {
                return Ok(taken);
            }
        }
    }
}

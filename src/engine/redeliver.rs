//! Redelivery: leases past their deadline are handed out again under a new id (I3), off the turn, because they wait for
//! nobody and lock rows that other nodes may want. Also gives back what could not be handed out after all.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::store::lease::LeaseKey;
use crate::store::{self, Session};

use super::Engine;
use super::error::Error;
use super::plan::{self, Changes, Item, Step, Taker};
use super::receive::Ask;
use super::subscriber::{Grant, Subscriber};

/// Leases locked by one redelivery; no more than messages are wanted, so that rivals find others.
const LEASES_MAX: u32 = 128;
/// Leases locked in one lane by one redelivery of a fair subscription: so far reaches the look among which customers share.
const FAIR_LEASES_MAX: u32 = 256;
/// A lease of a turn that was slow to commit may begin to exist below a bound that was seen before: the bound stays so
/// far behind.
const LOW_MARGIN: time::Duration = time::Duration::seconds(1);

/// Messages whose receiver went away between the claim and the answer.
#[derive(Debug, Default)]
pub struct Returns {
    waiting: Mutex<Vec<(Arc<Subscriber>, Vec<Grant>)>>,
    arrived: Notify,
}

impl Returns {
    /// Adds messages to give back.
    pub fn add(&self, subscriber: &Arc<Subscriber>, grants: Vec<Grant>) {
        self.waiting.lock().push((subscriber.clone(), grants));
        self.arrived.notify_one();
    }

    /// All that gathered, as soon as there is something.
    pub async fn take(&self) -> Vec<(Arc<Subscriber>, Vec<Grant>)> {
        loop {
            let waiting = std::mem::take(&mut *self.waiting.lock());
            if !waiting.is_empty() {
                return waiting;
            }
            self.arrived.notified().await;
        }
    }
}

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

impl Engine {
    /// Hands out what is due again, at most what is asked for, and nothing of what was given `before`. `low` is a bound below
    /// which nothing is due.
    pub(super) async fn redeliver(
        &self,
        subscriber: &Arc<Subscriber>,
        (ask, before): (Ask, &[Grant]),
        low: Option<OffsetDateTime>,
    ) -> Result<Vec<Grant>, Error> {
        let lanes = subscriber.lanes();
        let Some(low) = self.look_for_due(subscriber, &lanes, low).await? else {
            return Ok(Vec::new());
        };
        // Whatever comes of it, there may be more.
        subscriber.expect_due(Duration::ZERO);
        let mut tx = self.store().tx("redeliver").await?;
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
            subscriber.look_later();
            return Ok(Vec::new());
        }
        tx.commit().await?;
        subscriber.expect_due(Duration::from_secs(u64::from(ask.visibility_seconds)));
        self.inner.burials.add(subscriber, taken.spent);
        Ok(taken.given.iter().map(Grant::of).collect())
    }

    /// Whether something is due again; if so a bound below which nothing is.
    async fn look_for_due(
        &self,
        subscriber: &Subscriber,
        lanes: &[i64],
        low: Option<OffsetDateTime>,
    ) -> Result<Option<Option<OffsetDateTime>>, Error> {
        let now = self.clock().now();
        let mut session = self.store().session().await?;
        if subscriber.is_fair() {
            // Between the bound and what is due there may be thousands of leases that wait for their turn: it is raised.
            let id = subscriber.id;
            let (at, earliest) =
                store::lease_waiting::earliest_due_again(&mut session, now, id, lanes, low).await?;
            subscriber.looked(earliest.unwrap_or(at) - LOW_MARGIN);
            return Ok(earliest.map(Some));
        }
        let (at, due) = store::lease::is_due(&mut session, now, subscriber.id, lanes, low).await?;
        if due {
            return Ok(Some(low));
        }
        subscriber.looked(at - LOW_MARGIN);
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
        let now = self.clock().now();
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
        let now = self.clock().now();
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
            let until = plan::after(at, super::dead_letter::BURIAL_SECONDS);
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

    /// Gives messages back that nobody has seen, as `step` says. If that fails, they are due again when their lease ends.
    pub(super) async fn give_back(
        &self,
        subscriber: &Arc<Subscriber>,
        grants: &[Grant],
        step: Step,
    ) {
        let items = grants.iter().flat_map(|grant| {
            let bits = (0..64_u8).filter(|bit| grant.bits >> bit & 1 == 1);
            bits.map(|bit| Item {
                lane: grant.lane,
                lease: grant.lease,
                bit,
                step,
            })
        });
        let items: Vec<Item> = items.collect();
        if let Err(error) = self.reshape(subscriber, &items).await {
            tracing::warn!(%error, "messages could not be given back and stay hidden until their lease ends");
        }
    }

    /// Locks the leases of some items, plans, and writes the difference. Answers per item whether it was current, the rows
    /// inserted, and the database's time.
    pub(super) async fn reshape(
        &self,
        subscriber: &Subscriber,
        items: &[Item],
    ) -> Result<(Vec<bool>, Vec<store::lease::Lease>, OffsetDateTime), Error> {
        let mut leases: Vec<(i64, i64)> =
            items.iter().map(|item| (item.lane, item.lease)).collect();
        leases.sort_unstable();
        leases.dedup();
        let (lanes, leases): (Vec<i64>, Vec<i64>) = leases.into_iter().unzip();
        let mut tx = self.store().tx("reshape").await?;
        let rows = store::lease::lock(&mut tx, subscriber.id, &lanes, &leases).await?;
        let mut at = store::session::now(&mut tx, self.clock().now()).await?;
        let (mut current, mut changes) = plan::settle(&rows, items, at);
        if current.contains(&false) {
            // What was split off while the lock waited is not in its snapshot. By now the rest of the lease is locked, so
            // no more is split off, and another statement sees all of it.
            let rows = store::lease::lock(&mut tx, subscriber.id, &lanes, &leases).await?;
            at = store::session::now(&mut tx, self.clock().now()).await?;
            (current, changes) = plan::settle(&rows, items, at);
        }
        let inserted = write(&mut tx, &changes).await?;
        tx.commit().await?;
        if inserted
            .iter()
            .chain(&changes.update)
            .any(|row| row.deadline <= at)
        {
            subscriber.expect_due(Duration::ZERO);
            subscriber.wake_for_due();
        }
        Ok((current, inserted, at))
    }
}

/// Writes what was planned against rows that are locked; answers the inserted rows with their ids.
pub(super) async fn write(
    tx: &mut Session,
    changes: &Changes,
) -> Result<Vec<store::lease::Lease>, Error> {
    if !changes.delete.is_empty() {
        let deleted = store::lease::delete(tx, &changes.delete).await?;
        expect(deleted, changes.delete.len())?;
    }
    if !changes.update.is_empty() {
        let updated = store::lease::update(tx, &changes.update).await?;
        expect(updated, changes.update.len())?;
    }
    if changes.insert.is_empty() {
        return Ok(Vec::new());
    }
    let ids = store::lease::insert(tx, &changes.insert).await?;
    expect(ids.len() as u64, changes.insert.len())?;
    let with_ids = changes
        .insert
        .iter()
        .zip(ids)
        .map(|(row, lease)| store::lease::Lease {
            key: LeaseKey { lease, ..row.key },
            ..*row
        });
    Ok(with_ids.collect())
}

/// A locked row cannot vanish: if one did, nothing is written.
pub(super) fn expect(rows: u64, expected: usize) -> Result<(), Error> {
    if rows == expected as u64 {
        return Ok(());
    }
    tracing::error!(
        rows,
        expected,
        "locked rows were not found when they were written"
    );
    Err(Error::Internal)
}

//! Redelivery: leases past their deadline are handed out again under a new id (I3), off the turn, because they wait for
//! nobody and lock rows that other nodes may want. Also gives back what could not be handed out after all.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::store::{self, Session};

use super::Engine;
use super::error::Error;
use super::plan::{self, Changes, Item, Step, Taker};
use super::receive::Ask;
use super::subscriber::{Grant, Subscriber};

/// Leases looked at in one lane at once: 100 messages lie in at most that many.
const LEASES_MAX: i64 = 128;
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

impl Engine {
    /// Hands out what is due again, at most what is asked for. `low` is a bound below which nothing is due.
    pub(super) async fn redeliver(
        &self,
        subscriber: &Arc<Subscriber>,
        ask: Ask,
        low: Option<OffsetDateTime>,
    ) -> Result<Vec<Grant>, Error> {
        let now = self.clock().now();
        let lanes = subscriber.lanes();
        let mut session = self.store().session().await?;
        let (at, due) = store::lease::is_due(&mut session, now, subscriber.id, &lanes, low).await?;
        drop(session);
        if !due {
            subscriber.looked(at - LOW_MARGIN);
            return Ok(Vec::new());
        }
        // Whatever comes of it, there may be more.
        subscriber.expect_due(Duration::ZERO);
        let settings = subscriber.settings();
        let mut taker = Taker {
            wanted: ask.wanted,
            deadline: at + time::Duration::seconds(i64::from(ask.visibility_seconds)),
        };
        let mut changes = Changes::default();
        let mut tx = self.store().tx("redeliver").await?;
        for lane in lanes.iter() {
            let due = store::lease::lock_due(&mut tx, now, subscriber.id, *lane, (low, LEASES_MAX))
                .await?;
            let (spent, due): (Vec<_>, Vec<_>) = due.into_iter().partition(|row| {
                settings.dead_letter_topic_id.is_some()
                    && row.attempt >= i32::from(settings.max_attempts)
            });
            let more = plan::redeliver(&due, taker);
            taker.wanted -= more
                .insert
                .iter()
                .map(|row| row.pending.count_ones())
                .sum::<u32>();
            changes.absorb(more);
            changes.absorb(plan::set_aside(
                &spent,
                at + super::dead_letter::BURIAL_TIME,
            ));
        }
        let inserted = write(&mut tx, &changes).await?;
        tx.commit().await?;
        subscriber.expect_due(Duration::from_secs(u64::from(ask.visibility_seconds)));
        let (spent, given): (Vec<_>, Vec<_>) = inserted.into_iter().partition(|row| row.delayed);
        if !spent.is_empty() {
            self.bury(subscriber, &spent, None).await?;
        }
        Ok(given.iter().map(Grant::of).collect())
    }

    /// Gives messages back that nobody has seen: at once due again, and no attempt. If that fails, they are due again when
    /// their lease ends.
    pub(super) async fn give_back(&self, subscriber: &Arc<Subscriber>, grants: &[Grant]) {
        let items = grants.iter().flat_map(|grant| {
            let bits = (0..64_u8).filter(|bit| grant.bits >> bit & 1 == 1);
            bits.map(|bit| Item {
                lane: grant.lane,
                lease: grant.lease,
                bit,
                step: Step::GiveBack,
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
        let at = store::lease::now(&mut tx, self.clock().now()).await?;
        let (current, changes) = plan::settle(&rows, items, at);
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
            key: store::lease::LeaseKey { lease, ..row.key },
            ..*row
        });
    Ok(with_ids.collect())
}

/// A locked row cannot vanish: if one did, nothing is written.
fn expect(rows: u64, expected: usize) -> Result<(), Error> {
    if rows == expected as u64 {
        return Ok(());
    }
    tracing::error!(
        rows,
        expected,
        "locked leases were not found when they were written"
    );
    Err(Error::Internal)
}

//! Reshape: changes single messages of leases. One transaction locks the rows, plans with pure functions (`plan`) and
//! writes the difference. Called to settle, and to give back messages that could not be handed out after all.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::engine::error::Error;
use crate::engine::lease::Leases;
use crate::engine::lease::plan::{self, Changes, MessageStep, Step};
use crate::engine::mask::ones;
use crate::engine::subscriber::{Grant, Subscriber};
use crate::store::lease::{Lease, LeaseKey};
use crate::store::{self, LaneId, LeaseId, Session};

impl Leases {
    /// Gives back messages that were not handed out to any receiver, by `step`. If that fails, they are due again when
    /// their lease ends.
    pub async fn give_back(&self, subscriber: &Arc<Subscriber>, grants: &[Grant], step: Step) {
        let items = grants.iter().flat_map(|grant| {
            ones(grant.bits).map(|bit| MessageStep {
                lane: grant.lane,
                lease: grant.lease,
                bit,
                step,
            })
        });
        let items: Vec<MessageStep> = items.collect();
        if let Err(error) = self.reshape(subscriber, &items).await {
            tracing::warn!(%error, "messages could not be given back and stay hidden until their lease ends");
        }
    }

    /// Locks the leases of some items, plans, and writes the difference. Returns for each item whether its lease was
    /// current, the rows inserted, and the database's time.
    pub async fn reshape(
        &self,
        subscriber: &Subscriber,
        items: &[MessageStep],
    ) -> Result<(Vec<bool>, Vec<Lease>, OffsetDateTime), Error> {
        let mut leases: Vec<(LaneId, LeaseId)> =
            items.iter().map(|item| (item.lane, item.lease)).collect();
        leases.sort_unstable();
        leases.dedup();
        let (lanes, leases): (Vec<LaneId>, Vec<LeaseId>) = leases.into_iter().unzip();
        let mut tx = self.store.tx("reshape").await?;
        let rows = store::lease::lock(&mut tx, subscriber.id, &lanes, &leases).await?;
        let mut at = store::session::now(&mut tx, self.clock.now()).await?;
        let (mut current, mut changes) = plan::settle(&rows, items, at);
        if current.contains(&false) {
            // Rows that were split off while the statement waited for the lock are not in its snapshot. The rest of the
            // lease is locked now, so no more rows are split off, and a second statement sees all of them.
            let rows = store::lease::lock(&mut tx, subscriber.id, &lanes, &leases).await?;
            at = store::session::now(&mut tx, self.clock.now()).await?;
            (current, changes) = plan::settle(&rows, items, at);
        }
        let inserted = write(&mut tx, &changes).await?;
        tx.commit().await?;
        if inserted
            .iter()
            .chain(&changes.update)
            .any(|row| row.deadline <= at)
        {
            subscriber.due.expect(Duration::ZERO);
            subscriber.due.wake();
        }
        Ok((current, inserted, at))
    }
}

/// Writes what was planned for rows that are locked. Returns the inserted rows with their ids.
pub async fn write(tx: &mut Session, changes: &Changes) -> Result<Vec<Lease>, Error> {
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
    let with_ids = changes.insert.iter().zip(ids).map(|(row, lease)| Lease {
        key: LeaseKey { lease, ..row.key },
        ..*row
    });
    Ok(with_ids.collect())
}

/// Fails unless `rows` were written as expected. A locked row cannot vanish; if one did, the transaction must not
/// commit.
pub fn expect(rows: u64, expected: usize) -> Result<(), Error> {
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

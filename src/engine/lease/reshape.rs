//! Reshaping leases: changes that split a lease lock its rows, plan in pure functions (`plan`) and write the difference, in
//! one transaction. Also gives back messages that could not be handed out after all.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::engine::error::Error;
use crate::engine::lease::Leases;
use crate::engine::lease::plan::{self, Changes, Item, Step};
use crate::engine::mask::ones;
use crate::engine::subscriber::{Grant, Subscriber};
use crate::store::lease::LeaseKey;
use crate::store::{self, Session};

impl Leases {
    /// Gives messages back that nobody has seen, as `step` says. If that fails, they are due again when their lease ends.
    pub async fn give_back(&self, subscriber: &Arc<Subscriber>, grants: &[Grant], step: Step) {
        let items = grants.iter().flat_map(|grant| {
            ones(grant.bits).map(|bit| Item {
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
    pub async fn reshape(
        &self,
        subscriber: &Subscriber,
        items: &[Item],
    ) -> Result<(Vec<bool>, Vec<store::lease::Lease>, OffsetDateTime), Error> {
        let mut leases: Vec<(i64, i64)> =
            items.iter().map(|item| (item.lane, item.lease)).collect();
        leases.sort_unstable();
        leases.dedup();
        let (lanes, leases): (Vec<i64>, Vec<i64>) = leases.into_iter().unzip();
        let mut tx = self.store.tx("reshape").await?;
        let rows = store::lease::lock(&mut tx, subscriber.id, &lanes, &leases).await?;
        let mut at = store::session::now(&mut tx, self.clock.now()).await?;
        let (mut current, mut changes) = plan::settle(&rows, items, at);
        if current.contains(&false) {
            // What was split off while the lock waited is not in its snapshot. By now the rest of the lease is locked, so
            // no more is split off, and another statement sees all of it.
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

/// Writes what was planned against rows that are locked; answers the inserted rows with their ids.
pub async fn write(tx: &mut Session, changes: &Changes) -> Result<Vec<store::lease::Lease>, Error> {
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

//! Writes what `plan` has computed for locked leases.

use time::OffsetDateTime;

use crate::engine::error::Error;
use crate::engine::lease::plan::Changes;
use crate::store::last_attempt::LastAttempt;
use crate::store::lease::{Lease, LeaseKey};
use crate::store::{self, Session};

/// Writes what was planned for rows that are locked. Returns the inserted rows with their ids. Those that were handed out
/// as often as `max_attempts` allows are listed as such.
pub async fn write(
    tx: &mut Session,
    changes: &Changes,
    max_attempts: Option<i32>,
    now: Option<OffsetDateTime>,
) -> Result<Vec<Lease>, Error> {
    if !changes.delete.is_empty() {
        let deleted = store::lease::delete(tx, &changes.delete).await?;
        expect(deleted, changes.delete.len())?;
    }
    if !changes.update.is_empty() {
        let updated = store::lease::update(tx, &changes.update).await?;
        expect(updated, changes.update.len())?;
    }
    if !changes.lost.is_empty() {
        store::lost_lease::insert(tx, now, &changes.lost).await?;
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
    let inserted: Vec<Lease> = with_ids.collect();
    let is_last = |row: &&Lease| !row.waiting && max_attempts.is_some_and(|max| row.attempt >= max);
    let last: Vec<LastAttempt> = inserted
        .iter()
        .filter(is_last)
        .map(LastAttempt::of)
        .collect();
    if !last.is_empty() {
        store::last_attempt::insert(tx, &last).await?;
    }
    Ok(inserted)
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

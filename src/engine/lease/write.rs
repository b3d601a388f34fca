//! Writes what `plan` has computed for locked leases.

use crate::engine::error::Error;
use crate::engine::lease::plan::Changes;
use crate::store::lease::{Lease, LeaseKey};
use crate::store::{self, Session};

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

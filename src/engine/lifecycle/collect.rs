//! Collects garbage in object storage: objects that no block refers to, uploads that a crash cut short, and objects that no
//! row knows. Called by the worker every few minutes. Never takes an object that a block refers to (I5): a block comes to
//! an object in the transaction that ends its upload, or in the publish right after it; an upload that was given up cannot
//! end, and one that has ended is left alone for a grace that no publish outlives.
//!
//! An object of which a part is still needed stays whole; the longest retention bounds how long.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::blob::Blob;
use crate::clock::Clock;
use crate::engine::duty::{Done, DutyError};
use crate::store::{Store, block, installation, object};

/// Objects looked at by one statement.
const OBJECTS: i64 = 1_000;
/// Pages of a listing, 1,000 objects each, read in one run.
const PAGES: usize = 20;

/// How long garbage is kept.
#[derive(Debug, Clone)]
pub struct CollectSettings {
    /// Age from which an object can be garbage, longer than an upload may take, and counted anew from its end, longer than
    /// a publish may take; and time from being marked to being deleted, longer than a reader may hold on to a place.
    pub grace: Duration,
    /// Age from which an object or an upload that no row knows is deleted.
    pub unknown_age: Duration,
}

impl Default for CollectSettings {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(3_600),
            unknown_age: Duration::from_secs(24 * 3_600),
        }
    }
}

/// What collecting works with, and where the listing stopped.
#[derive(Debug, Default)]
pub struct Collect {
    /// The last key listed; the next run goes on after it.
    listed: Option<String>,
}

impl Collect {
    /// One run; counts the objects deleted.
    ///
    /// # Errors
    /// When the database or object storage does not answer.
    pub async fn run(
        &mut self,
        (store, blob, clock): (&Store, &Blob, &Clock),
        settings: &CollectSettings,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        mark(store, clock, settings, stop).await?;
        let mut count = delete(store, blob, clock, settings, stop).await?;
        let mut session = store.session().await?;
        // Others may have objects and uploads in the same bucket.
        let prefix = installation::get(&mut session)
            .await?
            .ok_or(DutyError::NotSetUp)?
            .object_prefix();
        let before = object::time_before(&mut session, settings.unknown_age, clock.now()).await?;
        drop(session);
        count += self
            .delete_unknown((store, blob, clock), &prefix, settings, stop)
            .await?;
        if !stop.is_cancelled() {
            count += blob.sweep_uploads(&prefix, before).await? as u64;
        }
        Ok(Done { count, more: false })
    }

    /// Objects that no row knows: a PUT that arrived after its object was given up. Lists some pages with every run.
    async fn delete_unknown(
        &mut self,
        (store, blob, clock): (&Store, &Blob, &Clock),
        prefix: &str,
        settings: &CollectSettings,
        stop: &CancellationToken,
    ) -> Result<u64, DutyError> {
        let mut deleted = 0;
        for _ in 0..PAGES {
            if stop.is_cancelled() {
                break;
            }
            let page = blob.list(prefix, self.listed.as_deref()).await?;
            self.listed = page.last().map(|object| object.key.clone());
            if page.is_empty() {
                break;
            }
            let keys: Vec<String> = page.iter().map(|object| object.key.clone()).collect();
            let modified: Vec<_> = page.iter().map(|object| object.modified).collect();
            let mut session = store.session().await?;
            let unknown = object::unknown(
                &mut session,
                &keys,
                &modified,
                settings.unknown_age,
                clock.now(),
            )
            .await?;
            drop(session);
            blob.delete(&unknown).await?;
            deleted += unknown.len() as u64;
        }
        Ok(deleted)
    }
}

/// Marks what nothing refers to.
async fn mark(
    store: &Store,
    clock: &Clock,
    settings: &CollectSettings,
    stop: &CancellationToken,
) -> Result<(), DutyError> {
    let mut session = store.session().await?;
    object::give_up(&mut session, settings.grace, clock.now()).await?;
    let mut after = 0;
    while !stop.is_cancelled() {
        let page =
            object::finished(&mut session, after, OBJECTS, settings.grace, clock.now()).await?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        let old = page.iter().filter(|(_, is_old)| *is_old);
        let mut garbage: Vec<i64> = old.map(|(id, _)| *id).collect();
        // No block begins to refer to an object past its grace, so what is not found here stays garbage.
        let referred = block::referred(&mut session, &garbage).await?;
        garbage.retain(|id| !referred.contains(id));
        if !garbage.is_empty() {
            object::mark_deleted(&mut session, &garbage, clock.now()).await?;
        }
    }
    Ok(())
}

/// Deletes what was marked long enough ago, the row last, so that a failure in between is found again.
async fn delete(
    store: &Store,
    blob: &Blob,
    clock: &Clock,
    settings: &CollectSettings,
    stop: &CancellationToken,
) -> Result<u64, DutyError> {
    let mut deleted = 0;
    while !stop.is_cancelled() {
        let mut session = store.session().await?;
        let marked = object::marked(&mut session, settings.grace, OBJECTS, clock.now()).await?;
        drop(session);
        if marked.is_empty() {
            break;
        }
        let (ids, keys): (Vec<i64>, Vec<String>) = marked.into_iter().unzip();
        blob.delete(&keys).await?;
        let mut session = store.session().await?;
        deleted += object::delete(&mut session, &ids).await?;
    }
    Ok(deleted)
}

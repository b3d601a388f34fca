//! Duty `collect`: deletes garbage in object storage, which is objects that no block refers to, uploads that a crash
//! cut short, and objects without a row. It never deletes an object that a block refers to (I5). A block begins to
//! refer to an object in the transaction that finishes the upload, or in the publish right after it. An upload that was
//! given up cannot finish, and a finished one is kept for a grace period that is longer than any publish takes.
//!
//! An object is kept whole while any part of it is needed, at most for the longest retention of its topics.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::blob::Blob;
use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::store::{block, installation, object};

/// Objects read by one statement.
const OBJECTS: i64 = 1_000;
/// Pages of a listing, 1,000 objects each, read in one run.
const PAGES: usize = 20;

/// How long garbage is kept.
#[derive(Debug, Clone)]
pub struct CollectSettings {
    /// Age from which an object can be garbage. It counts from the start of the upload, and again from its end, so it
    /// must be longer than an upload takes and longer than a publish takes. It is also the time from the mark to the
    /// deletion, so it must be longer than a reader uses the key of an object that it has looked up.
    pub grace: Duration,
    /// Age from which an object or an upload without a row is deleted.
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

/// The duty.
#[derive(Debug)]
pub struct Collect {
    blob: Arc<Blob>,
    settings: CollectSettings,
    /// The last key listed; the next run continues after it. `None` starts from the first key.
    listed: Option<String>,
}

impl Collect {
    /// The duty over this object storage.
    #[must_use]
    pub fn new(blob: Arc<Blob>, settings: CollectSettings) -> Self {
        Self {
            blob,
            settings,
            listed: None,
        }
    }

    /// Gives up uploads that took too long, and marks finished objects that no block refers to.
    async fn mark(&self, context: &Context, stop: &CancellationToken) -> Result<(), DutyError> {
        let (grace, now) = (self.settings.grace, context.clock.now());
        let mut session = context.store.session().await?;
        object::give_up(&mut session, grace, now).await?;
        let mut after = 0;
        while !stop.is_cancelled() {
            let page =
                object::finished(&mut session, after, OBJECTS, grace, context.clock.now()).await?;
            let Some(last) = page.last() else { break };
            after = last.object_id;
            let old = page.iter().filter(|object| object.is_old);
            let mut garbage: Vec<i64> = old.map(|object| object.object_id).collect();
            // No block begins to refer to an object after its grace period, so an object without a block here stays
            // garbage.
            let referred = block::referred(&mut session, &garbage).await?;
            garbage.retain(|id| !referred.contains(id));
            if !garbage.is_empty() {
                object::mark_deleted(&mut session, &garbage, context.clock.now()).await?;
            }
        }
        Ok(())
    }

    /// Deletes objects that were marked long enough ago. Their rows are deleted last, so that a run after a failure
    /// finds the objects again.
    async fn delete(&self, context: &Context, stop: &CancellationToken) -> Result<u64, DutyError> {
        let mut deleted = 0;
        while !stop.is_cancelled() {
            let (grace, now) = (self.settings.grace, context.clock.now());
            let mut session = context.store.session().await?;
            let marked = object::marked(&mut session, grace, OBJECTS, now).await?;
            drop(session);
            if marked.is_empty() {
                break;
            }
            let (ids, keys): (Vec<i64>, Vec<String>) = marked
                .into_iter()
                .map(|object| (object.object_id, object.key))
                .unzip();
            self.blob.delete(&keys).await?;
            let mut session = context.store.session().await?;
            deleted += object::delete(&mut session, &ids).await?;
        }
        Ok(deleted)
    }

    /// Deletes objects without a row, which exist because a PUT may arrive after its object was given up. Each run
    /// lists at most [`PAGES`] pages.
    async fn delete_unknown(
        &mut self,
        context: &Context,
        prefix: &str,
        stop: &CancellationToken,
    ) -> Result<u64, DutyError> {
        let mut deleted = 0;
        for _ in 0..PAGES {
            if stop.is_cancelled() {
                break;
            }
            let page = self.blob.list(prefix, self.listed.as_deref()).await?;
            self.listed = page.last().map(|object| object.key.clone());
            if page.is_empty() {
                break;
            }
            let keys: Vec<String> = page.iter().map(|object| object.key.clone()).collect();
            let modified: Vec<_> = page.iter().map(|object| object.modified).collect();
            let (age, now) = (self.settings.unknown_age, context.clock.now());
            let mut session = context.store.session().await?;
            let unknown = object::unknown(&mut session, &keys, &modified, age, now).await?;
            drop(session);
            self.blob.delete(&unknown).await?;
            deleted += unknown.len() as u64;
        }
        Ok(deleted)
    }
}

impl Duty for Collect {
    const NAME: &'static str = "collect";
    const BUSY: Duration = Duration::from_secs(60);
    const IDLE: Duration = Duration::from_secs(600);

    /// Marks garbage, and deletes what was marked long enough ago; returns the number of objects deleted.
    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        self.mark(context, stop).await?;
        let mut count = self.delete(context, stop).await?;
        let (age, now) = (self.settings.unknown_age, context.clock.now());
        let mut session = context.store.session().await?;
        // The bucket may hold objects and uploads of other installations and programs.
        let prefix = installation::get(&mut session)
            .await?
            .ok_or(DutyError::NotSetUp)?
            .object_prefix();
        let before = object::time_before(&mut session, age, now).await?;
        drop(session);
        count += self.delete_unknown(context, &prefix, stop).await?;
        if !stop.is_cancelled() {
            count += self.blob.sweep_uploads(&prefix, before).await? as u64;
        }
        Ok(Done { count, more: false })
    }
}

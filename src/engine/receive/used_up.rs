//! Duty `used_up`: messages whose attempts are used up become dead letters when their deadline passes, whether or not
//! somebody receives. It takes the leases that are listed in `last_attempt` and sets those aside that are due; the tasks of
//! `dead_letter` move them. A claim that meets such a lease first does the same. Its cost is by dead letters, and not by
//! subscriptions: nothing is read of those that have none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::SubscriptionName;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::access::Tenant;
use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::engine::error::Error;
use crate::engine::lease::{plan, write};
use crate::engine::subscriber::Subscriber;
use crate::store::last_attempt::{self, LastAttempt};
use crate::store::lease::Lease;
use crate::store::turn::ASIDE_SECONDS;
use crate::store::{self, SubscriptionId};

/// Entries taken by one transaction.
const ENTRIES: usize = 256;
/// A turn commits within this time of the time that it reads, or not at all: it may add an entry as far in the past.
const COMMIT_WITHIN: Duration = Duration::from_secs(120);

/// The duty.
#[derive(Debug)]
pub struct UsedUp {
    engine: Engine,
    /// No entry is due earlier.
    low: Option<OffsetDateTime>,
}

impl UsedUp {
    /// Its leases go to the queue of this engine.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine, low: None }
    }
}

impl Duty for UsedUp {
    const NAME: &'static str = "used_up";
    const BUSY: Duration = Duration::from_millis(500);
    const IDLE: Duration = Duration::from_secs(1);
    const PAUSE_FACTOR: u32 = 2;

    /// Counts the leases that it sets aside. It takes no more than the queue has room for.
    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let mut done = Done::default();
        while !stop.is_cancelled() {
            let room = self.engine.turns().set_aside.room().min(ENTRIES);
            if room == 0 {
                break;
            }
            let mut session = context.store.session().await?;
            let now = context.clock.now();
            let at = store::session::now(&mut session, now).await?;
            let limit = i64::try_from(room).unwrap_or(i64::MAX);
            let entries = last_attempt::due(&mut session, now, self.low, limit).await?;
            let first = entries.first().map(|entry| entry.due_at);
            drop(session);
            if !entries.is_empty() {
                done.count += self.take(context, &entries).await?;
            }
            self.low = Some(first.map_or(at, |first| first.min(at)) - COMMIT_WITHIN);
            if entries.len() < room {
                break;
            }
        }
        Ok(done)
    }

    fn stand_by(&mut self) {
        self.low = None;
    }
}

/// The subscriptions of entries, by number. Those that are gone or have no topic for dead letters are missing.
type Subscribers = HashMap<SubscriptionId, Arc<Subscriber>>;

impl UsedUp {
    /// Takes entries: sets the leases aside that are due. Returns how many.
    async fn take(&self, context: &Context, entries: &[LastAttempt]) -> Result<u64, DutyError> {
        let subscribers = self.subscribers(context, entries).await?;
        let mut tx = context.store.tx("used_up").await?;
        let known = entries
            .iter()
            .filter(|entry| subscribers.contains_key(&entry.subscription_id));
        let mut keys: Vec<_> = known
            .map(|entry| (entry.lane_id, entry.subscription_id, entry.lease_id))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let locked = store::lease::lock(&mut tx, &keys).await?;
        // Read after the locks: retention relies on deadlines that are computed from a recent time.
        let at = store::session::now(&mut tx, context.clock.now()).await?;
        let mut aside: HashMap<SubscriptionId, Vec<Lease>> = HashMap::new();
        let mut later = Vec::new();
        for lease in locked {
            let Some(subscriber) = subscribers.get(&lease.key.subscription) else {
                continue;
            };
            let max = subscriber.settings().attempts_max();
            if max.is_none_or(|max| lease.attempt < max) {
                continue;
            }
            if lease.deadline > at {
                later.push(LastAttempt::of(&lease));
            } else {
                aside.entry(subscriber.id).or_default().push(lease);
            }
        }
        last_attempt::delete(&mut tx, entries).await?;
        if !later.is_empty() {
            last_attempt::insert(&mut tx, &later).await?;
        }
        let until = plan::after(at, ASIDE_SECONDS);
        let mut spent = Vec::new();
        for (subscription, leases) in aside {
            let Some(subscriber) = subscribers.get(&subscription) else {
                continue;
            };
            let max = subscriber.settings().attempts_max();
            let changes = plan::set_aside(&leases, until);
            let rows = write(&mut tx, &changes, max, context.clock.now()).await?;
            spent.push((subscriber, rows));
        }
        tx.commit().await?;
        let mut count = 0;
        for (subscriber, rows) in spent {
            count += rows.len() as u64;
            self.engine.turns().set_aside.add(subscriber, rows);
        }
        Ok(count)
    }

    /// The subscriptions of entries as this node knows them.
    async fn subscribers(
        &self,
        context: &Context,
        entries: &[LastAttempt],
    ) -> Result<Subscribers, DutyError> {
        let mut ids: Vec<SubscriptionId> =
            entries.iter().map(|entry| entry.subscription_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut session = context.store.session().await?;
        let rows = store::subscription::by_ids(&mut session, &ids).await?;
        drop(session);
        let mut subscribers = HashMap::new();
        for row in rows.iter().filter(|row| row.attempts_max().is_some()) {
            let Ok(name) = row.name.parse::<SubscriptionName>() else {
                continue;
            };
            let (catalog, store) = (self.engine.catalog(), self.engine.store());
            match catalog
                .subscriber(store, Tenant(row.tenant_id), &name)
                .await
            {
                Ok(subscriber) => subscribers.insert(row.subscription_id, subscriber),
                // It was deleted at this moment.
                Err(Error::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(subscribers)
    }
}

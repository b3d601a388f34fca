//! Which node drives which endpoints. Each node runs this loop: it takes over endpoints that no living node drives, up to
//! its share of all, and gives some up when it has more. An endpoint belongs to a node by a column, for as long as the
//! node sends heartbeats, so ten thousand idle endpoints cost one short statement a second. What two nodes drive at once
//! for a moment is safe: leases decide who has a message.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::engine::push::control::{Change, Control};
use crate::engine::push::drive::Drive;
use crate::engine::push::endpoint::Endpoint;
use crate::engine::push::status::Status;
use crate::engine::subscriber::Subscriber;
use crate::store::push_driver::{self, Counts, Driven};
use crate::store::push_endpoint::{self, EndpointRow};
use crate::store::{self, SubscriptionId};

/// Pause between two rounds.
const PERIOD: Duration = Duration::from_secs(1);
/// A node without a heartbeat for this long drives nothing.
const ALIVE: Duration = Duration::from_secs(5);
/// Rows of one statement.
const ROWS_MAX: usize = 1_000;
/// Subscriptions that are looked up at the same time.
const AT_ONCE: usize = 8;
/// Endpoints are read again after this time, even if nothing seems to have changed.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// Drivers look for messages after this time, even if nothing has told them of any.
const SWEEP: Duration = Duration::from_secs(60);

/// The endpoints of this node.
struct Assigned {
    engine: Engine,
    drives: HashMap<SubscriptionId, Driving>,
    /// The catalog as it was when endpoints were read last, and when that was.
    read: Option<(i64, Instant)>,
    swept: Instant,
}

struct Driving {
    version: i64,
    control: Arc<Control>,
    subscriber: Arc<Subscriber>,
}

impl Engine {
    /// Drives endpoints until the node drains.
    pub(super) async fn assign_endpoints(self, stop: CancellationToken) {
        let mut assigned = Assigned {
            drives: HashMap::new(),
            read: None,
            swept: Instant::now(),
            engine: self.clone(),
        };
        while !(self.draining().is_cancelled() || stop.is_cancelled()) {
            if let Err(error) = assigned.round().await {
                tracing::debug!(%error, "endpoints were not assigned; the next round follows");
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => (),
                () = self.push().changed.notified() => (),
                () = self.draining().cancelled() => (),
                () = stop.cancelled() => (),
            }
        }
        if self.draining().is_cancelled() {
            assigned.hand_over().await;
        } else {
            self.push().halt.cancel();
        }
    }
}

impl Assigned {
    async fn round(&mut self) -> Result<(), Error> {
        self.report().await?;
        let engine = self.engine.clone();
        let mut session = engine.store().session().await?;
        let counts = push_driver::counts(&mut session, engine.node(), ALIVE).await?;
        let (take, give) = shares(counts);
        let mut has_changed = engine.push().is_changed.swap(false, Ordering::AcqRel);
        if take > 0 {
            let node = engine.node();
            has_changed |= push_driver::claim(&mut session, node, take, ALIVE).await? > 0;
        }
        if give > 0 {
            has_changed |= self.give_up(&mut session, give).await?;
        }
        let version = engine.catalog().version();
        let is_read = self
            .read
            .is_some_and(|(at, when)| at == version && when.elapsed() < READ_AGAIN);
        let is_idle = counts.all == 0 && self.drives.is_empty();
        if has_changed || !(is_read || is_idle) {
            let driven = push_driver::driven(&mut session, engine.node()).await?;
            self.follow(&mut session, &driven).await?;
            self.read = Some((version, Instant::now()));
        }
        if self.swept.elapsed() >= SWEEP {
            let all: Vec<SubscriptionId> = self.drives.keys().copied().collect();
            self.sweep(&mut session, &all).await?;
            self.swept = Instant::now();
        }
        self.engine
            .push()
            .metrics
            .endpoints
            .set(i64::try_from(self.drives.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Gives up some endpoints.
    async fn give_up(&mut self, session: &mut store::Session, give: usize) -> Result<bool, Error> {
        let mut ids: Vec<SubscriptionId> = self.drives.keys().copied().collect();
        ids.truncate(give);
        for id in &ids {
            if let Some(driving) = self.drives.remove(id) {
                driving.control.stop.cancel();
            }
        }
        let given = push_driver::release(session, self.engine.node(), Some(&ids)).await?;
        Ok(given > 0)
    }

    /// Starts and ends drivers, and tells those whose endpoint has changed.
    async fn follow(
        &mut self,
        session: &mut store::Session,
        driven: &[Driven],
    ) -> Result<(), Error> {
        let now: HashMap<SubscriptionId, i64> = driven
            .iter()
            .map(|one| (one.subscription_id, one.version))
            .collect();
        self.drives.retain(|id, driving| {
            let has_ended =
                driving.control.stop.is_cancelled() || driving.control.status.is_disabled();
            let stays = now.contains_key(id) && !has_ended;
            if !stays {
                driving.control.stop.cancel();
            }
            stays
        });
        let is_new = |one: &&Driven| {
            let known = self.drives.get(&one.subscription_id);
            known.is_none_or(|driving| driving.version != one.version)
        };
        let new: Vec<SubscriptionId> = driven
            .iter()
            .filter(is_new)
            .map(|one| one.subscription_id)
            .collect();
        for ids in new.chunks(ROWS_MAX) {
            let rows = push_endpoint::of_subscriptions(session, ids).await?;
            let engine = &self.engine;
            let found = stream::iter(rows.into_iter().map(|row| found(engine, row)));
            let found: Vec<_> = found.buffer_unordered(AT_ONCE).collect().await;
            let found = found.into_iter().flatten();
            let begun: Vec<_> = found
                .filter_map(|(endpoint, subscriber)| self.start(endpoint, subscriber))
                .collect();
            self.sweep(session, &begun).await?;
        }
        Ok(())
    }

    /// Starts a driver, or gives the running one its new settings. Returns the subscription if it was started.
    fn start(
        &mut self,
        endpoint: Arc<Endpoint>,
        subscriber: Arc<Subscriber>,
    ) -> Option<SubscriptionId> {
        let (id, version) = (endpoint.row.subscription_id, endpoint.row.version);
        if let Some(driving) = self.drives.get_mut(&id) {
            driving.version = version;
            driving
                .control
                .put(|change| change.endpoint = Some(endpoint));
            return None;
        }
        let control = Arc::new(Control::new(Status::new(&endpoint)));
        let engine = self.engine.clone();
        let drive = Drive::new(engine, subscriber.clone(), control.clone(), endpoint);
        let push = self.engine.push();
        push.drivers.spawn(drive.run(push.halt.clone()));
        let driving = Driving {
            version,
            control,
            subscriber,
        };
        self.drives.insert(id, driving);
        Some(id)
    }

    /// Tells drivers that there are messages, or when some fall due, as far as the database knows.
    async fn sweep(
        &self,
        session: &mut store::Session,
        ids: &[SubscriptionId],
    ) -> Result<(), Error> {
        for ids in ids.chunks(ROWS_MAX) {
            let (mut lanes, mut of) = (Vec::new(), Vec::new());
            for (id, driving) in ids
                .iter()
                .filter_map(|id| Some((*id, self.drives.get(id)?)))
            {
                for lane in driving.subscriber.lanes.all().iter() {
                    lanes.push(*lane);
                    of.push(id);
                }
            }
            let now = self.engine.clock().now();
            for id in store::cursor::behind(session, &lanes, &of).await? {
                self.put(id, |change| change.look = true);
            }
            for due in store::lease::next_due(session, &lanes, &of, now).await? {
                let after = Duration::from_secs_f64(due.after_seconds.max(0.0));
                self.put(due.subscription_id, |change| change.due_after = Some(after));
            }
        }
        Ok(())
    }

    fn put(&self, id: SubscriptionId, change: impl FnOnce(&mut Change)) {
        if let Some(driving) = self.drives.get(&id) {
            driving.control.put(change);
        }
    }

    /// Stores how deliveries go.
    async fn report(&self) -> Result<(), Error> {
        let reports: Vec<_> = self
            .drives
            .iter()
            .filter_map(|(id, driving)| driving.control.status.report(*id))
            .collect();
        for part in reports.chunks(ROWS_MAX) {
            let mut session = self.engine.store().session().await?;
            let now = self.engine.clock().now();
            push_driver::report(&mut session, self.engine.node(), part, now).await?;
        }
        Ok(())
    }

    /// Ends all drivers, and leaves their endpoints to other nodes.
    async fn hand_over(self) {
        for driving in self.drives.values() {
            driving.control.stop.cancel();
        }
        if self.drives.is_empty() {
            return;
        }
        let released = async {
            self.report().await?;
            let mut session = self.engine.store().session().await?;
            push_driver::release(&mut session, self.engine.node(), None).await?;
            drop(session);
            let mut tx = self.engine.store().tx("hint").await?;
            store::node::hint(&mut tx, store::node::PUSH_HINT).await?;
            Ok::<_, Error>(tx.commit().await?)
        };
        if let Err(error) = released.await {
            tracing::debug!(%error, "endpoints were not handed over; other nodes take them over soon");
        }
    }
}

/// An endpoint and its subscription on this node.
async fn found(engine: &Engine, row: EndpointRow) -> Option<(Arc<Endpoint>, Arc<Subscriber>)> {
    let name = row.subscription.clone();
    let found = async {
        let endpoint = Arc::new(Endpoint::of(row)?);
        let (store, name) = (engine.store(), &endpoint.subscription);
        let subscriber = engine.catalog().subscriber(store, endpoint.tenant(), name);
        Ok::<_, Error>((endpoint.clone(), subscriber.await?))
    };
    let found = found.await;
    if let Err(error) = &found {
        tracing::warn!(%error, subscription = name, "an endpoint cannot be driven");
    }
    found.ok()
}

/// How many endpoints a node takes over, and how many it gives up, to have its share.
fn shares(counts: Counts) -> (i64, usize) {
    let share = counts.all / counts.nodes.max(1) + i64::from(counts.all % counts.nodes.max(1) > 0);
    let take = (share - counts.mine).max(0);
    // A little more than its share is left alone: a hand-over has a price.
    let more = counts.mine - share;
    let give = if more > share / 10 { more } else { 0 };
    (take, usize::try_from(give).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_share_endpoints() {
        let of = |all, mine, nodes| shares(Counts { all, mine, nodes });
        assert_eq!(of(0, 0, 1), (0, 0));
        assert_eq!(of(10, 0, 0), (10, 0), "its own heartbeat is late");
        assert_eq!(of(10, 0, 3), (4, 0));
        assert_eq!(of(10, 4, 3), (0, 0));
        assert_eq!(of(100, 100, 2), (0, 50));
        assert_eq!(of(100, 54, 2), (0, 0), "nearly its share");
        assert_eq!(of(1, 1, 2), (0, 0));
    }
}

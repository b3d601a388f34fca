//! The topics and subscriptions that this node has used. Each is read once by tenant and name (I7), and kept until the
//! installation's catalog version changes. A name that is not here is always read from the database, so what another
//! node creates is found at once. What another node changes or deletes is noticed at the next poll of the version.
//! Until then this is safe: a publish to a closed lane stores nothing, and a claim without a cursor hands out nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use api::{SubscriptionName, TopicName};
use parking_lot::RwLock;

use crate::engine::access::Tenant;
use crate::engine::error::Error;
use crate::engine::subscriber::Subscriber;
use crate::store::topic::TopicRow;
use crate::store::{self, LaneId, Store, TenantId, TopicId};

/// Most entries kept of each kind. When there are more, all are dropped, and read again when needed.
const ENTRIES_MAX: usize = 100_000;

/// A topic as this node knows it.
#[derive(Debug)]
pub struct TopicEntry {
    /// Its row.
    pub row: TopicRow,
    /// Its name, shared by all messages that show it.
    pub name: Arc<TopicName>,
    /// Its lanes in order of number; of an entry that was found by its lane, that lane only.
    pub lanes: Vec<LaneId>,
}

impl TopicEntry {
    /// The lane of publishes with keys.
    #[must_use]
    pub fn first_lane(&self) -> LaneId {
        self.lanes.first().copied().unwrap_or(LaneId::UNASSIGNED)
    }
}

#[derive(Debug)]
struct Cached<T> {
    value: Arc<T>,
    /// The epoch in which it was read. It is current while that is the present epoch.
    epoch: u64,
}

type ByName<N, T> = RwLock<foldhash::HashMap<TenantId, HashMap<N, Cached<T>>>>;

/// The catalog of a node.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Raised when everything has to be read again.
    epoch: AtomicU64,
    /// The installation's catalog version, as last observed.
    version: AtomicI64,
    topics: ByName<TopicName, TopicEntry>,
    subscribers: ByName<SubscriptionName, Subscriber>,
    /// Topics by tenant and lane, for message ids.
    by_lane: RwLock<foldhash::HashMap<(TenantId, LaneId), Cached<TopicEntry>>>,
    /// The subscriptions of each topic that were used on this node: a publish wakes their receivers.
    by_topic: RwLock<ByTopic>,
}

#[derive(Debug, Default)]
struct ByTopic {
    topics: foldhash::HashMap<TopicId, Vec<Arc<Subscriber>>>,
    /// Number of subscriptions in `topics`.
    subscribers: usize,
}

impl ByTopic {
    fn keep(&mut self, is_kept: impl Fn(&Subscriber) -> bool) {
        self.topics.retain(|_, of_topic| {
            of_topic.retain(|subscriber| is_kept(subscriber));
            !of_topic.is_empty()
        });
        self.subscribers = self.topics.values().map(Vec::len).sum();
    }
}

impl Catalog {
    /// Records the installation's version. When it has changed, everything is read again before it is used.
    pub fn observe(&self, version: i64) {
        if self.version.swap(version, Ordering::AcqRel) != version {
            self.invalidate();
        }
    }

    /// The installation's version as last observed.
    pub fn version(&self) -> i64 {
        self.version.load(Ordering::Acquire)
    }

    /// Makes everything be read again before it is used.
    pub fn invalidate(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets all that this node has learned, because the database has lost something. Receivers go on waiting.
    pub fn forget_all(&self) {
        self.invalidate();
        let of_topics = self.by_topic.read();
        for subscriber in of_topics.topics.values().flatten() {
            subscriber.forget();
        }
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A topic by name.
    ///
    /// # Errors
    /// When there is none, or the database does not respond.
    pub async fn topic(
        &self,
        store: &Store,
        tenant: Tenant,
        name: &TopicName,
    ) -> Result<Arc<TopicEntry>, Error> {
        let epoch = self.epoch();
        if let Some(cached) = self
            .topics
            .read()
            .get(&tenant.0)
            .and_then(|topics| topics.get(name))
            && cached.epoch == epoch
        {
            return Ok(cached.value.clone());
        }
        // Boxed, like the other load below: misses are rare, and without the box every request's future would contain
        // this one.
        Box::pin(self.load_topic(store, tenant, name, epoch)).await
    }

    async fn load_topic(
        &self,
        store: &Store,
        tenant: Tenant,
        name: &TopicName,
        epoch: u64,
    ) -> Result<Arc<TopicEntry>, Error> {
        let mut session = store.session().await?;
        let row = store::topic::by_name(&mut session, tenant.0, name.as_str()).await?;
        let Some(row) = row else {
            if let Some(topics) = self.topics.write().get_mut(&tenant.0) {
                topics.remove(name);
            }
            return Err(Error::not_found("topic", name));
        };
        let value = Arc::new(TopicEntry {
            lanes: row.lanes.clone(),
            row,
            name: Arc::new(name.clone()),
        });
        remember(
            &self.topics,
            tenant,
            name.clone(),
            Cached {
                value: value.clone(),
                epoch,
            },
        );
        Ok(value)
    }

    /// The topic of a lane; `None` when the tenant has no such lane.
    ///
    /// # Errors
    /// When there is none, or the database does not respond.
    pub async fn topic_of_lane(
        &self,
        store: &Store,
        tenant: Tenant,
        lane: LaneId,
    ) -> Result<Option<Arc<TopicEntry>>, Error> {
        let epoch = self.epoch();
        if let Some(cached) = self.by_lane.read().get(&(tenant.0, lane))
            && cached.epoch == epoch
        {
            return Ok(Some(cached.value.clone()));
        }
        let mut session = store.session().await?;
        let Some(topic) = store::lane::topic(&mut session, tenant.0, lane).await? else {
            return Ok(None);
        };
        let Some(row) = store::topic::by_id(&mut session, tenant.0, topic).await? else {
            return Ok(None);
        };
        let Ok(name) = row.name.parse::<TopicName>() else {
            return Err(store::Error::Corrupt {
                table: "topic",
                column: "name",
                row: row.topic_id.to_string(),
            }
            .into());
        };
        let value = Arc::new(TopicEntry {
            row,
            name: Arc::new(name),
            lanes: vec![lane],
        });
        let mut by_lane = self.by_lane.write();
        if by_lane.len() >= ENTRIES_MAX {
            by_lane.clear();
        }
        by_lane.insert(
            (tenant.0, lane),
            Cached {
                value: value.clone(),
                epoch,
            },
        );
        Ok(Some(value))
    }

    /// A subscription by name.
    ///
    /// # Errors
    /// When there is none, or the database does not respond.
    pub async fn subscriber(
        &self,
        store: &Store,
        tenant: Tenant,
        name: &SubscriptionName,
    ) -> Result<Arc<Subscriber>, Error> {
        let epoch = self.epoch();
        let cached = self
            .subscribers
            .read()
            .get(&tenant.0)
            .and_then(|all| all.get(name))
            .map(|cached| (cached.value.clone(), cached.epoch));
        let old = match cached {
            Some((value, read_in)) if read_in == epoch => return Ok(value),
            Some((value, _)) => Some(value),
            None => None,
        };
        Box::pin(self.load_subscriber(store, tenant, name, old)).await
    }

    async fn load_subscriber(
        &self,
        store: &Store,
        tenant: Tenant,
        name: &SubscriptionName,
        old: Option<Arc<Subscriber>>,
    ) -> Result<Arc<Subscriber>, Error> {
        // Read before the rows: a change that commits meanwhile makes this entry old.
        let epoch = self.epoch();
        let mut session = store.session().await?;
        let row = store::subscription::by_name(&mut session, tenant.0, name.as_str()).await?;
        let Some(row) = row else {
            self.forget(tenant, name);
            return Err(Error::not_found("subscription", name));
        };
        let lanes = store::lane::of_topic(&mut session, row.topic_id).await?;
        let value = match old {
            Some(same) if same.id == row.subscription_id => {
                same.refresh(row, lanes);
                same
            }
            other => {
                if let Some(deleted) = other {
                    // The name belongs to a new subscription now.
                    self.retire(&deleted);
                }
                let adopted = self.adopt(row, lanes)?;
                let began = Instant::now();
                let lanes = adopted.lanes.all();
                let counted = store::lease::in_flight(&mut session, adopted.id, &lanes).await?;
                adopted.counted(counted, began.elapsed());
                adopted
            }
        };
        remember(
            &self.subscribers,
            tenant,
            name.clone(),
            Cached {
                value: value.clone(),
                epoch,
            },
        );
        Ok(value)
    }

    fn adopt(
        &self,
        row: store::subscription::SubscriptionRow,
        lanes: Vec<LaneId>,
    ) -> Result<Arc<Subscriber>, Error> {
        let Ok(topic) = row.topic_name.parse::<TopicName>() else {
            return Err(store::Error::Corrupt {
                table: "topic",
                column: "name",
                row: row.topic_id.to_string(),
            }
            .into());
        };
        if self.by_topic.read().subscribers >= ENTRIES_MAX {
            for of_tenant in self.subscribers.write().values_mut() {
                of_tenant.retain(|_, cached| cached.value.has_waiters());
            }
            self.by_topic.write().keep(Subscriber::has_waiters);
        }
        let mut by_topic = self.by_topic.write();
        let of_topic = by_topic.topics.entry(row.topic_id).or_default();
        if let Some(same) = of_topic
            .iter()
            .find(|subscriber| subscriber.id == row.subscription_id)
        {
            same.refresh(row, lanes);
            return Ok(same.clone());
        }
        let subscriber = Arc::new(Subscriber::new(row, Arc::new(topic), lanes));
        of_topic.push(subscriber.clone());
        by_topic.subscribers += 1;
        Ok(subscriber)
    }

    /// Removes a deleted subscription by name. Its waiting receivers get an error.
    pub fn forget(&self, tenant: Tenant, name: &SubscriptionName) {
        let gone = self
            .subscribers
            .write()
            .get_mut(&tenant.0)
            .and_then(|all| all.remove(name));
        if let Some(gone) = gone {
            self.retire(&gone.value);
        }
    }

    /// Removes a deleted subscription from its topic. A new subscription with the same name is not affected.
    pub fn retire(&self, gone: &Subscriber) {
        let mut by_topic = self.by_topic.write();
        if let Some(of_topic) = by_topic.topics.get_mut(&gone.topic_id) {
            let before = of_topic.len();
            of_topic.retain(|subscriber| subscriber.id != gone.id);
            let (removed, is_empty) = (before - of_topic.len(), of_topic.is_empty());
            by_topic.subscribers -= removed;
            if is_empty {
                by_topic.topics.remove(&gone.topic_id);
            }
        }
        drop(by_topic);
        gone.fail(&Error::not_found("subscription", &gone.name));
    }

    /// Calls `each` for the subscriptions of a topic that were used on this node.
    pub fn of_topic(&self, topic: TopicId, mut each: impl FnMut(&Arc<Subscriber>)) {
        if let Some(of_topic) = self.by_topic.read().topics.get(&topic) {
            of_topic.iter().for_each(&mut each);
        }
    }

    /// The subscriptions that were used on this node and for which `is_wanted` returns true.
    pub fn subscribers_where(
        &self,
        is_wanted: impl Fn(&Subscriber) -> bool,
    ) -> Vec<Arc<Subscriber>> {
        let by_topic = self.by_topic.read();
        by_topic
            .topics
            .values()
            .flatten()
            .filter(|subscriber| is_wanted(subscriber))
            .cloned()
            .collect()
    }
}

fn remember<N: std::hash::Hash + Eq, T>(
    map: &ByName<N, T>,
    tenant: Tenant,
    name: N,
    cached: Cached<T>,
) {
    let mut map = map.write();
    let of_tenant = map.entry(tenant.0).or_default();
    if of_tenant.len() >= ENTRIES_MAX {
        of_tenant.clear();
    }
    of_tenant.insert(name, cached);
}

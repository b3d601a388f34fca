//! Topics and subscriptions as this node knows them: looked up once by tenant and name (I7), then kept until the
//! installation's catalog version changes. A name that is not here is always looked up, so what another node created is
//! found at once; what it changed or deleted is noticed when the version is polled next, and a publish to a closed lane or
//! a claim on a missing cursor finds nothing in any case.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use api::{SubscriptionName, TopicName};
use parking_lot::RwLock;

use crate::store::topic::TopicRow;
use crate::store::{self, Store};
use crate::engine::Tenant;
use crate::engine::error::Error;
use crate::engine::subscriber::Subscriber;

/// Entries kept of each kind; beyond it all are dropped and looked up again.
const ENTRIES_MAX: usize = 100_000;

/// A topic as this node knows it.
#[derive(Debug)]
pub struct TopicEntry {
    /// Its row.
    pub row: TopicRow,
    /// Its name, shared by all that show it.
    pub name: Arc<TopicName>,
    /// Its lanes in order of number.
    pub lanes: Vec<i64>,
}

#[derive(Debug)]
struct Known<T> {
    value: Arc<T>,
    epoch: u64,
}

type ByName<N, T> = RwLock<foldhash::HashMap<i64, HashMap<N, Known<T>>>>;

/// The catalog of a node.
#[derive(Debug, Default)]
pub struct Catalog {
    epoch: AtomicU64,
    version: AtomicI64,
    topics: ByName<TopicName, TopicEntry>,
    subscribers: ByName<SubscriptionName, Subscriber>,
    /// Topics by lane, for message ids.
    by_lane: RwLock<foldhash::HashMap<(i64, i64), Known<TopicEntry>>>,
    /// Subscriptions of a topic that were used on this node: a publish wakes their receivers.
    by_topic: RwLock<ByTopic>,
}

#[derive(Debug, Default)]
struct ByTopic {
    topics: foldhash::HashMap<i64, Vec<Arc<Subscriber>>>,
    /// How many in all.
    subscribers: usize,
}

impl ByTopic {
    fn keep(&mut self, is_kept: impl Fn(&Subscriber) -> bool) {
        self.topics.retain(|_, of_topic| {
            of_topic.retain(|known| is_kept(known));
            !of_topic.is_empty()
        });
        self.subscribers = self.topics.values().map(Vec::len).sum();
    }
}

impl Catalog {
    /// Takes note of the installation's version; everything is looked up again when it changed.
    pub fn observe(&self, version: i64) {
        if self.version.swap(version, Ordering::AcqRel) != version {
            self.invalidate();
        }
    }

    /// The installation's version as last observed.
    pub fn version(&self) -> i64 {
        self.version.load(Ordering::Acquire)
    }

    /// Everything is looked up again before it is used.
    pub fn invalidate(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A topic by name.
    ///
    /// # Errors
    /// When there is none, or the database does not answer.
    pub async fn topic(
        &self,
        store: &Store,
        tenant: Tenant,
        name: &TopicName,
    ) -> Result<Arc<TopicEntry>, Error> {
        let epoch = self.epoch();
        if let Some(known) = self
            .topics
            .read()
            .get(&tenant.0)
            .and_then(|topics| topics.get(name))
            && known.epoch == epoch
        {
            return Ok(known.value.clone());
        }
        // On the heap, like every look-up here: the future of the rare miss must not be carried by every request.
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
            Known {
                value: value.clone(),
                epoch,
            },
        );
        Ok(value)
    }

    /// The topic of a lane, when it is the tenant's.
    ///
    /// # Errors
    /// When there is none, or the database does not answer.
    pub async fn topic_of_lane(
        &self,
        store: &Store,
        tenant: Tenant,
        lane: i64,
    ) -> Result<Option<Arc<TopicEntry>>, Error> {
        let epoch = self.epoch();
        if let Some(known) = self.by_lane.read().get(&(tenant.0, lane))
            && known.epoch == epoch
        {
            return Ok(Some(known.value.clone()));
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
            Known {
                value: value.clone(),
                epoch,
            },
        );
        Ok(Some(value))
    }

    /// A subscription by name.
    ///
    /// # Errors
    /// When there is none, or the database does not answer.
    pub async fn subscriber(
        &self,
        store: &Store,
        tenant: Tenant,
        name: &SubscriptionName,
    ) -> Result<Arc<Subscriber>, Error> {
        let epoch = self.epoch();
        let known = self
            .subscribers
            .read()
            .get(&tenant.0)
            .and_then(|all| all.get(name))
            .map(|k| (k.value.clone(), k.epoch));
        if let Some((value, seen)) = &known
            && *seen == epoch
        {
            return Ok(value.clone());
        }
        let known = known.map(|(value, _)| value);
        Box::pin(self.load_subscriber(store, tenant, name, (epoch, known))).await
    }

    async fn load_subscriber(
        &self,
        store: &Store,
        tenant: Tenant,
        name: &SubscriptionName,
        (epoch, known): (u64, Option<Arc<Subscriber>>),
    ) -> Result<Arc<Subscriber>, Error> {
        let mut session = store.session().await?;
        let row = store::subscription::by_name(&mut session, tenant.0, name.as_str()).await?;
        let Some(row) = row else {
            self.forget(tenant, name);
            return Err(Error::not_found("subscription", name));
        };
        let lanes = store::lane::of_topic(&mut session, row.topic_id).await?;
        let value = match known {
            Some(same) if same.id == row.subscription_id => {
                same.refresh(row, lanes);
                same
            }
            other => {
                if let Some(deleted) = other {
                    // Another one under the same name.
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
            Known {
                value: value.clone(),
                epoch,
            },
        );
        Ok(value)
    }

    fn adopt(
        &self,
        row: store::subscription::SubscriptionRow,
        lanes: Vec<i64>,
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
                of_tenant.retain(|_, known| known.value.has_waiters());
            }
            self.by_topic.write().keep(Subscriber::has_waiters);
        }
        let mut by_topic = self.by_topic.write();
        let of_topic = by_topic.topics.entry(row.topic_id).or_default();
        if let Some(same) = of_topic
            .iter()
            .find(|known| known.id == row.subscription_id)
        {
            same.refresh(row, lanes);
            return Ok(same.clone());
        }
        let subscriber = Arc::new(Subscriber::new(row, Arc::new(topic), lanes));
        of_topic.push(subscriber.clone());
        by_topic.subscribers += 1;
        Ok(subscriber)
    }

    /// A subscription is gone: its waiting receivers learn it.
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

    /// The same for one that was deleted, whatever has its name now.
    pub fn retire(&self, gone: &Subscriber) {
        let mut by_topic = self.by_topic.write();
        if let Some(of_topic) = by_topic.topics.get_mut(&gone.topic_id) {
            let before = of_topic.len();
            of_topic.retain(|known| known.id != gone.id);
            let (removed, is_empty) = (before - of_topic.len(), of_topic.is_empty());
            by_topic.subscribers -= removed;
            if is_empty {
                by_topic.topics.remove(&gone.topic_id);
            }
        }
        drop(by_topic);
        gone.fail(&Error::not_found("subscription", &gone.name));
    }

    /// Subscriptions of a topic that were used on this node.
    pub fn of_topic(&self, topic: i64, mut each: impl FnMut(&Arc<Subscriber>)) {
        if let Some(of_topic) = self.by_topic.read().topics.get(&topic) {
            of_topic.iter().for_each(&mut each);
        }
    }

    /// Those subscriptions that were used on this node of which something is true.
    pub fn subscribers_where(
        &self,
        is_wanted: impl Fn(&Subscriber) -> bool,
    ) -> Vec<Arc<Subscriber>> {
        let by_topic = self.by_topic.read();
        by_topic
            .topics
            .values()
            .flatten()
            .filter(|known| is_wanted(known))
            .cloned()
            .collect()
    }
}

fn remember<N: std::hash::Hash + Eq, T>(
    map: &ByName<N, T>,
    tenant: Tenant,
    name: N,
    known: Known<T>,
) {
    let mut map = map.write();
    let of_tenant = map.entry(tenant.0).or_default();
    if of_tenant.len() >= ENTRIES_MAX {
        of_tenant.clear();
    }
    of_tenant.insert(name, known);
}

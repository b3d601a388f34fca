//! Counts what no block records: deliveries and cold reads. A request adds to a count in memory, and a task flushes the
//! counts to the database every second. Flushes are numbered, and the database counts each number once, however often
//! it is sent (I8). A crash loses the counts since the last flush. The number of names in memory is bounded (I9): above
//! it a node counts without names, so that the bill stays right.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::TopicName;
use api::usage::Meter;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;
use crate::engine::duty::Context;
use crate::engine::meter::measure::Measure;
use crate::repeat::every;
use crate::store::usage::Flushed;
use crate::store::{self, Store, SubscriptionId, TenantId, TopicId};

/// Shards of the counts, each with its own lock.
const SHARDS: usize = 16;
/// Names that one shard counts separately between two flushes.
const NAMES_MAX: usize = 4_096;
/// Rows of one flush.
const FLUSH_ROWS: usize = 5_000;
/// Pause between two flushes. A crash loses the counts of this time.
const PAUSE: Duration = Duration::from_secs(1);
/// A flush that takes longer is cancelled and sent again.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the last flushes of a node that stops.
const LAST_WITHIN: Duration = Duration::from_secs(4);

/// The tenant and topic that a read is counted for.
#[derive(Debug, Clone, Copy)]
pub struct Payer<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// Id of the topic.
    pub topic_id: TopicId,
    /// Name of the topic.
    pub topic: &'a Arc<TopicName>,
}

/// Messages that were handed out for a subscription.
#[derive(Debug, Clone, Copy)]
pub struct Delivered<'a> {
    /// Id of the subscription.
    pub subscription_id: SubscriptionId,
    /// Name of the subscription.
    pub subscription: &'a Arc<str>,
    /// The meter that counts them.
    pub meter: Meter,
    /// Their measure.
    pub measure: Measure,
}

/// What is counted separately: tenant, meter, and the subscription or topic. It holds ids only, so adding to a count
/// allocates nothing.
type Key = (TenantId, Meter, CountedFor);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum CountedFor {
    Subscription(SubscriptionId),
    Topic(TopicId),
    /// All names above [`NAMES_MAX`].
    Others,
}

#[derive(Debug, Default)]
struct Count {
    topic: Option<Arc<TopicName>>,
    subscription: Option<Arc<str>>,
    measure: Measure,
}

/// The counts of a node.
#[derive(Debug, Default)]
pub struct Tally {
    shards: [Mutex<HashMap<Key, Count>>; SHARDS],
}

impl Tally {
    /// Adds messages that were handed out for a subscription.
    pub fn delivered(&self, payer: Payer<'_>, delivered: Delivered<'_>) {
        let id = delivered.subscription_id;
        let key = (payer.tenant, delivered.meter, CountedFor::Subscription(id));
        self.add(id.get(), key, delivered.measure, || Count {
            topic: Some(payer.topic.clone()),
            subscription: Some(delivered.subscription.clone()),
            measure: Measure::default(),
        });
    }

    /// Adds bytes of object storage that were handed out.
    pub fn read_cold(&self, payer: Payer<'_>, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let measure = Measure {
            bytes,
            ..Measure::default()
        };
        let topic = payer.topic_id;
        let key = (payer.tenant, Meter::ColdRead, CountedFor::Topic(topic));
        self.add(topic.get(), key, measure, || Count {
            topic: Some(payer.topic.clone()),
            ..Count::default()
        });
    }

    fn add(&self, id: i64, key: Key, measure: Measure, named: impl FnOnce() -> Count) {
        let shard = usize::try_from(id).unwrap_or(0) % SHARDS;
        let mut counts = self.shards[shard].lock();
        if let Some(count) = counts.get_mut(&key) {
            count.measure.add(measure);
            return;
        }
        let (key, new) = if counts.len() < NAMES_MAX {
            (key, named())
        } else {
            ((key.0, key.1, CountedFor::Others), Count::default())
        };
        counts.entry(key).or_insert(new).measure.add(measure);
    }

    /// Removes and returns all counts.
    fn take(&self) -> Vec<Flushed> {
        let mut rows = Vec::new();
        for shard in &self.shards {
            let counts = std::mem::take(&mut *shard.lock());
            rows.extend(counts.into_iter().map(|(key, count)| row(key, &count)));
        }
        rows
    }
}

fn row((tenant, meter, _): Key, count: &Count) -> Flushed {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let topic = count.topic.as_ref();
    let subscription = count.subscription.as_deref();
    Flushed {
        tenant,
        meter: meter.as_str(),
        topic: topic.map_or_else(String::new, ToString::to_string),
        subscription: subscription.unwrap_or_default().to_owned(),
        units: number(count.measure.units),
        elastic_units: number(count.measure.elastic_units),
        messages: number(count.measure.messages),
        bytes: number(count.measure.bytes),
    }
}

/// The task that flushes the counts of a node.
#[derive(Debug)]
pub struct Flusher {
    tally: Arc<Tally>,
    store: Store,
    clock: Clock,
    node: Uuid,
    /// Flushes that the database has not confirmed, oldest first.
    waiting: VecDeque<Vec<Flushed>>,
    /// Number of the last flush that the database has confirmed.
    done: i64,
}

impl Flusher {
    /// The task for `tally` on this run of a node.
    #[must_use]
    pub fn new(tally: Arc<Tally>, context: Context, node: Uuid) -> Self {
        Self {
            tally,
            store: context.store,
            clock: context.clock,
            node,
            waiting: VecDeque::new(),
            done: 0,
        }
    }

    /// Flushes the counts every second until `stop`, and then what is left.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut rounds = every(PAUSE, &stop);
        while rounds.next().await {
            if let Err(error) = self.flush().await {
                tracing::debug!(%error, "usage could not be flushed; it is tried again");
            }
        }
        let last = async {
            while self.flush().await.is_err() {
                tokio::time::sleep(PAUSE / 10).await;
            }
        };
        if tokio::time::timeout(LAST_WITHIN, last).await.is_err() {
            tracing::warn!("the last deliveries before the stop could not be metered");
        }
    }

    /// Sends the flushes that wait, or takes the counts and sends them when none waits. A flush that fails is sent
    /// again with the same rows and the same number.
    async fn flush(&mut self) -> Result<(), store::Error> {
        if self.waiting.is_empty() {
            let rows = self.tally.take();
            self.waiting = rows.chunks(FLUSH_ROWS).map(<[Flushed]>::to_vec).collect();
        }
        while let Some(rows) = self.waiting.front() {
            let sending = async {
                let mut session = self.store.session().await?;
                let number = self.done + 1;
                store::usage::flush(&mut session, self.node, number, rows, self.clock.now()).await
            };
            tokio::time::timeout(FLUSH_TIMEOUT, sending)
                .await
                .unwrap_or_else(|_| Err(store::Error::timed_out()))?;
            self.done += 1;
            self.waiting.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_for_one_topic_are_counted_together() {
        let tally = Tally::default();
        let topic = Arc::new("t".parse::<TopicName>().unwrap());
        for tenant in [1, 2, 1] {
            let payer = Payer {
                tenant: TenantId::new(tenant),
                topic_id: TopicId::new(7),
                topic: &topic,
            };
            tally.read_cold(payer, 10);
        }
        let mut rows = tally.take();
        rows.sort_unstable_by_key(|row| row.tenant);
        let short = rows
            .iter()
            .map(|row| (row.tenant.get(), row.meter, row.bytes));
        assert_eq!(
            short.collect::<Vec<_>>(),
            [(1, "cold_read", 20), (2, "cold_read", 10)]
        );
        assert!(rows.iter().all(|row| row.topic == "t" && row.units == 0));
        assert!(tally.take().is_empty(), "each count is taken once");
    }

    #[test]
    fn above_the_limit_of_names_a_node_counts_without_them() {
        let tally = Tally::default();
        let many = SHARDS * (NAMES_MAX + 1);
        let topic = Arc::new("t".parse::<TopicName>().unwrap());
        for topic_id in (0..i64::try_from(many).unwrap()).map(TopicId::new) {
            let payer = Payer {
                tenant: TenantId::new(1),
                topic_id,
                topic: &topic,
            };
            tally.read_cold(payer, 1);
        }
        let rows = tally.take();
        assert!(rows.len() <= many);
        let bytes: i64 = rows.iter().map(|row| row.bytes).sum();
        assert_eq!(usize::try_from(bytes).unwrap(), many);
        assert!(rows.iter().any(|row| row.topic.is_empty()));
    }
}

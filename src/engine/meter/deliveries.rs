//! Counts what no block records: deliveries and cold reads. A node counts in memory, once a request, and flushes every
//! second; the database counts each flush once, however often it is tried (I8). A crash loses what was counted since the
//! last flush. Bounded: beyond so many names a node counts on without names, so that a bill stays right.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::TopicName;
use api::usage::Meter;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::store;
use crate::store::usage::Flushed;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::engine::meter::measure::Measure;
use crate::engine::subscriber::Subscriber;

/// Locks that requests are spread over.
const SHARDS: usize = 16;
/// Names that one shard tells apart between two flushes.
const NAMES_MAX: usize = 4_096;
/// Rows of one flush.
const FLUSH_ROWS: usize = 5_000;
/// Pause between two flushes: what a crash loses.
const PAUSE: Duration = Duration::from_secs(1);
/// A flush that takes longer is given up, and tried again.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// For the last flushes of a node that stops.
const LAST_WITHIN: Duration = Duration::from_secs(4);

/// Who pays for what is read.
#[derive(Debug, Clone, Copy)]
pub struct Payer<'a> {
    /// The tenant.
    pub tenant: i64,
    /// Name of the topic.
    pub topic: &'a Arc<TopicName>,
}

/// What is counted apart: (tenant, meter, and what tells names apart). Nothing in it has to be made for a count.
type Key = (i64, Meter, Named);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Named {
    Subscription(i64),
    /// By where its name is in memory, which is kept meanwhile; two places of one name are added up when they are flushed.
    Topic(usize),
    TooMany,
}

#[derive(Debug)]
struct Count {
    topic: Option<Arc<TopicName>>,
    subscriber: Option<Arc<Subscriber>>,
    measure: Measure,
}

/// The counts of a node.
#[derive(Debug, Default)]
pub struct Tally {
    shards: [Mutex<HashMap<Key, Count>>; SHARDS],
}

impl Tally {
    /// Adds messages that were handed out.
    pub fn delivered(&self, subscriber: &Arc<Subscriber>, meter: Meter, measure: Measure) {
        let key = (subscriber.tenant, meter, Named::Subscription(subscriber.id));
        let shard = usize::try_from(subscriber.id).unwrap_or(0);
        self.add(shard, key, measure, || {
            (subscriber.topic.clone(), Some(subscriber.clone()))
        });
    }

    /// Adds bytes that were read from object storage.
    pub fn read_cold(&self, payer: Payer<'_>, bytes: u64) {
        let measure = Measure {
            bytes,
            ..Measure::default()
        };
        let place = Arc::as_ptr(payer.topic).addr();
        let key = (payer.tenant, Meter::ColdRead, Named::Topic(place));
        self.add(place / 64, key, measure, || (payer.topic.clone(), None));
    }

    fn add(
        &self,
        shard: usize,
        key: Key,
        measure: Measure,
        names: impl FnOnce() -> (Arc<TopicName>, Option<Arc<Subscriber>>),
    ) {
        let mut counts = self.shards[shard % SHARDS].lock();
        if let Some(count) = counts.get_mut(&key) {
            count.measure.add(measure);
            return;
        }
        let (key, topic, subscriber) = if counts.len() < NAMES_MAX {
            let (topic, subscriber) = names();
            (key, Some(topic), subscriber)
        } else {
            ((key.0, key.1, Named::TooMany), None, None)
        };
        let count = counts.entry(key).or_insert_with(|| Count {
            topic,
            subscriber,
            measure: Measure::default(),
        });
        count.measure.add(measure);
    }

    /// All that was counted since the last time.
    fn take(&self) -> Vec<Flushed> {
        let mut rows = Vec::new();
        for shard in &self.shards {
            let counts = std::mem::take(&mut *shard.lock());
            rows.extend(counts.into_iter().map(|(key, count)| flushed(key, &count)));
        }
        rows
    }
}

fn flushed((tenant, meter, _): Key, count: &Count) -> Flushed {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let topic = count.topic.as_ref();
    let subscriber = count.subscriber.as_ref();
    Flushed {
        tenant,
        meter: meter.as_str(),
        topic: topic.map_or_else(String::new, ToString::to_string),
        subscription: subscriber.map_or_else(String::new, |of| of.settings().name.clone()),
        units: number(count.measure.units),
        elastic_units: number(count.measure.elastic_units),
        messages: number(count.measure.messages),
        bytes: number(count.measure.bytes),
    }
}

/// What is on its way to the database.
#[derive(Debug, Default)]
struct Flush {
    waiting: VecDeque<Vec<Flushed>>,
    /// How many the database has.
    done: i64,
}

impl Engine {
    /// Flushes what is counted every second until `stop`, and then what is left.
    pub(in crate::engine) async fn flush_tally(&self, stop: CancellationToken) {
        let mut flush = Flush::default();
        loop {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => break,
            }
            if let Err(error) = self.flush(&mut flush).await {
                tracing::debug!(%error, "usage could not be flushed; it is tried again");
            }
        }
        let last = async {
            while self.flush(&mut flush).await.is_err() {
                tokio::time::sleep(PAUSE / 10).await;
            }
        };
        if tokio::time::timeout(LAST_WITHIN, last).await.is_err() {
            tracing::warn!("what was delivered last could not be metered");
        }
    }

    /// Sends what waits, or else what was counted since. A flush that fails stays as it is, with its number.
    async fn flush(&self, flush: &mut Flush) -> Result<(), Error> {
        if flush.waiting.is_empty() {
            let rows = self.tally().take();
            flush.waiting = rows.chunks(FLUSH_ROWS).map(<[Flushed]>::to_vec).collect();
        }
        while let Some(rows) = flush.waiting.front() {
            let sending = async {
                let mut session = self.store().session().await?;
                let number = (self.node(), flush.done + 1);
                store::usage::flush(&mut session, number, rows, self.clock().now()).await
            };
            tokio::time::timeout(FLUSH_TIMEOUT, sending)
                .await
                .unwrap_or_else(|_| Err(store::Error::timed_out()))?;
            flush.done += 1;
            flush.waiting.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_for_one_topic_is_counted_together() {
        let tally = Tally::default();
        let topic = Arc::new("t".parse::<TopicName>().unwrap());
        for tenant in [1, 2, 1] {
            let payer = Payer {
                tenant,
                topic: &topic,
            };
            tally.read_cold(payer, 10);
        }
        let mut rows = tally.take();
        rows.sort_unstable_by_key(|row| row.tenant);
        let short = rows.iter().map(|row| (row.tenant, row.meter, row.bytes));
        assert_eq!(
            short.collect::<Vec<_>>(),
            [(1, "cold_read", 20), (2, "cold_read", 10)]
        );
        assert!(rows.iter().all(|row| row.topic == "t" && row.units == 0));
        assert!(tally.take().is_empty(), "each count is taken once");
    }

    #[test]
    fn beyond_so_many_names_a_node_counts_on_without_them() {
        let tally = Tally::default();
        let many = SHARDS * (NAMES_MAX + 1);
        let topic: TopicName = "t".parse().unwrap();
        let topics: Vec<_> = (0..many).map(|_| Arc::new(topic.clone())).collect();
        for topic in &topics {
            tally.read_cold(Payer { tenant: 1, topic }, 1);
        }
        let rows = tally.take();
        assert!(rows.len() <= many);
        let bytes: i64 = rows.iter().map(|row| row.bytes).sum();
        assert_eq!(usize::try_from(bytes).unwrap(), many);
        assert!(rows.iter().any(|row| row.topic.is_empty()));
    }
}

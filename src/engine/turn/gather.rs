//! The queue in front of a turn loop, which holds the requests that arrive while a turn commits. Publishes are bounded
//! by their bytes (I9); settles and receivers are bounded by the connections that send them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::MessageId;
use api::limits::QUEUED_PUBLISH_BYTES_MAX;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::engine::error::Error;
use crate::engine::inbox::Inbox;
use crate::engine::limit::{Capacity, Limit};
use crate::engine::log::payload::Records;
use crate::engine::log::upload::Uploaded;
use crate::engine::meter::measure::Measure;
use crate::engine::quota::Pressure;
use crate::engine::subscriber::Subscriber;
use crate::engine::turn::stuck::Stuck;
use crate::store::dedup::{KnownKey, NewKey};
use crate::store::lease::Lease;
use crate::store::turn::LeaseAction;
use crate::store::{LaneId, LeaseId, TenantId, TopicId};

/// The messages of one publish request for one lane.
#[derive(Debug)]
pub struct Publish {
    /// The tenant that publishes.
    pub tenant: TenantId,
    /// Whether it is inside the tenant's guarantee.
    pub capacity: Capacity,
    /// The topic.
    pub topic_id: TopicId,
    /// The lane.
    pub lane: LaneId,
    /// What to store.
    pub content: Content,
    /// The measure of its messages, for the bill.
    pub measure: Measure,
    /// Its keys. If one of them was used before, nothing is stored.
    pub keys: Vec<NewKey>,
    /// Whether an earlier turn has found its keys free.
    pub is_free: bool,
    /// Gets the result of the publish.
    pub reply: oneshot::Sender<Result<Placed, Error>>,
}

/// What a publish stores.
#[derive(Debug)]
pub enum Content {
    /// Messages, which the turn may join with other publishes into one block.
    Records(Records),
    /// A block of its own, already in object storage.
    Object(Uploaded),
}

impl Default for Content {
    fn default() -> Self {
        Self::Records(Records::default())
    }
}

impl Content {
    /// Bytes it holds in memory while it waits.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        match self {
            Self::Records(records) => records.bytes(),
            Self::Object(_) => 0,
        }
    }
}

/// Result of a committed turn for one publish.
#[derive(Debug)]
pub enum Placed {
    /// Its messages are stored, this one first.
    At(MessageId),
    /// These of its keys were used before, so nothing is stored.
    Known(Vec<KnownKey>),
    /// The topic was deleted, so nothing is stored.
    Gone,
}

/// A change of messages of one lease.
#[derive(Debug, Clone, Copy)]
pub struct SettleEntry {
    /// Lane.
    pub lane: LaneId,
    /// Lease.
    pub lease: LeaseId,
    /// What to do.
    pub action: LeaseAction,
    /// The messages, one bit each.
    pub mask: u64,
}

/// The changes of leases of one request.
#[derive(Debug)]
pub struct Settle {
    /// The subscription.
    pub subscriber: Arc<Subscriber>,
    /// One entry per lease and action; no message is in two entries.
    pub entries: Vec<SettleEntry>,
    /// Turns that did nothing because other transactions held what they needed.
    pub held_up: u32,
    /// Gets the result.
    pub reply: oneshot::Sender<Result<Changed, Error>>,
}

/// Result of a committed turn for the changes of one request.
#[derive(Debug)]
pub struct Changed {
    /// The database's time.
    pub at: OffsetDateTime,
    /// For each entry, the messages that it has changed. The lease of the others was not current.
    pub bits: Vec<u64>,
    /// The new leases of messages that were set aside.
    pub aside: Vec<Lease>,
}

/// The requests that go into the next turn.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Publishes in order of arrival.
    pub publishes: Vec<Publish>,
    /// Settles in order of arrival.
    pub settles: Vec<Settle>,
    /// Subscriptions whose receivers want fresh messages.
    pub subscribers: Vec<Arc<Subscriber>>,
    /// Bytes in `publishes`.
    pub(super) bytes: usize,
    /// When the oldest of `publishes` arrived.
    since: Option<Instant>,
}

impl Gathered {
    /// The number of publishes and settles.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.publishes.len() + self.settles.len()
    }

    fn is_empty(&self) -> bool {
        self.publishes.is_empty() && self.settles.is_empty() && self.subscribers.is_empty()
    }
}

/// The queue of one loop.
#[derive(Debug)]
pub struct Queue {
    gathered: Inbox<Gathered>,
    /// Publishes to lanes that others hold.
    pub(super) stuck: Stuck,
    /// What this queue reports to the quotas of the node.
    pressure: Arc<Pressure>,
}

impl Queue {
    /// An empty queue that reports to `pressure`.
    #[must_use]
    pub fn new(pressure: Arc<Pressure>) -> Self {
        Self {
            gathered: Inbox::default(),
            stuck: Stuck::default(),
            pressure,
        }
    }

    /// Adds a publish.
    ///
    /// # Errors
    /// When too many bytes wait already.
    pub fn publish(&self, publish: Publish) -> Result<(), Error> {
        let Some(publish) = self.stuck.hold(publish) else {
            return Ok(());
        };
        let bytes = publish.content.queued_bytes();
        self.gathered.put(|gathered| {
            if gathered.bytes + bytes > QUEUED_PUBLISH_BYTES_MAX {
                return Err(Error::Limited(Limit::QueuedPublishes));
            }
            gathered.bytes += bytes;
            self.pressure.waiting(gathered.bytes);
            gathered.since.get_or_insert_with(Instant::now);
            gathered.publishes.push(publish);
            Ok(())
        })
    }

    /// Adds the changes of a request.
    pub fn settle(&self, settle: Settle) {
        self.gathered.put(|gathered| gathered.settles.push(settle));
    }

    /// Adds a subscription whose receivers want fresh messages, unless it is queued already.
    pub fn want(&self, subscriber: &Arc<Subscriber>) {
        if subscriber.mark_queued() {
            self.gathered
                .put(|gathered| gathered.subscribers.push(subscriber.clone()));
        }
    }

    /// Puts what did not fit into this turn in front of the next.
    pub fn put_back(&self, publishes: Vec<Publish>, mut settles: Vec<Settle>) {
        let publishes = publishes.into_iter();
        let mut publishes: Vec<Publish> =
            publishes.filter_map(|one| self.stuck.hold(one)).collect();
        if publishes.is_empty() && settles.is_empty() {
            return;
        }
        let bytes: usize = publishes.iter().map(|one| one.content.queued_bytes()).sum();
        self.gathered.put(|gathered| {
            gathered.bytes += bytes;
            self.pressure.waiting(gathered.bytes);
            gathered.since = self.pressure.oldest().or(gathered.since);
            publishes.append(&mut gathered.publishes);
            gathered.publishes = publishes;
            settles.append(&mut gathered.settles);
            gathered.settles = settles;
        });
    }

    /// The number of publishes and settles that wait.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.gathered.with(|gathered| gathered.requests())
    }

    /// Waits until this many requests have gathered, but not longer than `at_most`.
    pub async fn gather(&self, requests: usize, at_most: Duration) {
        let enough = |gathered: &mut Gathered| (gathered.requests() >= requests).then_some(());
        let _ = tokio::time::timeout(at_most, self.gathered.take(enough)).await;
    }

    /// Waits until something has gathered, and takes all of it.
    pub async fn take(&self) -> Gathered {
        self.gathered.take(|gathered| self.next(gathered)).await
    }

    /// Takes all that has gathered; `None` when the queue is empty.
    #[must_use]
    pub fn take_now(&self) -> Option<Gathered> {
        self.gathered.with(|gathered| self.next(gathered))
    }

    fn next(&self, gathered: &mut Gathered) -> Option<Gathered> {
        (!gathered.is_empty()).then(|| {
            self.pressure.turn_began(gathered.since);
            std::mem::take(gathered)
        })
    }

    /// Records the end of the turn; returns how long its oldest publish waited, if it had any.
    pub fn turn_ended(&self) -> Option<Duration> {
        self.pressure.turn_ended()
    }
}

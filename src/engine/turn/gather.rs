//! The queue in front of a turn loop: what gathers while the last turn commits. Bounded by bytes of publishes (I9);
//! settles and receivers are bounded by the connections that bring them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::limits::QUEUED_PUBLISH_BYTES_MAX;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::engine::error::Error;
use crate::engine::limit::{Capacity, Limit};
use crate::engine::payload::Records;
use crate::engine::subscriber::Subscriber;
use crate::engine::units::Measure;

/// Messages of one publish for one lane.
#[derive(Debug)]
pub struct Publish {
    /// Who publishes.
    pub tenant: i64,
    /// Whether it is inside the tenant's guarantee.
    pub capacity: Capacity,
    /// The topic.
    pub topic_id: i64,
    /// The lane.
    pub lane: i64,
    /// What to store.
    pub content: Content,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Placed, Error>>,
}

/// What a publish stores.
#[derive(Debug)]
pub enum Content {
    /// Messages that are joined with others into a block.
    Records(Records),
    /// A block of its own, already in object storage.
    Object {
        /// Which object.
        object_id: i64,
        /// Its bytes.
        bytes: u64,
        /// What the messages in it are measured by.
        measure: Measure,
    },
}

impl Content {
    /// Bytes it holds in memory while it waits.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        match self {
            Self::Records(records) => records.bytes(),
            Self::Object { .. } => 0,
        }
    }

    /// What its messages are measured by.
    #[must_use]
    pub fn measure(&self) -> Measure {
        match self {
            Self::Records(records) => records.measure(),
            Self::Object { measure, .. } => *measure,
        }
    }
}

/// Where the messages of a publish are; `None` when the topic is gone.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    /// Offset of the first.
    pub first_offset: Option<i64>,
}

/// Bits of one lease that a request wants settled.
#[derive(Debug, Clone, Copy)]
pub struct SettleEntry {
    /// Lane.
    pub lane: i64,
    /// Lease.
    pub lease: i64,
    /// The bits.
    pub mask: u64,
}

/// Acks of one request.
#[derive(Debug)]
pub struct Settle {
    /// The subscription.
    pub subscriber: Arc<Subscriber>,
    /// One entry per lease.
    pub entries: Vec<SettleEntry>,
    /// Gets, per entry, the bits that were pending and now are settled.
    pub reply: oneshot::Sender<Result<Vec<u64>, Error>>,
}

/// What goes into the next turn.
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
    /// When the first of `publishes` came.
    since: Option<Instant>,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.publishes.is_empty() && self.settles.is_empty() && self.subscribers.is_empty()
    }
}

/// The queue of one loop.
#[derive(Debug, Default)]
pub struct Queue {
    gathered: Mutex<Gathered>,
    /// When the oldest publish of the turn that is under way came.
    in_turn: Mutex<Option<Instant>>,
    arrived: Notify,
}

impl Queue {
    /// Adds a publish.
    ///
    /// # Errors
    /// When too many bytes wait already.
    pub fn publish(&self, publish: Publish) -> Result<(), Error> {
        let bytes = publish.content.queued_bytes();
        let mut gathered = self.gathered.lock();
        if gathered.bytes + bytes > QUEUED_PUBLISH_BYTES_MAX {
            return Err(Error::Limited(Limit::QueuedPublishes));
        }
        gathered.bytes += bytes;
        gathered.since.get_or_insert_with(Instant::now);
        gathered.publishes.push(publish);
        drop(gathered);
        self.arrived.notify_one();
        Ok(())
    }

    /// Adds the acks of a request.
    pub fn settle(&self, settle: Settle) {
        self.gathered.lock().settles.push(settle);
        self.arrived.notify_one();
    }

    /// Asks for fresh messages for a subscription's receivers.
    pub fn want(&self, subscriber: &Arc<Subscriber>) {
        if subscriber.mark_queued() {
            self.gathered.lock().subscribers.push(subscriber.clone());
            self.arrived.notify_one();
        }
    }

    /// Puts publishes that did not fit into this turn in front of the next.
    pub fn put_back(&self, mut publishes: Vec<Publish>) {
        if publishes.is_empty() {
            return;
        }
        let mut gathered = self.gathered.lock();
        gathered.bytes += publishes
            .iter()
            .map(|publish| publish.content.queued_bytes())
            .sum::<usize>();
        gathered.since = self.in_turn.lock().or(gathered.since);
        publishes.append(&mut gathered.publishes);
        gathered.publishes = publishes;
        drop(gathered);
        self.arrived.notify_one();
    }

    /// Everything that has gathered, as soon as there is something.
    pub async fn take(&self) -> Gathered {
        loop {
            if let Some(gathered) = self.take_now() {
                return gathered;
            }
            self.arrived.notified().await;
        }
    }

    /// Everything that has gathered, if there is something.
    #[must_use]
    pub fn take_now(&self) -> Option<Gathered> {
        let mut gathered = self.gathered.lock();
        (!gathered.is_empty()).then(|| {
            *self.in_turn.lock() = gathered.since;
            std::mem::take(&mut *gathered)
        })
    }

    /// The turn is over; answers how long its oldest publish waited, if it had any.
    pub fn turn_ended(&self) -> Option<Duration> {
        self.in_turn.lock().take().map(|since| since.elapsed())
    }

    /// How long the oldest publish of the turn that is under way waits.
    #[must_use]
    pub fn waited(&self) -> Option<Duration> {
        self.in_turn.lock().map(|since| since.elapsed())
    }

    /// Whether soon no publish can be taken.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.gathered.lock().bytes > QUEUED_PUBLISH_BYTES_MAX / 2
    }
}

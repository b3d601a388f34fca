//! A subscription as one node knows it: its settings, and what its receivers here need. Shared by receive (which queues a
//! waiter), the turn (which serves waiters with fresh messages), redelivery and `order`. Nothing in here is needed after a
//! restart: a waiter that is lost with its node has been given nothing.

mod due;
mod grant;
mod in_flight;
mod lanes;
mod waiters;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::TopicName;
use parking_lot::RwLock;

use crate::engine::error::Error;
use crate::engine::meter::deliveries::Payer;
use crate::store::subscription::SubscriptionRow;

pub use due::Due;
pub use grant::Grant;
pub use in_flight::InFlight;
pub use lanes::Lanes;
pub use waiters::Waiter;

use waiters::Waiters;

/// A subscription on this node.
#[derive(Debug)]
pub struct Subscriber {
    /// Internal number.
    pub id: i64,
    /// Its name.
    pub name: Arc<str>,
    /// The tenant that pays for it.
    pub tenant: i64,
    /// The topic it reads.
    pub topic_id: i64,
    /// That topic's name.
    pub topic: Arc<TopicName>,
    settings: RwLock<Arc<SubscriptionRow>>,
    /// Whether customers share what it hands out (`order::fair`): then it is served off the turn.
    is_fair: AtomicBool,
    waiters: Waiters,
    /// Whether it stands in the queue of its turn loop.
    queued: AtomicBool,
    /// The lanes of its topic.
    pub lanes: Lanes,
    /// Messages in flight.
    pub in_flight: InFlight,
    /// When redelivery scans.
    pub due: Due,
}

impl Subscriber {
    /// A subscription as it was just loaded.
    #[must_use]
    pub fn new(row: SubscriptionRow, topic: Arc<TopicName>, lanes: Vec<i64>) -> Self {
        Self {
            id: row.subscription_id,
            name: row.name.as_str().into(),
            tenant: row.tenant_id,
            topic_id: row.topic_id,
            topic,
            is_fair: AtomicBool::new(row.fairness_names.is_some()),
            settings: RwLock::new(Arc::new(row)),
            waiters: Waiters::default(),
            queued: AtomicBool::new(false),
            lanes: Lanes::new(lanes),
            in_flight: InFlight::new(),
            due: Due::new(),
        }
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> Arc<SubscriptionRow> {
        self.settings.read().clone()
    }

    /// What reads for it are paid by.
    #[must_use]
    pub fn payer(&self) -> Payer<'_> {
        Payer {
            tenant: self.tenant,
            topic_id: self.topic_id,
            topic: &self.topic,
        }
    }

    /// Takes over what was loaded again.
    pub fn refresh(&self, row: SubscriptionRow, lanes: Vec<i64>) {
        let is_fair = row.fairness_names.is_some();
        if self.is_fair.swap(is_fair, Ordering::AcqRel) && !is_fair {
            // What waited for its turn is due now.
            self.due.forget();
        }
        *self.settings.write() = Arc::new(row);
        self.lanes.set(lanes);
    }

    /// Whether customers share what it hands out: then it is served off the turn.
    #[must_use]
    pub fn is_fair(&self) -> bool {
        self.is_fair.load(Ordering::Acquire)
    }

    /// Adds a receiver at the end of the wait queue.
    ///
    /// # Errors
    /// When too many wait.
    pub fn enqueue(&self, waiter: Waiter) -> Result<(), Error> {
        self.waiters.push(waiter)?;
        self.lanes.expect_fresh();
        Ok(())
    }

    /// Whether a receiver waits.
    #[must_use]
    pub fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// The first receivers that agree on a visibility timeout: `each` gets how many messages every one of them wants, and
    /// the timeout in seconds is returned. A claim asks for all receivers that wait now.
    pub fn ask_alike(&self, each: impl FnMut(u32)) -> Option<u32> {
        self.waiters.ask_alike(each)
    }

    /// Takes all receivers out of the wait queue.
    #[must_use]
    pub fn take_waiters(&self) -> VecDeque<Waiter> {
        self.waiters.take_all()
    }

    /// Gives leases to the receivers with this visibility timeout, first come, first served; the first lease is the last
    /// of `rest`. Returns what no receiver takes any more.
    #[must_use]
    pub fn give(&self, visibility_seconds: u32, mut rest: Vec<Grant>) -> Vec<Grant> {
        while !rest.is_empty() {
            let Some(waiter) = self.waiters.pop(visibility_seconds) else {
                break;
            };
            let mine = grant::take(&mut rest, waiter.wanted);
            if let Err(Ok(unwanted)) = waiter.reply.send(Ok(mine)) {
                // The receiver has gone away: the next one gets them.
                rest.extend(unwanted.into_iter().rev());
            }
        }
        rest
    }

    /// All receivers get an error.
    pub fn fail(&self, error: &Error) {
        for waiter in self.take_waiters() {
            let _ = waiter.reply.send(Err(error.clone()));
        }
    }

    /// The receivers that do not wait learn that there is nothing, if a claim has asked for them.
    pub fn dismiss_impatient(&self) {
        for waiter in self.waiters.take_impatient() {
            let _ = waiter.reply.send(Ok(Vec::new()));
        }
    }

    /// The same when every lane was tried, or nothing may be handed out.
    pub fn dismiss(&self) {
        if !self.lanes.has_untried() || self.headroom() == 0 {
            self.dismiss_impatient();
        }
    }

    /// Marks it as queued for the next turn; false when it was already.
    pub fn mark_queued(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }

    /// Takes it out of the queue of the next turn.
    pub fn unmark_queued(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// Messages that may still be handed out under `max_in_flight`, as far as this node knows.
    #[must_use]
    pub fn headroom(&self) -> u32 {
        self.in_flight.headroom(self.settings.read().max_in_flight)
    }

    /// Whether what is in flight should be counted: while `max_in_flight` holds receivers back, which may not be waiting any
    /// more but ask again, and every few rounds (`is_turn`) for those that wait. Other nodes settle what this one handed out.
    #[must_use]
    pub fn wants_count(&self, is_turn: bool) -> bool {
        let is_waiting = || self.has_waiters() && (is_turn || self.headroom() == 0);
        (self.in_flight.is_held() || is_waiting()) && self.in_flight.may_count()
    }

    /// Sets the count of messages in flight to what was counted within `took`; true when receivers that were held back
    /// need not be any longer.
    pub fn counted(&self, messages: i64, took: Duration) -> bool {
        self.in_flight.counted(messages, took);
        self.headroom() > 0 && self.in_flight.release()
    }
}

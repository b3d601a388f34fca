//! The state of one subscription on one node: its settings, and its receivers that wait here. `receive` adds waiters,
//! the turn serves them with fresh messages, `lease` redelivers, and `order` serves subscriptions with an order of
//! their own. None of this state is needed after a restart: a waiter that is lost with its node was given no messages.

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
use crate::store::{LaneId, SubscriptionId, TenantId, TopicId};

pub use due::Due;
pub use grant::Grant;
pub use in_flight::InFlight;
pub use lanes::Lanes;
pub use waiters::{Group, Served, Waiter};

use waiters::Waiters;

/// A subscription on this node.
#[derive(Debug)]
pub struct Subscriber {
    /// Id of the row.
    pub id: SubscriptionId,
    /// Its name.
    pub name: Arc<str>,
    /// The tenant that pays for it.
    pub tenant: TenantId,
    /// The topic it reads.
    pub topic_id: TopicId,
    /// That topic's name.
    pub topic: Arc<TopicName>,
    settings: RwLock<Arc<SubscriptionRow>>,
    /// Whether customers share its messages (`order::fair`). If so it is served off the turn.
    is_fair: AtomicBool,
    waiters: Waiters,
    /// Whether it is in the queue of its turn loop.
    queued: AtomicBool,
    /// The lanes of its topic.
    pub lanes: Lanes,
    /// Messages in flight.
    pub in_flight: InFlight,
    /// When redelivery scans.
    pub due: Due,
}

impl Subscriber {
    /// A subscription of a row that was just loaded.
    #[must_use]
    pub fn new(row: SubscriptionRow, topic: Arc<TopicName>, lanes: Vec<LaneId>) -> Self {
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

    /// The payer of its reads.
    #[must_use]
    pub fn payer(&self) -> Payer<'_> {
        Payer {
            tenant: self.tenant,
            topic_id: self.topic_id,
            topic: &self.topic,
        }
    }

    /// Takes over settings and lanes that were loaded again.
    pub fn refresh(&self, row: SubscriptionRow, lanes: Vec<LaneId>) {
        let is_fair = row.fairness_names.is_some();
        if self.is_fair.swap(is_fair, Ordering::AcqRel) && !is_fair {
            // Redelivery now also hands out waiting leases, which are due.
            self.due.forget();
        }
        *self.settings.write() = Arc::new(row);
        self.lanes.set(lanes);
    }

    /// Forgets what it knows of the database: any lease may be due, any lane may have messages, and those in flight are
    /// counted again.
    pub fn forget(&self) {
        self.due.forget();
        self.lanes.expect_fresh();
        self.in_flight.forget();
    }

    /// Whether customers share its messages. If so it is served off the turn.
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

    /// Begins a claim for the first group of receivers, which have the same visibility timeout. Calls `each` with the
    /// number of messages that each of them wants, as long as it returns true, and returns the group; `None` when no
    /// receiver waits. Marks all receivers as asked for.
    pub fn ask_group(&self, each: impl FnMut(u32) -> bool) -> Option<Group> {
        self.waiters.ask_group(each)
    }

    /// Takes all receivers out of the wait queue.
    #[must_use]
    pub fn take_waiters(&self) -> VecDeque<Waiter> {
        self.waiters.take_all()
    }

    /// Gives leases to the receivers of this group, first come, first served. `rest` is in reverse order: its last lease
    /// is given first. Returns the leases that no receiver takes.
    #[must_use]
    pub fn give(&self, group: Group, mut rest: Vec<Grant>) -> Vec<Grant> {
        while !rest.is_empty() {
            let Some(waiter) = self.waiters.pop(group) else {
                break;
            };
            let taken = grant::take(&mut rest, waiter.wanted);
            if let Err(Ok(unwanted)) = waiter.reply.send(Ok(taken)) {
                // The receiver has gone away: the next one gets these leases.
                rest.extend(unwanted.into_iter().rev());
            }
        }
        rest
    }

    /// Ends all waiting receivers with an error.
    pub fn fail(&self, error: &Error) {
        for waiter in self.take_waiters() {
            let _ = waiter.reply.send(Err(error.clone()));
        }
    }

    /// Sends an empty result to the receivers that do not wait, if a claim has asked for them.
    pub fn dismiss_impatient(&self) {
        self.send_nothing(false);
    }

    /// The same for receivers that take only messages that are due again.
    pub fn dismiss_due_only(&self) {
        self.send_nothing(true);
    }

    fn send_nothing(&self, due_only: bool) {
        for waiter in self.waiters.take_impatient(due_only) {
            let _ = waiter.reply.send(Ok(Vec::new()));
        }
    }

    /// Sends an empty result to the receivers that do not wait, but only when all lanes were tried, or `max_in_flight` allows no more messages.
    pub fn dismiss(&self) {
        if !self.lanes.has_untried() || self.headroom() == 0 {
            self.dismiss_impatient();
        }
    }

    /// Marks it as queued for the next turn. False when it was marked already.
    pub fn mark_queued(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }

    /// Marks it as not queued any more.
    pub fn unmark_queued(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// Messages that may still be handed out under `max_in_flight`, as far as this node knows.
    #[must_use]
    pub fn headroom(&self) -> u32 {
        self.in_flight.headroom(self.settings.read().max_in_flight)
    }

    /// Whether messages in flight should be counted in the database, because other nodes settle messages that this node
    /// handed out. True while `max_in_flight` holds receivers back, and, in a full round (`is_full`), while receivers
    /// wait.
    #[must_use]
    pub fn wants_count(&self, is_full: bool) -> bool {
        // All that a push subscription hands out is handed out by the node that drives it.
        let is_full = is_full && !self.settings.read().is_push();
        let is_waiting = || self.has_waiters() && (is_full || self.headroom() == 0);
        (self.in_flight.is_held() || is_waiting()) && self.in_flight.may_count()
    }

    /// Sets the number of messages in flight to a count that took this long. True when receivers were held back and need
    /// not be any longer.
    pub fn counted(&self, messages: i64, took: Duration) -> bool {
        self.in_flight.counted(messages, took);
        self.headroom() > 0 && self.in_flight.release()
    }
}

//! A subscription as one node knows it: its settings, its lanes, and the receivers that wait here. Shared by receive (which
//! queues a waiter), the turn (which serves waiters with fresh messages) and redelivery. Nothing in here is needed after a
//! restart: a waiter that is lost with its node has been given nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use api::TopicName;
use api::limits::WAITING_RECEIVERS_MAX;
use parking_lot::{Mutex, RwLock};
use time::OffsetDateTime;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};

use crate::store::lease::Lease;
use crate::store::subscription::SubscriptionRow;

use super::error::Error;
use super::limit::Limit;
use super::quota::Limited;

/// Messages of one lease given to one receiver.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// Lane.
    pub lane: i64,
    /// Lease.
    pub lease: i64,
    /// Offset of bit 0.
    pub base: i64,
    /// The bits that are given.
    pub bits: u64,
    /// How many times they have been handed out, this time included.
    pub attempt: u32,
    /// Until when they are hidden from others.
    pub deadline: OffsetDateTime,
}

impl Grant {
    /// All that is pending in a lease.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
        Self {
            lane: lease.key.lane,
            lease: lease.key.lease,
            base: lease.base,
            bits: lease.pending,
            attempt: lease.attempt.unsigned_abs(),
            deadline: lease.deadline,
        }
    }
}

/// What a receiver gets from a turn: grants, maybe none.
pub type Served = Result<Vec<Grant>, Error>;

/// A receiver that waits for fresh messages.
#[derive(Debug)]
pub struct Waiter {
    /// Messages it takes at most.
    pub wanted: u32,
    /// Visibility timeout in seconds.
    pub visibility_seconds: u32,
    /// Whether it goes on waiting when there is nothing.
    pub patient: bool,
    /// Whether a claim has asked for it: only then an empty claim means that there is nothing for it.
    pub asked: bool,
    /// Where its answer goes.
    pub reply: oneshot::Sender<Served>,
}

/// The first receivers that agree on a visibility timeout: how many messages each wants, and that timeout. Those that have
/// gone away are taken out; of the others it is noted that a claim asked for them.
pub fn ask_alike(waiters: &mut VecDeque<Waiter>) -> Option<(impl Iterator<Item = u32>, u32)> {
    waiters.retain_mut(|waiter| {
        waiter.asked = true;
        !waiter.reply.is_closed()
    });
    let visibility_seconds = waiters.front()?.visibility_seconds;
    let alike = waiters
        .iter()
        .take_while(move |waiter| waiter.visibility_seconds == visibility_seconds);
    Some((alike.map(|waiter| waiter.wanted), visibility_seconds))
}

/// A subscription on this node.
#[derive(Debug)]
pub struct Subscriber {
    /// Internal number.
    pub id: i64,
    /// Who pays for it.
    pub tenant: i64,
    /// The topic it reads.
    pub topic_id: i64,
    /// That topic's name.
    pub topic: Arc<TopicName>,
    settings: RwLock<Arc<SubscriptionRow>>,
    lanes: RwLock<Arc<Vec<i64>>>,
    waiting: Mutex<VecDeque<Waiter>>,
    /// Whether it stands in the queue of its turn loop.
    queued: AtomicBool,
    /// Lanes still to be tried before waiters are told that there is nothing.
    untried_lanes: AtomicUsize,
    /// The lane that is tried next.
    next_lane: AtomicUsize,
    /// Messages in flight: exact when counted, then moved by what this node does.
    in_flight: AtomicI64,
    /// Whether `max_in_flight` held a receiver back since the last settle.
    held_back: AtomicBool,
    /// No count of what is in flight before: counts must not keep the database busy.
    count_after: Mutex<Instant>,
    /// The tenant's limits, when they bound what is in flight.
    limited: OnceLock<Arc<Limited>>,
    due: Mutex<Due>,
    due_now: Notify,
    /// Whether its customers take turns.
    is_fair: AtomicBool,
    /// A look for what is due again that a fair subscription is to be served with, from this bound on.
    wanted_look: Mutex<Option<Option<OffsetDateTime>>>,
    /// Whether half of an odd number was rounded up.
    was_up: AtomicBool,
}

/// When redelivery looks again. Instants pace the looks; what is due only the database's clock says (I10).
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// No look before: one that just came back is enough for all.
    pub not_before: Instant,
    /// A look then at the latest, for leases that other nodes gave.
    pub at_latest: Instant,
    /// A look from then on: the earliest deadline that is known here.
    pub expected: Option<Instant>,
    /// In the database's time: below it there is no lease in any lane.
    pub low: Option<OffsetDateTime>,
    /// When `low` is forgotten, so that a lease which a slow commit put below it is found all the same.
    pub low_until: Instant,
}

/// Least pause between two looks for expired leases of one subscription.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause while receivers ask.
const LOOK_LATEST: Duration = Duration::from_secs(1);
/// A count of what is in flight rests for so many times as long as it took.
const COUNT_REST: u32 = 20;

impl Subscriber {
    /// A subscription as it was just loaded.
    #[must_use]
    pub fn new(row: SubscriptionRow, topic: Arc<TopicName>, lanes: Vec<i64>) -> Self {
        let now = Instant::now();
        Self {
            id: row.subscription_id,
            tenant: row.tenant_id,
            topic_id: row.topic_id,
            topic,
            is_fair: AtomicBool::new(row.fairness_names.is_some()),
            wanted_look: Mutex::default(),
            was_up: AtomicBool::new(false),
            settings: RwLock::new(Arc::new(row)),
            lanes: RwLock::new(Arc::new(lanes)),
            waiting: Mutex::default(),
            queued: AtomicBool::new(false),
            untried_lanes: AtomicUsize::new(0),
            next_lane: AtomicUsize::new(0),
            in_flight: AtomicI64::new(0),
            held_back: AtomicBool::new(false),
            count_after: Mutex::new(now),
            limited: OnceLock::new(),
            due: Mutex::new(Due {
                not_before: now,
                at_latest: now,
                expected: None,
                low: None,
                low_until: now,
            }),
            due_now: Notify::new(),
        }
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> Arc<SubscriptionRow> {
        self.settings.read().clone()
    }

    /// The lanes of its topic.
    #[must_use]
    pub fn lanes(&self) -> Arc<Vec<i64>> {
        self.lanes.read().clone()
    }

    /// Takes over what was loaded again.
    pub fn refresh(&self, row: SubscriptionRow, lanes: Vec<i64>) {
        let is_fair = row.fairness_names.is_some();
        if self.is_fair.swap(is_fair, Ordering::AcqRel) && !is_fair {
            // What waited for its turn is due now, whatever was known of what is due.
            let now = Instant::now();
            let mut due = self.due.lock();
            (due.low, due.expected) = (None, Some(now));
        }
        *self.settings.write() = Arc::new(row);
        *self.lanes.write() = Arc::new(lanes);
    }

    /// Adds a receiver at the end of the queue.
    ///
    /// # Errors
    /// When too many wait.
    pub fn enqueue(&self, waiter: Waiter) -> Result<(), Error> {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING_RECEIVERS_MAX {
            waiting.retain(|waiter| !waiter.reply.is_closed());
            if waiting.len() >= WAITING_RECEIVERS_MAX {
                return Err(Error::Limited(Limit::Receivers));
            }
        }
        waiting.push_back(waiter);
        self.untried_lanes
            .store(self.lanes().len(), Ordering::Release);
        Ok(())
    }

    /// Whether somebody waits.
    #[must_use]
    pub fn has_waiters(&self) -> bool {
        !self.waiting.lock().is_empty()
    }

    /// Looks through the queue of receivers.
    pub fn with_waiters<T>(&self, look: impl FnOnce(&mut VecDeque<Waiter>) -> T) -> T {
        look(&mut self.waiting.lock())
    }

    /// Marks it as queued for the next turn; false when it was already.
    pub fn mark_queued(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }

    /// Takes it out of the queue of the next turn.
    pub fn unmark_queued(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// All lanes may have something again.
    pub fn expect_fresh(&self) {
        self.untried_lanes
            .store(self.lanes().len(), Ordering::Release);
    }

    /// Whether its customers take turns: then it is served off the turn.
    #[must_use]
    pub fn is_fair(&self) -> bool {
        self.is_fair.load(Ordering::Acquire)
    }

    /// What is due again is looked for from `low` on when receivers are served next.
    pub fn want_look(&self, low: Option<OffsetDateTime>) {
        *self.wanted_look.lock() = Some(low);
    }

    /// The look that is wanted.
    #[must_use]
    pub fn take_look(&self) -> Option<Option<OffsetDateTime>> {
        self.wanted_look.lock().take()
    }

    /// Half of so many messages; of an odd number every other time one more.
    #[must_use]
    pub fn half_of(&self, messages: u32) -> u32 {
        let up = messages % 2 == 1 && !self.was_up.fetch_xor(true, Ordering::Relaxed);
        messages / 2 + u32::from(up)
    }

    /// All lanes, each time another one first.
    #[must_use]
    pub fn lanes_in_turn(&self) -> Vec<i64> {
        let mut lanes = self.lanes().to_vec();
        let first = self.next_lane.fetch_add(1, Ordering::Relaxed) % lanes.len().max(1);
        lanes.rotate_left(first);
        lanes
    }

    /// The lane to claim from next.
    #[must_use]
    pub fn lane_to_try(&self) -> Option<i64> {
        let lanes = self.lanes();
        lanes
            .get(self.next_lane.load(Ordering::Relaxed) % lanes.len().max(1))
            .copied()
    }

    /// Claims from `lane` next: it has just been published to.
    pub fn prefer(&self, lane: i64) {
        if let Some(at) = self.lanes().iter().position(|known| *known == lane) {
            self.next_lane.store(at, Ordering::Relaxed);
            self.untried_lanes.fetch_max(1, Ordering::AcqRel);
        }
    }

    /// The lane that was tried gave less than was wanted: the next one's turn.
    pub fn lane_was_empty(&self) {
        self.next_lane.fetch_add(1, Ordering::Relaxed);
        let less = |untried: usize| untried.checked_sub(1);
        let _ = self
            .untried_lanes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// Whether some lane was not tried since the last receiver came or the last hint.
    #[must_use]
    pub fn has_untried_lanes(&self) -> bool {
        self.untried_lanes.load(Ordering::Acquire) > 0
    }

    /// Messages that may still be handed out under `max_in_flight`, as far as this node knows.
    #[must_use]
    pub fn headroom(&self) -> u32 {
        let room =
            i64::from(self.settings.read().max_in_flight) - self.in_flight.load(Ordering::Relaxed);
        u32::try_from(room.max(0)).unwrap_or(u32::MAX)
    }

    /// Remembers that `max_in_flight` holds receivers back.
    pub fn hold_back(&self) {
        self.held_back.store(true, Ordering::Relaxed);
    }

    /// Whether receivers were held back; asked when something was settled.
    pub fn release(&self) -> bool {
        self.held_back.load(Ordering::Relaxed) && self.held_back.swap(false, Ordering::Relaxed)
    }

    /// Moves the count of messages in flight; what other nodes handed out may be settled here, but fewer than none are
    /// never out.
    pub fn moved(&self, by: i64) {
        if let Some(limited) = self.limited.get() {
            limited.moved(by);
        }
        let add = |messages: i64| Some(messages.saturating_add(by).max(0));
        let _ = self
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// From now on what it moves is counted for its tenant, too.
    pub fn count_for(&self, limited: &Arc<Limited>) {
        self.limited.get_or_init(|| limited.clone());
    }

    /// Whether what is in flight should be counted: while `max_in_flight` holds receivers back, who may not be waiting any
    /// more but ask again, and now and then (`is_turn`) for those that wait. Other nodes settle what this one handed out.
    #[must_use]
    pub fn wants_count(&self, is_turn: bool) -> bool {
        let is_held = self.held_back.load(Ordering::Relaxed);
        let is_wanted = is_held || (self.has_waiters() && (is_turn || self.headroom() == 0));
        is_wanted && Instant::now() >= *self.count_after.lock()
    }

    /// Sets the count of messages in flight to what was counted within `took`; true when receivers that were held back
    /// need not be any longer.
    pub fn counted(&self, messages: i64, took: Duration) -> bool {
        self.in_flight.store(messages, Ordering::Relaxed);
        *self.count_after.lock() = Instant::now() + took * COUNT_REST;
        self.headroom() > 0 && self.release()
    }

    /// Whether it is time to look for expired leases; if so the next look waits for [`Subscriber::looked`] or a while.
    #[must_use]
    pub fn begin_look(&self) -> Option<Option<OffsetDateTime>> {
        let now = Instant::now();
        let mut due = self.due.lock();
        let wanted = now >= due.at_latest || due.expected.is_some_and(|at| now >= at);
        if !wanted || now < due.not_before {
            return None;
        }
        if now >= due.low_until {
            due.low = None;
            due.low_until = now + Duration::from_secs(30);
        }
        due.not_before = now + LOOK_PAUSE;
        due.at_latest = now + LOOK_LATEST;
        due.expected = None;
        Some(due.low)
    }

    /// After a look that left nothing due below `low`.
    pub fn looked(&self, low: OffsetDateTime) {
        self.due.lock().low = Some(low);
    }

    /// What is due could not be had: not again at once.
    pub fn look_later(&self) {
        let at = Instant::now() + LOOK_PAUSE;
        let mut due = self.due.lock();
        due.expected = Some(at);
        due.not_before = at;
    }

    /// A lease of this subscription will be due after `wait`; zero when one is due now.
    pub fn expect_due(&self, wait: Duration) {
        let at = Instant::now() + wait;
        let mut due = self.due.lock();
        due.expected = Some(due.expected.map_or(at, |earlier| earlier.min(at)));
        if wait.is_zero() {
            due.not_before = due.not_before.min(at);
        }
    }

    /// Receivers that wait notice that something is due.
    pub fn wake_for_due(&self) {
        self.due_now.notify_waiters();
    }

    /// Resolves when something falls due before its time.
    pub fn due_now(&self) -> Notified<'_> {
        self.due_now.notified()
    }

    /// When the next look is wanted.
    #[must_use]
    pub fn next_look(&self) -> Instant {
        let due = self.due.lock();
        due.expected
            .map_or(due.at_latest, |at| at.min(due.at_latest))
            .max(due.not_before)
    }
}

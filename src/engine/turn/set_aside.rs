//! The queue of leases that were set aside on this node: their attempts are used up, or a consumer wants their messages in
//! the dead-letter topic. They are hidden from receivers until tasks of `receive` have moved their messages, many at
//! once. Bounded (I9): a lease beyond the limit whose attempts are used up is not queued, falls due again when its time
//! is over, and a later claim finds it. Leases of consumers are bounded by the requests that wait for them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::engine::error::Error;
use crate::engine::inbox::Inbox;
use crate::engine::subscriber::Subscriber;
use crate::store::SubscriptionId;
use crate::store::lease::Lease;
use crate::store::turn::ASIDE_SECONDS;

/// Leases queued on one node at most.
const WAITING_MAX: usize = 1_024;
/// Tasks that move leases of one subscription: while one commits, the other reads and encodes.
const MOVES_OF_ONE: usize = 2;
/// Messages that are moved together at most.
const MESSAGES_MAX: u32 = 4_096;

/// A lease that was set aside.
#[derive(Debug)]
pub struct Aside {
    /// The subscription.
    pub subscriber: Arc<Subscriber>,
    /// The lease.
    pub lease: Lease,
    /// Why, by message (its bit); empty: the attempts are used up.
    pub reasons: Vec<(u8, String)>,
    since: Instant,
    reply: Option<oneshot::Sender<Moved>>,
}

/// What became of the messages of a lease that was set aside, as bits.
#[derive(Debug, Default)]
pub struct Moved {
    /// They were moved to the dead-letter topic.
    pub moved: u64,
    /// They stay in the lease: it changed meanwhile, or the dead-letter topic is gone. Those not settled fall due again.
    pub kept: u64,
    /// Why others could not be read. Without an error, retention has deleted them.
    pub error: Option<Error>,
}

impl Aside {
    /// Whether its time is over, so that it may be due again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.since.elapsed() >= Duration::from_secs(u64::from(ASIDE_SECONDS))
    }

    /// Why a message is moved; `None`: its attempts are used up.
    #[must_use]
    pub fn reason(&self, bit: u8) -> Option<&str> {
        let mut reasons = self.reasons.iter();
        let found = reasons.find(|(of, _)| *of == bit);
        found.map(|(_, reason)| reason.as_str())
    }

    /// Sends the outcome to the request that waits for it, if there is one.
    pub fn reply(&mut self, moved: Moved) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(moved);
        }
    }
}

/// The queue of leases that were set aside.
#[derive(Debug, Default)]
pub struct SetAside {
    inbox: Inbox<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Aside>,
    /// How many tasks move leases of a subscription now. More leases gather meanwhile, because moves to one topic cannot
    /// commit at the same time.
    moving: HashMap<SubscriptionId, usize>,
}

impl SetAside {
    /// Adds leases whose attempts are used up.
    pub fn add(&self, subscriber: &Arc<Subscriber>, leases: Vec<Lease>) {
        if leases.is_empty() {
            return;
        }
        self.inbox.put(|state| {
            let room = WAITING_MAX.saturating_sub(state.waiting.len());
            state
                .waiting
                .extend(leases.into_iter().take(room).map(|lease| Aside {
                    subscriber: subscriber.clone(),
                    lease,
                    reasons: Vec::new(),
                    since: Instant::now(),
                    reply: None,
                }));
        });
    }

    /// How many more leases it takes whose attempts are used up.
    #[must_use]
    pub fn room(&self) -> usize {
        self.inbox
            .with(|state| WAITING_MAX.saturating_sub(state.waiting.len()))
    }

    /// Adds a lease of messages that a consumer wants in the dead-letter topic, with a reason for each.
    pub fn ask(
        &self,
        subscriber: &Arc<Subscriber>,
        lease: Lease,
        reasons: Vec<(u8, String)>,
    ) -> oneshot::Receiver<Moved> {
        let (reply, moved) = oneshot::channel();
        self.inbox.put(|state| {
            state.waiting.push_back(Aside {
                subscriber: subscriber.clone(),
                lease,
                reasons,
                since: Instant::now(),
                reply: Some(reply),
            });
        });
        moved
    }

    /// Takes leases of one subscription that are moved together; waits until there are some. The caller calls
    /// [`SetAside::done`] afterwards.
    pub async fn next(&self) -> (Arc<Subscriber>, Vec<Aside>) {
        self.inbox.take_one(State::group).await
    }

    /// Ends the move of leases of a subscription.
    pub fn done(&self, subscriber: &Subscriber) {
        self.inbox.put(|state| {
            if let Entry::Occupied(mut moving) = state.moving.entry(subscriber.id) {
                *moving.get_mut() -= 1;
                if *moving.get() == 0 {
                    moving.remove();
                }
            }
        });
    }
}

impl State {
    /// The first lease whose subscription has a task to spare, and others of its subscription up to the limit.
    fn group(&mut self) -> Option<(Arc<Subscriber>, Vec<Aside>)> {
        let mut waiting = self.waiting.iter();
        let first = waiting.find(|aside| {
            let moving = self.moving.get(&aside.subscriber.id);
            moving.is_none_or(|moving| *moving < MOVES_OF_ONE)
        })?;
        let subscriber = first.subscriber.clone();
        let mut messages = 0;
        let taken = |aside: &Aside| {
            let more = aside.lease.pending.count_ones();
            let fits = messages == 0 || messages + more <= MESSAGES_MAX;
            let is_taken = aside.subscriber.id == subscriber.id && fits;
            messages += if is_taken { more } else { 0 };
            is_taken
        };
        let (group, rest): (VecDeque<_>, _) = self.waiting.drain(..).partition(taken);
        self.waiting = rest;
        *self.moving.entry(subscriber.id).or_default() += 1;
        Some((subscriber, group.into()))
    }
}

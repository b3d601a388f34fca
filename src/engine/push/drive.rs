//! The driver of one endpoint: a task that leases messages, has them sent, and settles them by the answers. It leases
//! what it may send within a moment. While there is nothing to send it waits like a receiver, and costs no statement.
//!
//! A message is sent only while its lease has time for the answer. So a driver that was paused, or has lost its endpoint
//! to another node, sends nothing that somebody else may have.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::limits::PUSH_BATCH_MESSAGES;
use api::push::PushFormat;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::engine::lease::ask::Ask;
use crate::engine::log::block::Delivery;
use crate::engine::push::control::Control;
use crate::engine::push::endpoint::Endpoint;
use crate::engine::push::flow::{Flow, Room};
use crate::engine::push::in_order::{self, InOrder};
use crate::engine::push::ready::Ready;
use crate::engine::push::send::{Send, Sent};
use crate::engine::push::settle::{Settling, settle};
use crate::engine::receive::Action;
use crate::engine::subscriber::Subscriber;
use crate::store::turn::LeaseAction;

/// A lease lasts this much longer than a request may take: for the wait for a place on the node, and for the settle.
const MARGIN_SECONDS: u32 = 15;
/// Pause after leases could not be had.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// With a clock that is moved by hand, leases fall due at no known instant.
const MANUAL_PAUSE: Duration = Duration::from_millis(50);
/// Times of retries are told apart by this much.
const GRAIN: Duration = Duration::from_millis(100);
/// When the node stops, running requests get this time for their answers.
const LAST_WITHIN: Duration = Duration::from_secs(3);

type Fetching = Pin<Box<dyn Future<Output = Result<Vec<Delivery>, Error>> + std::marker::Send>>;

/// The driver of an endpoint.
pub(super) struct Drive {
    pub(super) engine: Engine,
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) control: Arc<Control>,
    pub(super) flow: Flow,
    /// Of an endpoint that gets its messages in order; then `flow` is not asked.
    pub(super) order: Option<InOrder>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) sending: JoinSet<Sent>,
    /// What is leased and not sent yet.
    pub(super) ready: Ready,
    fetching: Option<Fetching>,
    /// Cancels `fetching`.
    cancel: CancellationToken,
    settling: Option<Settling>,
    /// What is to be settled next.
    pub(super) answered: Vec<(String, Action)>,
    /// When messages fall due again.
    pub(super) retries: BTreeSet<Instant>,
    /// No lease before.
    pub(super) paused_until: Option<Instant>,
}

impl Drive {
    pub(super) fn new(
        engine: Engine,
        subscriber: Arc<Subscriber>,
        control: Arc<Control>,
        endpoint: Arc<Endpoint>,
    ) -> Self {
        let flow = Flow::new(endpoint.concurrency());
        Self {
            engine,
            subscriber,
            flow,
            order: InOrder::of(&endpoint),
            cancel: control.stop.child_token(),
            control,
            endpoint,
            sending: JoinSet::new(),
            ready: Ready::default(),
            fetching: None,
            settling: None,
            answered: Vec::new(),
            retries: BTreeSet::new(),
            paused_until: None,
        }
    }

    /// Drives until its control says stop, and then until all that runs has ended. `halt` leaves little time for that.
    pub(super) async fn run(mut self, halt: CancellationToken) {
        let stop = self.control.stop.clone();
        loop {
            let is_stopping = stop.is_cancelled() || self.control.status.is_disabled();
            if is_stopping && self.is_idle() {
                break;
            }
            self.begin(is_stopping);
            let timer = self.timer(is_stopping);
            tokio::select! {
                biased;
                Some(sent) = self.sending.join_next(), if !self.sending.is_empty() => {
                    if let Ok(sent) = sent {
                        self.take(sent);
                    }
                    while let Some(Ok(sent)) = self.sending.try_join_next() {
                        self.take(sent);
                    }
                }
                again = next(&mut self.settling) => self.settled(again),
                fetched = next(&mut self.fetching) => self.fetched(fetched, &stop),
                () = tokio::time::sleep_until(timer.into()) => self.wake(),
                () = self.control.changed() => self.change(),
                () = stop.cancelled(), if !is_stopping => {}
                () = halt.cancelled() => {
                    let _ = tokio::time::timeout(LAST_WITHIN, self.finish()).await;
                    self.let_go().await;
                    break;
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.is_settled() && self.ready.is_empty() && self.fetching.is_none()
    }

    /// Whether all that was sent is answered and settled.
    pub(super) fn is_settled(&self) -> bool {
        self.sending.is_empty() && self.answered.is_empty() && self.settling.is_none()
    }

    /// Waits for the answers of running requests, and settles their messages.
    async fn finish(&mut self) {
        self.give_back();
        while let Some(sent) = self.sending.join_next().await {
            if let Ok(sent) = sent {
                self.take(sent);
            }
        }
        if let Some(settling) = self.settling.take() {
            settling.await;
        }
        let items = std::mem::take(&mut self.answered);
        settle(self.engine.clone(), self.endpoint.clone(), items).await;
    }

    /// Begins what may begin now: requests, then a settle and a lease.
    fn begin(&mut self, is_stopping: bool) {
        let now = Instant::now();
        self.drop_late(now);
        let room = match self.room(now) {
            Room::Now(room) if !is_stopping => Some(self.send(room)),
            Room::Now(_) | Room::At(_) => {
                self.give_back();
                self.cancel.cancel();
                None
            }
        };
        if self.settling.is_none() && !self.answered.is_empty() {
            let items = std::mem::take(&mut self.answered);
            let (engine, endpoint) = (self.engine.clone(), self.endpoint.clone());
            self.settling = Some(Box::pin(settle(engine, endpoint, items)));
        }
        let Some(room) = room.filter(|_| self.fetching.is_none()) else {
            return;
        };
        if self.paused_until.is_some_and(|at| at > now) {
            return;
        }
        self.paused_until = None;
        let wanted = match &self.order {
            Some(_) => in_order::wanted(room, self.batch()),
            None => self.ready.wanted(&self.flow, room, self.batch()),
        };
        if wanted > 0 {
            let ask = Ask {
                wanted: wanted.min(self.endpoint.rate_room()),
                visibility_seconds: self.visibility_seconds(),
                wait: Duration::ZERO,
            };
            self.cancel = self.control.stop.child_token();
            let fetch = Fetch {
                engine: self.engine.clone(),
                subscriber: self.subscriber.clone(),
                ask,
                is_in_order: self.order.is_some(),
                stop: self.cancel.clone(),
            };
            self.fetching = Some(Box::pin(fetch.run()));
        }
    }

    /// Has as many requests sent as there is room for. Returns the room that is left.
    fn send(&mut self, room: u32) -> u32 {
        for left in (0..room).rev() {
            let Some((deliveries, until)) = self.ready.next(self.batch()) else {
                return left + 1;
            };
            let send = Send {
                engine: self.engine.clone(),
                endpoint: self.endpoint.clone(),
                deliveries,
                until,
            };
            self.flow.began();
            // Boxed: a task is moved several times before it runs.
            self.sending.spawn(Box::pin(send.run()));
        }
        0
    }

    /// Gives back what is leased and not sent.
    pub(super) fn give_back(&mut self) {
        let back = self.ready.take().map(|one| (one.receipt, Action::GiveBack));
        self.answered.extend(back);
    }

    /// Messages of one request.
    fn batch(&self) -> u32 {
        match self.endpoint.format {
            PushFormat::JsonBatch => {
                let batch = self.endpoint.settings.batch_max_messages;
                batch.unwrap_or(*PUSH_BATCH_MESSAGES.end())
            }
            PushFormat::Raw
            | PushFormat::CloudeventsBinary
            | PushFormat::CloudeventsStructured
            | PushFormat::Json => 1,
        }
    }

    fn visibility_seconds(&self) -> u32 {
        let settings = self.subscriber.settings();
        let timeout = u32::try_from(self.endpoint.timeout.as_secs()).unwrap_or(0);
        let least = timeout + MARGIN_SECONDS;
        settings.visibility_seconds.unsigned_abs().max(least)
    }

    /// When it has to look again by itself.
    fn timer(&self, is_stopping: bool) -> Instant {
        let now = Instant::now();
        if is_stopping {
            return now + PAUSE;
        }
        let opens = match self.room(now) {
            Room::At(at) => Some(at),
            Room::Now(_) => None,
        };
        let manual = self.engine.clock().now().map(|_| now + MANUAL_PAUSE);
        let timers = [
            self.retries.first().copied(),
            opens,
            self.paused_until,
            manual,
        ];
        let idle = now + Duration::from_secs(86_400);
        timers.into_iter().flatten().min().unwrap_or(idle).max(now)
    }

    /// Looks for messages that fall due now.
    fn wake(&mut self) {
        let now = Instant::now();
        let is_manual = self.engine.clock().now().is_some();
        let before = self.retries.len();
        self.retries = self.retries.split_off(&(now + Duration::from_nanos(1)));
        if self.retries.len() < before || is_manual {
            self.engine.look_for_due(&self.subscriber);
        }
    }

    /// Remembers that messages fall due after a pause.
    pub(super) fn due_after(&mut self, pause: Duration) {
        let since = self.control.began.elapsed() + pause;
        // Rounded up, so that the set is small and what falls due is due.
        let grains = since.as_millis() / GRAIN.as_millis() + 1;
        let after = GRAIN.saturating_mul(u32::try_from(grains).unwrap_or(u32::MAX));
        self.retries.insert(self.control.began + after);
    }

    /// Takes over what has changed outside.
    fn change(&mut self) {
        let change = self.control.take();
        if let Some(endpoint) = change.endpoint {
            self.flow.set_limit(endpoint.concurrency());
            self.control.status.changed(&endpoint);
            self.endpoint = endpoint;
            self.reorder();
        }
        if let Some(pause) = change.due_after {
            self.due_after(pause);
        }
        if change.look {
            self.engine.look_for_due(&self.subscriber);
        }
    }

    /// Takes over what was leased.
    fn fetched(&mut self, fetched: Result<Vec<Delivery>, Error>, stop: &CancellationToken) {
        match fetched {
            Ok(deliveries) => {
                let seconds = u64::from(self.visibility_seconds());
                let visibility = Duration::from_secs(seconds);
                let until = Instant::now() + visibility.saturating_sub(self.endpoint.timeout);
                self.ready.add(deliveries, until);
            }
            Err(Error::NotFound { .. }) => stop.cancel(),
            Err(error) => {
                tracing::debug!(%error, subscription = %self.endpoint.subscription, "no messages could be leased");
                self.paused_until = Some(Instant::now() + PAUSE);
            }
        }
    }
}

/// What is to be leased.
struct Fetch {
    engine: Engine,
    subscriber: Arc<Subscriber>,
    ask: Ask,
    is_in_order: bool,
    stop: CancellationToken,
}

impl Fetch {
    /// Leases messages and reads them.
    async fn run(self) -> Result<Vec<Delivery>, Error> {
        let (engine, subscriber) = (&self.engine, &self.subscriber);
        if self.is_in_order {
            // What was not taken is due again, and comes before all else.
            engine.look_for_due(subscriber);
        }
        let grants = engine
            .grants_for_push(subscriber, self.ask, self.stop.cancelled())
            .await?;
        if grants.is_empty() {
            return Ok(Vec::new());
        }
        if self.stop.is_cancelled() {
            let back = LeaseAction::GiveBack(0);
            engine.turns().give_back(subscriber, &grants, back).await;
            return Ok(Vec::new());
        }
        let seconds = self.ask.visibility_seconds;
        if self.is_in_order {
            return Box::pin(engine.read_in_order(subscriber, &grants, seconds)).await;
        }
        Box::pin(engine.read_grants(subscriber, &grants, seconds)).await
    }
}

/// The output of a future that may not be there; it is gone then.
async fn next<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    let Some(running) = future else {
        return std::future::pending().await;
    };
    let output = running.await;
    *future = None;
    output
}

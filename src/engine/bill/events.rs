//! Duty `events`: turns completed usage into events (`usage_events`), starts relays of the events that wait for sinks and
//! deletes those that were delivered (`engine::events`). It is in this room because it needs both. Relays run on the
//! tracker of the node, a limited number at a time, and continue while the duty pauses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;
use crate::engine::bill::usage_events;
use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::engine::events;

/// Concurrent relays of a node. If as many topics are slow, the others wait.
const AT_ONCE: usize = 32;
/// Time between two counts of waiting events.
const COUNT_AFTER: Duration = Duration::from_secs(10);

/// The duty.
#[derive(Debug)]
pub struct Events {
    engine: Engine,
    tracker: TaskTracker,
    permits: Arc<Semaphore>,
    counted: Option<Instant>,
    waiting: Gauge,
}

impl Events {
    /// `engine` publishes events to topics. Relays run as tasks on `tracker`.
    #[must_use]
    pub fn new(engine: Engine, tracker: TaskTracker) -> Self {
        Self {
            engine,
            tracker,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            counted: None,
            waiting: Gauge::default(),
        }
    }

    /// Starts as many relays as there are permits, and returns their number.
    async fn relay(&self, stop: &CancellationToken) -> Result<u64, DutyError> {
        let free = self.permits.available_permits();
        if free == 0 {
            return Ok(0);
        }
        let mut begun = 0;
        for relay in events::claim(&self.engine, free).await? {
            // Always succeeds: no other task takes permits.
            let Ok(permit) = self.permits.clone().try_acquire_owned() else {
                break;
            };
            let stop = stop.clone();
            self.tracker.spawn(async move {
                relay.run(&stop).await;
                drop(permit);
            });
            begun += 1;
        }
        Ok(begun)
    }
}

impl Duty for Events {
    const NAME: &'static str = "events";
    const BUSY: Duration = Duration::from_secs(1);
    const IDLE: Duration = Duration::from_secs(2);
    // A small page of usage costs the database as much as a month of it.
    const PAUSE_FACTOR: u32 = 2;

    /// Counts created and delivered events and started relays.
    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let made = usage_events::fill(context, stop).await;
        // Waiting events are delivered even if creating new ones failed.
        let delivered = events::settle(&self.engine).await?;
        let begun = self.relay(stop).await?;
        if self.counted.is_none_or(|at| at.elapsed() > COUNT_AFTER) {
            self.counted = Some(Instant::now());
            self.waiting.set(events::waiting(&context.store).await?);
        }
        let mut done = made?;
        done.count += begun + delivered;
        Ok(done)
    }

    fn stand_by(&mut self) {
        self.counted = None;
        self.waiting.set(0);
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "events_waiting",
            "Events that wait for sinks, counted up to 100,000",
            self.waiting.clone(),
        );
    }
}

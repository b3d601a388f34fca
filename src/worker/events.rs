//! Duty `events`: the loop around `engine::events`. Deliveries go on beside it, each by itself on the tracker of the node,
//! so many at a time; the loop only begins them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Context, Duty, Metrics};
use crate::engine::bill::usage_events;
use crate::engine::duty::{Done, DutyError};
use crate::engine::events;

/// Sinks that a node delivers to at a time: so many may be slow at once before others wait for them.
const AT_ONCE: usize = 32;
/// Between two counts of what waits.
const COUNT: Duration = Duration::from_secs(10);

pub(super) struct Events {
    tracker: TaskTracker,
    places: Arc<Semaphore>,
    counted: Option<Instant>,
}

impl Events {
    pub(super) fn new(tracker: &TaskTracker) -> Self {
        Self {
            tracker: tracker.clone(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            counted: None,
        }
    }

    /// Begins what there is a place for; returns how many.
    async fn deliver(&self, context: &Context, stop: &CancellationToken) -> Result<u64, DutyError> {
        let free = self.places.available_permits();
        if free == 0 {
            return Ok(0);
        }
        let mut begun = 0;
        for delivery in events::claim(&context.engine, free).await? {
            // Only this loop takes places.
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                break;
            };
            let stop = stop.clone();
            self.tracker.spawn(async move {
                delivery.run(&stop).await;
                drop(place);
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
    // A page of usage costs what a month of it does.
    const REST: u32 = 2;

    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let filled =
            usage_events::fill(&context.store, &context.clock, || stop.is_cancelled()).await;
        // What waits is delivered also when nothing new can be made.
        let begun = self.deliver(context, stop).await?;
        if self.counted.is_none_or(|counted| counted.elapsed() > COUNT) {
            self.counted = Some(Instant::now());
            let waiting = events::waiting(&context.store).await?;
            context.metrics.events_waiting.set(waiting);
        }
        let mut done = filled?;
        done.count += begun;
        Ok(done)
    }

    fn rest(&mut self, metrics: &Metrics) {
        self.counted = None;
        metrics.events_waiting.set(0);
    }
}

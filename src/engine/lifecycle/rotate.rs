//! Duty `rotate`: makes the next free hot slot the current one, so that payloads of one age share a slot, which can be
//! truncated as a whole. Publishes do not wait for it: while no slot is free, they continue to use the current slot.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::store::{hot_payload, installation};

/// When to rotate.
#[derive(Debug, Clone)]
pub struct RotateSettings {
    /// Rotate when the current slot has at least this many bytes.
    pub slot_bytes: i64,
    /// Rotate when the current slot is not empty and has been current for this long.
    pub slot_window: Duration,
}

impl Default for RotateSettings {
    fn default() -> Self {
        Self {
            slot_bytes: 128 * 1024 * 1024,
            slot_window: Duration::from_secs(60),
        }
    }
}

/// The duty.
#[derive(Debug)]
pub struct Rotate {
    settings: RotateSettings,
    slots_free: Gauge,
}

impl Rotate {
    /// The duty with its settings.
    #[must_use]
    pub fn new(settings: RotateSettings) -> Self {
        let slots_free = Gauge::default();
        slots_free.set(i64::from(hot_payload::SLOTS));
        Self {
            settings,
            slots_free,
        }
    }

    /// Number of free slots after the last run.
    #[must_use]
    pub fn slots_free(&self) -> i64 {
        self.slots_free.get()
    }
}

impl Duty for Rotate {
    const NAME: &'static str = "rotate";
    const BUSY: Duration = Duration::from_millis(500);
    // A slot can fill within a second.
    const IDLE: Duration = Duration::from_secs(1);

    /// Rotates when it is time and a slot is free, and returns the number of rotations (0 or 1).
    async fn run(&mut self, context: &Context, _: &CancellationToken) -> Result<Done, DutyError> {
        let mut session = context.store.session().await?;
        let current = installation::get(&mut session)
            .await?
            .ok_or(DutyError::NotSetUp)?
            .hot_slot;
        let sizes = hot_payload::sizes(&mut session).await?;
        let is_empty =
            |slot: &i16| usize::try_from(*slot).is_ok_and(|slot| sizes.get(slot) == Some(&0));
        let after_current =
            (1..hot_payload::SLOTS).map(|step| (current + step) % hot_payload::SLOTS);
        let free: Vec<i16> = after_current.filter(is_empty).collect();
        let mut left = i64::try_from(free.len()).unwrap_or(i64::MAX);
        self.slots_free.set(left);
        let bytes = usize::try_from(current)
            .ok()
            .and_then(|slot| sizes.get(slot))
            .copied()
            .unwrap_or(0);
        let Some(next) = free.first().filter(|_| bytes > 0) else {
            return Ok(Done::default());
        };
        let at_least = if bytes >= self.settings.slot_bytes {
            Duration::ZERO
        } else {
            self.settings.slot_window
        };
        let now = context.clock.now();
        // The statement changes the slot only from `current`, so of two nodes only one rotates.
        let moved = installation::set_slot(&mut session, current, *next, at_least, now).await?;
        left -= i64::from(moved);
        self.slots_free.set(left);
        Ok(Done {
            count: u64::from(moved),
            more: false,
        })
    }

    fn stand_by(&mut self) {
        self.slots_free.set(i64::from(hot_payload::SLOTS));
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "hot_slots_free",
            "Hot slots that a rotation can move to",
            self.slots_free.clone(),
        );
    }
}

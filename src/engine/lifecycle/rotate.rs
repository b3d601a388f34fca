//! Moves the current hot slot on, so that old payloads come together in slots that can be truncated as a whole. Called by
//! the worker. Nothing waits for it: while no slot is free, publishes go on into the current one.

use std::time::Duration;

use crate::clock::Clock;
use crate::engine::duty::{Done, DutyError};
use crate::store::{Store, hot_payload, installation};

/// When to move on.
#[derive(Debug, Clone)]
pub struct RotateSettings {
    /// The current slot has this many bytes.
    pub slot_bytes: i64,
    /// It has been the current one for so long.
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

/// Moves on when it is time and a slot is free; returns that and how many slots are free.
///
/// # Errors
/// When the database does not answer.
pub async fn rotate(
    store: &Store,
    clock: &Clock,
    settings: &RotateSettings,
) -> Result<(Done, usize), DutyError> {
    let mut session = store.session().await?;
    let current = installation::get(&mut session)
        .await?
        .ok_or(DutyError::NotSetUp)?
        .hot_slot;
    let sizes = hot_payload::sizes(&mut session).await?;
    let is_empty =
        |slot: &i16| usize::try_from(*slot).is_ok_and(|slot| sizes.get(slot) == Some(&0));
    let after_current = (1..hot_payload::SLOTS).map(|step| (current + step) % hot_payload::SLOTS);
    let free: Vec<i16> = after_current.filter(is_empty).collect();
    let bytes = usize::try_from(current)
        .ok()
        .and_then(|slot| sizes.get(slot))
        .copied()
        .unwrap_or(0);
    let Some(next) = free.first().filter(|_| bytes > 0) else {
        return Ok((Done::default(), free.len()));
    };
    let at_least = if bytes >= settings.slot_bytes {
        Duration::ZERO
    } else {
        settings.slot_window
    };
    // Guarded by the old slot: of two nodes one moves it.
    let moved = installation::set_slot(&mut session, current, *next, at_least, clock.now()).await?;
    Ok((
        Done {
            count: u64::from(moved),
            more: false,
        },
        free.len() - usize::from(moved),
    ))
}

//! Messages that a driver has leased and not sent yet. While an endpoint answers fast, leases are taken for what it will
//! take within a moment, because a lease of many messages costs the database as much as a lease of one. Each message
//! has a time until which it may be sent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::engine::log::block::Delivery;
use crate::engine::push::flow::Flow;

/// What an endpoint takes within this time is leased ahead.
const AHEAD: Duration = Duration::from_millis(50);
/// Messages that are leased ahead at most.
const AHEAD_MAX: u32 = 1_000;

/// The messages.
#[derive(Debug, Default)]
pub(super) struct Ready {
    messages: VecDeque<(Delivery, Instant)>,
}

impl Ready {
    /// Adds messages that may be sent until then.
    pub(super) fn add(&mut self, deliveries: Vec<Delivery>, until: Instant) {
        let messages = deliveries.into_iter().map(|delivery| (delivery, until));
        self.messages.extend(messages);
    }

    /// Takes the messages of one request, and until when they may be sent; `None` when there are none.
    pub(super) fn next(&mut self, batch: u32) -> Option<(Vec<Delivery>, Instant)> {
        let (_, until) = self.messages.front()?;
        let (until, batch) = (*until, usize::try_from(batch).unwrap_or(1));
        let messages = self.messages.drain(..batch.min(self.messages.len()));
        Some((messages.map(|(delivery, _)| delivery).collect(), until))
    }

    /// Takes all.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Delivery> {
        std::mem::take(&mut self.messages)
            .into_iter()
            .map(|(delivery, _)| delivery)
    }

    /// Whether the first may not be sent any more.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        let first = self.messages.front();
        first.is_some_and(|(_, until)| *until <= now)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages to lease now, when there is room for `room` requests of `batch` messages; 0: there are enough.
    pub(super) fn wanted(&self, flow: &Flow, room: u32, batch: u32) -> u32 {
        let held = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        let ahead = ahead(flow).saturating_mul(batch).min(AHEAD_MAX);
        let now = room.saturating_mul(batch);
        if held >= now && held > ahead / 2 {
            return 0;
        }
        (now + ahead).saturating_sub(held)
    }
}

/// Requests that the endpoint takes within a moment (Little's law).
fn ahead(flow: &Flow) -> u32 {
    let Some(latency) = flow.latency().filter(|_| !flow.is_open()) else {
        return 0;
    };
    let requests = f64::from(flow.concurrency()) * AHEAD.as_secs_f64() / latency.max(0.000_1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to the maximum"
    )]
    let requests = requests.min(f64::from(AHEAD_MAX)) as u32;
    requests
}

//! The messages that the receivers of one service want. It shrinks as they are served.

use crate::engine::subscriber::{Group, Subscriber};

/// Messages handed out by one service at most.
const MESSAGES_MAX: u32 = 1_024;

/// The messages that receivers want.
#[derive(Debug, Clone)]
pub(super) struct Want {
    /// Messages that each receiver still wants, in order.
    pub(super) asks: Vec<u32>,
    /// The receivers.
    pub(super) group: Group,
}

impl Want {
    /// The wants of the first receivers that have the same visibility timeout; `None` when no receiver waits.
    pub(super) fn gather(subscriber: &Subscriber) -> Option<Self> {
        let mut asks = Vec::new();
        let group = subscriber.ask_group(|wanted| {
            asks.push(wanted);
            true
        })?;
        let mut want = Self { asks, group };
        want.limit(MESSAGES_MAX);
        Some(want)
    }

    /// Messages of all receivers together.
    pub(super) fn messages(&self) -> u32 {
        self.asks.iter().copied().fold(0, u32::saturating_add)
    }

    /// Subtracts `messages`, which the first receivers have got.
    pub(super) fn got(&mut self, mut messages: u32) {
        for ask in &mut self.asks {
            let served = messages.min(*ask);
            *ask -= served;
            messages -= served;
        }
    }

    /// Lowers it to `messages` in all, first come, first served.
    pub(super) fn limit(&mut self, mut messages: u32) {
        for ask in &mut self.asks {
            *ask = messages.min(*ask);
            messages -= *ask;
        }
    }
}

//! What the receivers that one service asks for want, and what of it they have got.

use crate::engine::subscriber::Subscriber;

/// Messages handed out by one service, as many as a turn claims.
const MESSAGES_MAX: u32 = 1_024;

/// What receivers want.
#[derive(Debug, Clone)]
pub(super) struct Want {
    /// Messages of each.
    pub(super) asks: Vec<u32>,
    /// Until when they are hidden from others.
    pub(super) visibility_seconds: u32,
}

impl Want {
    /// What the first receivers that agree on a visibility timeout want.
    pub(super) fn gather(subscriber: &Subscriber) -> Option<Self> {
        let mut asks = Vec::new();
        let visibility_seconds = subscriber.ask_alike(|wanted| asks.push(wanted))?;
        let mut want = Self {
            asks,
            visibility_seconds,
        };
        want.limit(MESSAGES_MAX);
        Some(want)
    }

    /// Messages in all.
    pub(super) fn messages(&self) -> u32 {
        self.asks.iter().copied().fold(0, u32::saturating_add)
    }

    /// The first receivers have got `messages`.
    pub(super) fn got(&mut self, mut messages: u32) {
        for ask in &mut self.asks {
            let served = messages.min(*ask);
            *ask -= served;
            messages -= served;
        }
    }

    /// No more than `messages`, first come, first served.
    pub(super) fn limit(&mut self, mut messages: u32) {
        for ask in &mut self.asks {
            *ask = messages.min(*ask);
            messages -= *ask;
        }
    }
}

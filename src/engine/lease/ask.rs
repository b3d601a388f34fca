//! The request of one receiver, with the defaults of its subscription filled in. Built by `receive` and `order`.

use std::time::Duration;

/// Messages, a visibility timeout and a wait.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Messages at most.
    pub wanted: u32,
    /// Visibility timeout in seconds.
    pub visibility_seconds: u32,
    /// How long to wait for the first message.
    pub wait: Duration,
}

impl Ask {
    /// `wanted` messages, without waiting.
    #[must_use]
    pub const fn at_once(wanted: u32, visibility_seconds: u32) -> Self {
        Self {
            wanted,
            visibility_seconds,
            wait: Duration::ZERO,
        }
    }
}

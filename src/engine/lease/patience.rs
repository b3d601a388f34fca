//! How long messages that have to be read are waited for. They must reach their receiver well within their visibility
//! timeout. `receive` asks when it reads what was leased, `order` when it reads ahead of the cursor.

use std::time::Duration;

use tokio::time::Instant;

/// While other messages can be handed out, those in object storage are waited for until then at most.
const SOON: Duration = Duration::from_secs(2);
/// Messages in object storage are waited for until then at most.
const LATE: Duration = Duration::from_secs(10);

/// How long a receiver waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until when messages are waited for while others can be handed out.
    pub soon: Instant,
    /// Until when they are waited for.
    pub late: Instant,
    /// Until when they may be handed out.
    pub visible: Instant,
}

impl Patience {
    /// For messages with this visibility timeout, of which the first were leased at `since`.
    #[must_use]
    pub fn of(visibility_seconds: u32, since: Instant) -> Self {
        // Messages that are due again at once are read nevertheless.
        let visibility = Duration::from_secs(u64::from(visibility_seconds.max(1)));
        Self {
            soon: since + SOON.min(visibility / 4),
            late: since + LATE.min(visibility / 2),
            visible: since + visibility,
        }
    }
}

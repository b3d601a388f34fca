//! The names of what a quota bounds, the same in metrics, headers and problems; and one violation of one of them.

use std::fmt;

/// What a quota bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Requests per second.
    Requests,
    /// Messages published per second.
    Messages,
    /// Bytes published per second.
    Bytes,
    /// Requests at the same time.
    ConcurrentRequests,
    /// Bytes kept.
    StoredBytes,
    /// Topics.
    Topics,
    /// Subscriptions.
    Subscriptions,
    /// Messages handed out and not settled.
    InFlight,
    /// What a month may cost.
    Budget,
}

impl Policy {
    /// As `violated-policies`, `RateLimit` and the metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::ConcurrentRequests => "concurrent-requests",
            Self::StoredBytes => "stored-bytes",
            Self::Topics => "topics",
            Self::Subscriptions => "subscriptions",
            Self::InFlight => "in-flight",
            Self::Budget => "budget",
        }
    }

    /// The quota unit of `RateLimit-Policy`.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            // While it is spent there is room for none.
            Self::Requests | Self::Budget => "requests",
            Self::Messages | Self::InFlight => "messages",
            Self::Bytes | Self::StoredBytes => "content-bytes",
            Self::ConcurrentRequests => "concurrent-requests",
            Self::Topics => "topics",
            Self::Subscriptions => "subscriptions",
        }
    }

    /// Whether it is so many in a second, rather than so many at a time.
    #[must_use]
    pub const fn is_rate(self) -> bool {
        match self {
            Self::Requests | Self::Messages | Self::Bytes => true,
            Self::ConcurrentRequests
            | Self::StoredBytes
            | Self::Topics
            | Self::Subscriptions
            | Self::InFlight
            | Self::Budget => false,
        }
    }

    /// What there are so many of.
    const fn what(self) -> &'static str {
        match self {
            Self::Requests => "requests a second",
            Self::Messages => "messages published a second",
            Self::Bytes => "bytes published a second",
            Self::ConcurrentRequests => "concurrent requests",
            Self::StoredBytes => "stored bytes",
            Self::Topics => "topics",
            Self::Subscriptions => "subscriptions",
            Self::InFlight => "messages in flight",
            Self::Budget => "publishes and receives",
        }
    }
}

/// A request that a policy stands against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub policy: Policy,
    /// Its quota.
    pub quota: u64,
    /// How many there are, where that is counted.
    pub used: Option<u64>,
    /// Seconds until trying again makes sense.
    pub again_seconds: u32,
}

impl Violation {
    /// The quota in words.
    #[must_use]
    pub fn amount(&self) -> String {
        format!("{} {}", self.quota, self.policy.what())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.policy == Policy::Budget {
            return f.write_str(
                "a budget of the tenant is spent: it may publish and receive again when the month ends, or the budget is raised",
            );
        }
        match self.used {
            Some(used) => write!(f, "the quota is {}, and {used} are in use", self.amount()),
            None => write!(f, "the quota is {}", self.amount()),
        }
    }
}

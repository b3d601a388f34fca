//! What can stand against a request: a bound of the node, a quota of the tenant, or a shortage of capacity. The error of the
//! engine carries one [`Limit`]; `quota` and the queues of the node make them, `http` writes them into headers. A leaf: it
//! uses no other module of the engine. Every limit names itself and its number (I9).

use std::fmt;

use api::limits::{GUESSES_MAX, QUEUED_PUBLISH_BYTES_MAX, WAITING_RECEIVERS_MAX};

/// Seconds until a bound of the node may have room again: a queue drains in a few turns.
const NODE_AGAIN_SECONDS: u32 = 1;

/// What a request is served from: what its tenant is guaranteed, or what happens to be free. The first is served first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capacity {
    /// Inside the guarantee, or without any limit.
    #[default]
    Guaranteed,
    /// Above the guarantee: served while there is room.
    Elastic,
}

/// What stood against a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of publishes that wait on the node for the next turn.
    QueuedPublishes,
    /// Transfers from and to object storage that wait on the node.
    QueuedTransfers,
    /// Receivers of one subscription that wait on the node.
    Receivers,
    /// Invalid keys from one address.
    Guesses,
    /// A quota of the tenant.
    Quota(Violation),
    /// The guarantee of the tenant, while the service is short of capacity.
    Guarantee(Violation),
}

impl Limit {
    /// What it allows.
    #[must_use]
    pub const fn terms(&self) -> Terms {
        let (name, unit, quota) = match self {
            Self::QueuedPublishes | Self::QueuedTransfers => {
                ("queue", "content-bytes", QUEUED_PUBLISH_BYTES_MAX as u64)
            }
            Self::Receivers => {
                let quota = WAITING_RECEIVERS_MAX as u64;
                ("receivers", "concurrent-requests", quota)
            }
            Self::Guesses => ("guesses", "requests", GUESSES_MAX as u64),
            Self::Quota(violation) | Self::Guarantee(violation) => {
                return violation.policy.terms(violation.quota);
            }
        };
        Terms {
            name,
            unit: Some(unit),
            quota,
            is_rate: false,
        }
    }

    /// Seconds until trying again makes sense.
    #[must_use]
    pub const fn again_seconds(&self) -> u32 {
        match self {
            Self::QueuedPublishes | Self::QueuedTransfers | Self::Receivers | Self::Guesses => {
                NODE_AGAIN_SECONDS
            }
            Self::Quota(violation) | Self::Guarantee(violation) => violation.again_seconds,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueuedPublishes => {
                let mib = QUEUED_PUBLISH_BYTES_MAX >> 20;
                write!(f, "{mib} MiB of publishes wait on this node already")
            }
            Self::QueuedTransfers => {
                f.write_str("too many transfers from and to object storage wait on this node")
            }
            Self::Receivers => write!(
                f,
                "{WAITING_RECEIVERS_MAX} receivers of this subscription wait on this node already"
            ),
            Self::Guesses => f.write_str(
                "too many invalid keys came from this address; a key that this node does not know yet has to wait",
            ),
            Self::Quota(violation) => violation.fmt(f),
            Self::Guarantee(violation) => write!(
                f,
                "the service is short of capacity and serves first what is guaranteed: {}",
                violation.amount()
            ),
        }
    }
}

/// What a limit allows, in the words of `RateLimit-Policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The name of the limit, as `violated-policies` and `RateLimit` have it, too.
    pub name: &'static str,
    /// What is counted; requests when there is no unit.
    pub unit: Option<&'static str>,
    /// How many units.
    pub quota: u64,
    /// Whether the quota is for each second.
    pub is_rate: bool,
}

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
    /// The rates of a quota, in the order of [`api::quota::Quota::rates`].
    pub const RATES: [Self; 3] = [Self::Requests, Self::Messages, Self::Bytes];

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

    /// What a quota of this policy allows.
    #[must_use]
    pub const fn terms(self, quota: u64) -> Terms {
        Terms {
            name: self.name(),
            unit: self.unit(),
            quota,
            is_rate: self.is_rate(),
        }
    }

    const fn unit(self) -> Option<&'static str> {
        match self {
            Self::Requests => None,
            // While it is spent there is room for none.
            Self::Budget => Some("requests"),
            Self::Messages | Self::InFlight => Some("messages"),
            Self::Bytes | Self::StoredBytes => Some("content-bytes"),
            Self::ConcurrentRequests => Some("concurrent-requests"),
            Self::Topics => Some("topics"),
            Self::Subscriptions => Some("subscriptions"),
        }
    }

    /// Whether the quota is a number a second, rather than a number at one time.
    const fn is_rate(self) -> bool {
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

    /// What the quota counts, in words.
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

/// A quota that a request would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// What the quota bounds.
    pub policy: Policy,
    /// The quota.
    pub quota: u64,
    /// How many are in use, where that is counted.
    pub used: Option<u64>,
    /// Seconds until trying again makes sense.
    pub again_seconds: u32,
}

impl Violation {
    /// The quota in words.
    fn amount(&self) -> String {
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

//! The limits that can refuse a request: a bound of the node, a quota of the tenant, or a shortage of capacity. The
//! error of the engine carries one [`Limit`]. `quota` and the queues of the node make them, and `http` writes them into
//! headers. Every limit has a name and a number (I9). This file is a leaf: it uses no other module of the engine.

use std::fmt;

use api::limits::{
    GUESSES_MAX, HELD_BODIES_BYTES_MAX, QUEUED_PUBLISH_BYTES_MAX, WAITING_RECEIVERS_MAX,
};

/// Seconds until a bound of the node may have room again: a queue drains in a few turns.
const NODE_AGAIN_SECONDS: u32 = 1;

/// Whether a request is inside its tenant's guarantee. When capacity is short, guaranteed requests are served first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capacity {
    /// Inside the guarantee, or without any limit.
    #[default]
    Guaranteed,
    /// Above the guarantee: served only while capacity is free.
    Elastic,
}

/// A limit that refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of the bodies that the node holds, or the tenant's share of them.
    HeldBodies,
    /// Bytes of publishes that wait on the node for the next turn.
    QueuedPublishes,
    /// Transfers from and to object storage that wait on the node.
    QueuedTransfers,
    /// Receivers of one subscription that wait on the node.
    Receivers,
    /// Connections to the node, and how many it serves at the same time.
    Connections(u32),
    /// Invalid keys from one address.
    Guesses,
    /// A quota of the tenant.
    Quota(Violation),
    /// The guarantee of the tenant, while the service is short of capacity.
    Guarantee(Violation),
}

impl Limit {
    /// The name of the limit and what it allows.
    #[must_use]
    pub const fn terms(&self) -> Terms {
        let (name, unit, quota) = match self {
            Self::HeldBodies => ("bodies", "content-bytes", HELD_BODIES_BYTES_MAX as u64),
            Self::QueuedPublishes | Self::QueuedTransfers => {
                ("queue", "content-bytes", QUEUED_PUBLISH_BYTES_MAX as u64)
            }
            Self::Receivers => {
                let quota = WAITING_RECEIVERS_MAX as u64;
                ("receivers", "concurrent-requests", quota)
            }
            Self::Connections(limit) => ("connections", "connections", *limit as u64),
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

    /// Seconds after which a retry can succeed.
    #[must_use]
    pub const fn again_seconds(&self) -> u32 {
        match self {
            Self::HeldBodies
            | Self::QueuedPublishes
            | Self::QueuedTransfers
            | Self::Receivers
            | Self::Connections(_)
            | Self::Guesses => NODE_AGAIN_SECONDS,
            Self::Quota(violation) | Self::Guarantee(violation) => violation.again_seconds,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeldBodies => {
                let mib = HELD_BODIES_BYTES_MAX >> 20;
                write!(
                    f,
                    "the bodies of requests in progress fill the {mib} MiB of this node, or the tenant's share of them"
                )
            }
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
            Self::Connections(limit) => write!(
                f,
                "this node serves {limit} connections, and all are in use (--max-connections, and the limit of open files)"
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

/// What a limit allows, with the parameters of the header `RateLimit-Policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The name of the limit, which `violated-policies` and the header `RateLimit` use as well.
    pub name: &'static str,
    /// What is counted; `None` means requests.
    pub unit: Option<&'static str>,
    /// The number of units allowed.
    pub quota: u64,
    /// Whether the number is per second.
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

    /// Its name in `violated-policies`, in the header `RateLimit` and in metrics.
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
            // A spent budget allows no requests: its quota is zero.
            Self::Budget => Some("requests"),
            Self::Messages | Self::InFlight => Some("messages"),
            Self::Bytes | Self::StoredBytes => Some("content-bytes"),
            Self::ConcurrentRequests => Some("concurrent-requests"),
            Self::Topics => Some("topics"),
            Self::Subscriptions => Some("subscriptions"),
        }
    }

    /// Whether the quota is a number per second, and not a number at one time.
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

    /// What the quota counts, for error texts.
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
    /// Number in use; `None` for rates and for other quotas that report no count.
    pub used: Option<u64>,
    /// Seconds after which a retry can succeed.
    pub again_seconds: u32,
}

impl Violation {
    /// The quota as a number and what it counts.
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

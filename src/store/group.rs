//! The two groups of tables. *Home* holds what is small and shared: tenants, keys, topics, subscriptions, quotas,
//! prices, usage, nodes, events. *Lane* holds the log and its delivery; its keys begin with a lane. No statement names
//! tables of both groups (a test reads all statements), so that lanes can move to servers of their own. A transaction
//! that runs statements of both groups must be listed here, with the reason why it may be repeated. An unlisted one
//! panics in a debug build.

/// The group of a table. A statement names tables of one group only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Small and shared by all lanes.
    Home,
    /// Stored by lane.
    Lane,
}

use Group::{Home, Lane};

/// Every table. The rings `hot_payload_0` to `hot_payload_7` and `dedup_0` to `dedup_5` count as one each.
#[rustfmt::skip]
pub const TABLES: [(&str, Group); 41] = [
    ("api_key", Home), ("audit", Home), ("block", Lane), ("budget", Home), ("budget_alert", Home), ("capacity_meter", Home),
    ("cursor", Lane), ("dedup", Lane), ("duty", Home), ("event_outbox", Home), ("event_sink", Home), ("fairness", Lane),
    ("hot_payload", Lane), ("installation", Home), ("issuer", Home), ("lane", Lane), ("lane_meter", Lane),
    ("last_attempt", Lane), ("lease", Lane), ("lost_lease", Lane), ("metering", Home), ("migration", Home), ("node", Home),
    ("object", Home), ("price", Home), ("price_plan", Home), ("price_version", Home), ("push_attempt", Lane),
    ("push_endpoint", Home), ("quota", Home), ("quota_demand", Home), ("signing_key", Home), ("subscription", Home),
    ("tenant", Home),
    ("tenant_meter", Home), ("tenant_plan", Home), ("topic", Home), ("usage_day", Home), ("usage_flush", Home),
    ("usage_hour", Home), ("usage_minute", Home),
];

/// Files of `store` that cover several tables or a part of one. Their statements begin with the name of the file.
#[rustfmt::skip]
pub const FILES: [(&str, Group); 10] = [
    ("event_relay", Home), ("history", Home), ("lease_resend", Lane), ("lease_waiting", Lane), ("migrate", Home), ("push_driver", Home), ("retention", Lane), ("turn", Lane), ("usage", Home), ("usage_read", Home),
];

/// Transactions that run statements of both groups, and why each is safe to repeat. While all tables are on one server,
/// each of them commits or rolls back as a whole.
pub const CROSSING: [(&str, &str); 13] = [
    (
        "clear",
        "counts from metered_offset and deletes below it; both move with the blocks, so a repeat begins where they are",
    ),
    (
        "delete_event_sink",
        "deletes by key, and closes lanes; a repeat does what is left",
    ),
    (
        "delete_subscription",
        "deletes by key; a repeat deletes what is left",
    ),
    (
        "delete_topic",
        "a lane closed twice is closed, and a topic whose lanes are closed takes no publish",
    ),
    (
        "expire",
        "counts from metered_offset and deletes below it; both move with the blocks, so a repeat begins where they are",
    ),
    (
        "meter",
        "counts from metered_offset, which moves with what was counted",
    ),
    (
        "offload",
        "an object is finished once; finished without its blocks it is garbage, which the collection finds",
    ),
    (
        "put_event_sink",
        "a sink that has its subscription gets no other; one that is taken away goes by key",
    ),
    (
        "put_quota",
        "only reads the lanes: how much a tenant stores, as of a moment ago",
    ),
    (
        "put_subscription",
        "finds a subscription of this name that was committed, and then begins no cursors",
    ),
    (
        "put_topic",
        "finds a topic of this name that was committed, and then adds no lane",
    ),
    (
        "push_event_sink",
        "a sink that has its subscription gets no other",
    ),
    (
        "resend",
        "messages that a repeat finds in leases stay there, so none is handed out twice; the audit log is written last",
    ),
];

/// The group of a statement by its name, `table.verb` or `file.verb`; `None` if it names no table of a group.
#[must_use]
pub fn of(statement: &str) -> Option<Group> {
    let (file, _) = statement.split_once('.')?;
    let mut known = TABLES.iter().chain(&FILES);
    known.find(|(name, _)| *name == file).map(|(_, of)| *of)
}

/// The group of the statements that a transaction has run so far.
#[derive(Debug)]
pub(super) struct Touched {
    transaction: Option<&'static str>,
    group: Option<Group>,
}

impl Touched {
    pub(super) fn new(transaction: Option<&'static str>) -> Self {
        Self {
            transaction,
            group: None,
        }
    }

    /// Whether the transaction may run this statement after the earlier ones; `true` outside of a transaction.
    pub(super) fn may_run(&mut self, statement: &str) -> bool {
        let Some(transaction) = self.transaction else {
            return true;
        };
        let Some(group) = of(statement) else {
            return true;
        };
        let before = *self.group.get_or_insert(group);
        before == group || CROSSING.iter().any(|(name, _)| *name == transaction)
    }
}

//! All SQL. Each file covers one table, and its statements are named after the file; no other module sends statements.
//! `turn`, `retention`, `hot_payload`, `usage`, `usage_read`, `history`, `lease_waiting` and `event_relay` cover several
//! tables, or a part of one. A function runs one statement, whose name is its first line and its label in the metrics. Only the engine
//! opens transactions. `group` assigns each table to the home group or the lane group; no statement names tables of both.
//! `ids` holds the types of ids and offsets. `hosts` reads where the database is, `connect` makes connections with
//! `settings`, `history` notices when the database has lost something, `pool` shares connections, `session` and `run` run
//! statements on them, and `trouble` says why one cannot.

mod connect;
mod error;
mod history;
mod hosts;
mod ids;
mod pool;
mod settings;
mod trouble;

pub mod api_key;
pub mod audit;
pub mod block;
pub mod budget;
pub mod budget_alert;
pub mod capacity_meter;
pub mod cursor;
pub mod dedup;
pub mod duty;
pub mod event_outbox;
pub mod event_relay;
pub mod event_sink;
pub mod fairness;
pub mod group;
pub mod hot_payload;
pub mod installation;
pub mod issuer;
pub mod lane;
pub mod lane_meter;
pub mod last_attempt;
pub mod lease;
pub mod lease_resend;
pub mod lease_waiting;
pub mod lost_lease;
pub mod migrate;
pub mod node;
pub mod object;
pub mod price;
pub mod price_plan;
pub mod price_version;
pub mod push_attempt;
pub mod push_driver;
pub mod push_endpoint;
pub mod quota;
pub mod quota_demand;
pub mod retention;
mod run;
pub mod session;
pub mod signing_key;
pub mod subscription;
pub mod tenant;
pub mod tenant_meter;
pub mod tenant_plan;
pub mod topic;
pub mod turn;
mod turn_output;
pub mod usage;
pub mod usage_read;

pub use error::{Error, Unreachable};
pub use hosts::{Hosts, UrlError};
pub use ids::{CursorKey, Era, LaneId, LeaseId, Offset, SubscriptionId, TenantId, TopicId};
pub use session::{Metrics, Session, Store};
pub use trouble::Trouble;

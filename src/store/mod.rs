//! All SQL, one table a file; nothing else speaks to the database. A function is one statement, named in its first line
//! and counted under that name. Transactions are opened by the engine only.

mod error;
mod session;

pub mod api_key;
pub mod audit;
pub mod block;
pub mod budget;
pub mod capacity_meter;
pub mod cursor;
pub mod dedup;
pub mod event_outbox;
pub mod event_sink;
pub mod fairness;
pub mod hot_payload;
pub mod installation;
pub mod issuer;
pub mod lane;
pub mod lane_meter;
pub mod lease;
pub mod migrate;
pub mod node;
pub mod object;
pub mod price;
pub mod quota;
pub mod quota_demand;
pub mod retention;
pub mod subscription;
pub mod tenant;
pub mod tenant_plan;
pub mod topic;
pub mod turn;
pub mod usage;
pub mod usage_list;
pub mod usage_window;
pub mod waiting;

pub use error::Error;
pub use session::{Metrics, Session, Store};

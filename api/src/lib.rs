//! The contract of Cursus: wire types, names that validate when parsed, every limit, and the closed list of errors.
//!
//! Everything else depends on this crate and it depends on nothing of ours: no axum, no sqlx, no tokio (DESIGN §6).

pub mod borrow;
pub mod error;
pub mod id;
pub mod limits;
pub mod list;
pub mod message;
pub mod name;
pub mod object;
pub mod quota;
pub mod service;
pub mod settle;
pub mod subscription;
pub mod timestamp;
pub mod topic;
mod whole;

pub use error::{ErrorCode, FieldError, Problem};
pub use id::MessageId;
pub use name::{SubscriptionName, TopicName};
pub use timestamp::Timestamp;

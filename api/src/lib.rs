//! The contract of Cursus: wire types, names that validate when parsed, every limit, and the closed list of errors.
//!
//! Everything else depends on this crate and it depends on nothing of ours: no axum, no sqlx, no tokio (DESIGN §6).

pub mod audit;
pub mod bill;
pub mod borrow;
pub mod budget;
pub mod day;
pub mod decimal;
pub mod error;
pub mod event;
pub mod fairness;
pub mod id;
pub mod issuer;
pub mod key;
pub mod limits;
pub mod list;
pub mod message;
pub mod name;
pub mod node;
pub mod object;
pub mod price;
pub mod quota;
pub mod scope;
pub mod service;
pub mod settle;
pub mod subscription;
pub mod tenant;
pub mod timestamp;
pub mod topic;
pub mod usage;
pub mod validate;
mod whole;

pub use day::{Day, Month};
pub use decimal::Decimal;
pub use error::{ErrorCode, FieldError, Problem};
pub use id::MessageId;
pub use key::KeyId;
pub use name::{
    BudgetName, EventSinkName, IssuerName, PlanName, SubscriptionName, TenantName, TopicName,
};
pub use scope::{Permission, Scope};
pub use timestamp::Timestamp;
pub use validate::Validate;

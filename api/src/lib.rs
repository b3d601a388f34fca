//! The contract of Cursus: wire types, validated names, limits and error codes. The server uses it, and a client written in
//! Rust can. The crate uses no other part of Cursus, and no HTTP server, database client or async runtime.
//!
//! The laws that every type here follows, and that a new one must follow:
//!
//! - **Names** in URLs and settings match `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`. They are checked when parsed ([`name`]),
//!   so a value of a name type is always valid. JSON fields are `snake_case`; a quantity ends in its unit (`_seconds`,
//!   `_bytes`).
//! - **Limits** stand in [`limits`] alone. A request type has a `validate` method that returns one [`FieldError`] per
//!   field out of range; the error states the limit.
//! - **Errors** are problem documents (RFC 9457, [`Problem`]) with a code of a closed list ([`ErrorCode`]). They never
//!   contain an internal error text.
//! - **Times** are RFC 3339 in UTC with milliseconds ([`Timestamp`]); calendar days and months are [`Day`] and
//!   [`Month`].
//! - **Ids** ([`MessageId`], [`KeyId`], receipts) are opaque strings.
//! - **Money and quantities** with fractions are decimal strings ([`Decimal`]), never floats.
//! - **Lists** are `{"items":[…],"next":"…"}` ([`list`]): `next` is passed as `after` to get the next page and is
//!   absent on the last one. There are no page numbers.
//! - **Batches** return one result per item, in order. An item that fails does not affect the others.
//! - **Requests are strict**: an unknown field, a duplicate name in a map and a list in place of an object are refused.
//! - **Optional fields** of a request may be null, which means absent. Those of a response are left out instead of null,
//!   apart from the ones documented as nullable.
//!
//! Known quirks, not to be copied:
//!
//! - A PUT of a topic, subscription or tenant keeps the value of an absent field. A PUT of an event sink, budget,
//!   quota, issuer or plan version replaces all settings.
//! - A setting is removed in two ways: `dead_letter_topic` and `plan` by the empty string, `fairness` by `enabled: false`.
//! - `per` and `size` of a price are whole numbers written as strings; all other whole numbers are JSON numbers.
//! - Options of a raw publish are headers (`Cursus-Tag`), the same options in a batch are fields (`tag`).
//! - A list of budgets has the shape of a page but always fits in one.

pub mod audit;
pub mod bill;
pub mod borrow;
pub mod budget;
pub mod day;
pub mod decimal;
pub mod error;
pub mod event;
pub mod fairness;
mod field;
pub mod id;
pub mod issuer;
pub mod jwks;
pub mod key;
pub mod limits;
pub mod list;
pub mod message;
pub mod name;
pub mod node;
pub mod object;
pub mod price;
pub mod push;
pub mod quota;
pub mod resend;
pub mod scope;
pub mod service;
pub mod settle;
pub mod subscription;
pub mod tenant;
mod text;
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

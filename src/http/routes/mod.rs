//! The handlers, one file per resource. A handler has typed extractors of `request`, makes one call of the engine and
//! returns an `answer`. Its `#[utoipa::path]` is its entry in the OpenAPI document. `http/mod.rs` adds it to the
//! router.

pub(in crate::http) mod audit;
pub(in crate::http) mod bills;
pub(in crate::http) mod budgets;
pub(in crate::http) mod event_sinks;
pub(in crate::http) mod issuers;
pub(in crate::http) mod keys;
pub(in crate::http) mod messages;
pub(in crate::http) mod nodes;
pub(in crate::http) mod plans;
pub(in crate::http) mod publish;
pub(in crate::http) mod push;
pub(in crate::http) mod quota;
pub(in crate::http) mod receive;
pub(in crate::http) mod service;
pub(in crate::http) mod settle;
pub(in crate::http) mod subscriptions;
pub(in crate::http) mod tenants;
pub(in crate::http) mod topics;
pub(in crate::http) mod usage;

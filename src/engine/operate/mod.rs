//! The actions of an operator of the service: on tenants, API keys, issuers of tokens, and quotas. Each change is one
//! transaction that checks the caller's scope, writes the row and records the change in the audit log. If nodes keep
//! the row in memory, it also raises the version by which they notice the change (`fleet::watch`). Prices are in
//! `bill`, which computes with them.

mod audit_log;
mod issuers;
pub mod keys;
pub mod quotas;
pub mod tenants;

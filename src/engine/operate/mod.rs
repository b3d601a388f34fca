//! What an operator of the service does: tenants, API keys, issuers of tokens, and quotas. Each change is one transaction
//! that checks the caller's scope, writes the row, records the change in the audit log and, where nodes keep the row in
//! memory, bumps the version by which they notice the change (`watch`). Prices are in `bill`, which knows what they mean.

mod audit_log;
mod issuers;
pub mod keys;
pub mod quotas;
pub mod tenants;

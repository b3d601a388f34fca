//! What an operator of the service does: tenants, keys, issuers and quotas.

mod audit_log;
mod issuers;
pub mod keys;
pub mod quotas;
pub mod tenants;

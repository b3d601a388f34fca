//! Callers and what they may do: keys, tokens of issuers, scopes, tenants, and the log of changes.

mod callers;
mod keys;
mod tokens;

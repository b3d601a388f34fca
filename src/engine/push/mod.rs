//! Push: the service itself delivers the messages of a subscription to an HTTP endpoint, from the same leases, attempts
//! and dead letters as receive.
//!
//! `settings` changes endpoints, `consent` asks them, `endpoint` is one that is ready for use, `request` makes requests of messages, `sign`
//! signs them, with the `key` of the tenant, too, whose public half is in its `key_set`.

mod consent;
mod endpoint;
pub mod key;
mod key_set;
pub mod request;
pub mod settings;
pub mod sign;

pub use endpoint::Endpoint;

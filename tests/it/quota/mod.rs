//! Rates, concurrent requests and caps of a tenant, on one node and over a fleet.

mod caps;
mod fleet;
pub(crate) mod rates;

//! Receiving and settling: the life of a message over HTTP, the plans of leases, and browsing.

mod browse;
mod long_poll;
mod messages;
mod model;
mod plan;
mod races;
mod settle;

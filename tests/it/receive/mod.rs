//! Receiving and settling: the life of a message as its receivers see it, the plans of leases, and browsing.

mod browse;
mod long_poll;
mod messages;
mod model;
mod plan;
mod races;
mod settle;

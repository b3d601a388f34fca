//! Receiving and settling: the life of a message over HTTP, changes of leases by the turn, and browsing.

mod browse;
mod dead_letters;
mod full;
mod long_poll;
mod mask_events;
mod masks;
mod messages;
mod model;
mod races;
mod repeats;
mod resend;
mod settle;

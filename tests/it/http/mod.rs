//! What holds on every route, and the resources of the API: manners, limits, probes, topics, subscriptions.

mod limits;
mod resources;
mod service;

//! The integration tests, one binary: real object storage, real faults. `harness` starts the parts; every other module
//! is one subject. What they need beside Rust is installed by `.ci/parts`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics, in its helpers too"
)]

mod access;
mod blob;
mod browse;
mod budget;
mod capacity;
mod collect;
mod control;
mod crash;
mod dedup;
mod embedded;
mod event_sinks;
mod event_usage;
mod events;
mod fairness;
mod fairness_life;
mod fairness_line;
mod fleet;
mod focus;
mod guarantee;
mod harness;
mod keys;
mod large;
mod lifecycle;
mod limits;
mod long_poll;
mod messages;
mod meter;
mod migrations;
mod model;
mod nodes;
mod offload;
mod openapi;
mod plan;
mod price;
mod quota;
mod quota_caps;
mod quota_fleet;
mod races;
mod reads;
mod retention;
mod schema;
mod service;
mod settle;
mod slots;
mod store;
mod tenant_plan;
mod tidy;
mod tokens;
mod traces;
mod turn;
mod usage;
mod usage_time;
mod worker;

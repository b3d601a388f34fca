//! The integration tests, one binary: real object storage, real faults. `harness` starts the parts; every other folder
//! is one room of the service and has its words. What they need apart from Rust is installed by `.ci/parts`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics, in its helpers too"
)]

mod access;
mod bill;
mod cli;
mod events;
mod fleet;
mod harness;
mod http;
mod lifecycle;
mod meter;
mod order;
mod publish;
mod push;
mod quota;
mod receive;
mod schema;

//! The integration tests, one binary: real object storage, real faults. `harness` starts the parts; every other module
//! is one subject. What they need beside Rust is installed by `.ci/parts`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics, in its helpers too"
)]

mod blob;
mod collect;
mod harness;
mod offload;
mod retention;
mod slots;
mod worker;

//! The integration tests, one binary: real object storage, real faults. `harness` starts the parts; every other module
//! is one subject. What they need beside Rust is installed by `.ci/parts`.

mod blob;
mod harness;

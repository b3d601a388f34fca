//! Cursus: a serverless HTTP messaging service.

pub mod app;
pub mod blob;
pub mod clock;
pub mod config;
pub mod embedded;
pub mod engine;
pub mod http;
pub mod listen;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod worker;

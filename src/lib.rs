//! Cursus: a serverless HTTP messaging service.

pub mod app;
pub mod blob;
pub mod clock;
pub mod config;
pub mod embedded;
<<<<<<< HEAD
pub mod engine;
pub mod shutdown;
pub mod store;
=======
pub mod listen;
pub mod shutdown;
pub mod telemetry;
>>>>>>> h1

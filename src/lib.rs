//! Cursus: a serverless HTTP messaging service.

pub mod blob;
pub mod clock;
pub mod config;
pub mod embedded;
pub mod shutdown;

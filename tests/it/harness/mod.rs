//! What the tests stand on: servers they start, faults they inject, folders they throw away. Every part ends with the
//! value that holds it, also when the test panics.

pub(crate) mod invariants;
pub(crate) mod issuer;
pub(crate) mod log;
pub(crate) mod node;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod scratch;
pub(crate) mod seaweed;

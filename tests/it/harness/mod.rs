//! What the tests stand on: servers they start, faults they inject, folders they throw away. Every part ends with the
//! value that holds it, also when the test panics.

pub(crate) mod authority;
pub(crate) mod backup;
pub(crate) mod behaviour;
mod client;
pub(crate) mod endpoint;
mod fleet;
pub(crate) mod installation;
pub(crate) mod invariants;
pub(crate) mod issuer;
pub(crate) mod log;
mod node;
pub(crate) mod pooler;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod property;
pub(crate) mod proxy;
pub(crate) mod replica;
pub(crate) mod scratch;
pub(crate) mod seaweed;
mod wait;
mod wire;

pub(crate) use client::{client, send};
pub(crate) use fleet::Fleet;
pub(crate) use node::Node;
pub(crate) use wait::until;
pub(crate) use wire::{all, code, is, refusal, text};

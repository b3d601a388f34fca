//! What the background duties have in common: how much a run did, and why it failed. The duties are `rotate`, `offload`,
//! `expire`, `collect`, `meter`, `roll_up`, `spend` and `events`, a file or folder each; `worker` runs them, one node of the
//! fleet at a time. Each is safe to run twice and on two nodes at once: that only one does is economy, never correctness.

use crate::engine::error;
use crate::{blob, store};

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Things moved or deleted.
    pub count: u64,
    /// There is more to do at once.
    pub more: bool,
}

/// Why a run ended early. What it did until then holds, and the next run goes on.
#[derive(Debug, thiserror::Error)]
pub enum DutyError {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Object storage.
    #[error(transparent)]
    Blob(#[from] blob::Error),
    /// A rule of the engine, or what it reads; said where it was found.
    #[error(transparent)]
    Engine(#[from] error::Error),
    /// The installation has no row: no node has started yet.
    #[error("the installation is not set up")]
    NotSetUp,
}

//! Requests with an `Idempotency-Key` that are running on this node: a second one with the same key is refused at once
//! instead of holding a connection while it waits for the first.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::engine::error::Error;

/// Requests with an `Idempotency-Key` that are running on this node.
#[derive(Debug, Default, Clone)]
pub struct Running {
    keys: Arc<Mutex<HashSet<Uuid>>>,
}

/// Marks a key as running until the request drops it.
#[derive(Debug)]
pub struct RunningKey {
    running: Running,
    key: Uuid,
}

impl Running {
    pub(super) fn begin(&self, key: Uuid) -> Result<RunningKey, Error> {
        if !self.keys.lock().insert(key) {
            return Err(Error::KeyInUse);
        }
        Ok(RunningKey {
            running: self.clone(),
            key,
        })
    }
}

impl Drop for RunningKey {
    fn drop(&mut self) {
        self.running.keys.lock().remove(&self.key);
    }
}

//! Requests with an `Idempotency-Key` that are running on this node: a second one with the same key is refused at once
//! instead of holding a connection while it waits for the first.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::engine::error::Error;
use crate::store::TopicId;
use crate::store::dedup::{NewKey, Scope};

/// Requests with an `Idempotency-Key` that are running on this node.
#[derive(Debug, Default, Clone)]
pub struct Running {
    keys: Arc<Mutex<HashSet<(TopicId, Scope, String)>>>,
}

/// Marks a key as running until the request drops it.
#[derive(Debug)]
pub struct RunningKey {
    running: Running,
    key: (TopicId, Scope, String),
}

impl Running {
    pub(super) fn begin(&self, topic: TopicId, key: &NewKey) -> Result<RunningKey, Error> {
        let key = (topic, key.scope, key.key.clone());
        if !self.keys.lock().insert(key.clone()) {
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

//! Lanes that another transaction holds for longer than a turn waits for a lock, as one of a node that has stopped in the
//! middle does. Their publishes wait here and not in the turns, so that no other lane waits with them. A task of its own
//! looks which of these lanes are free again, and puts their publishes in front of the next turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::limits::QUEUED_PUBLISH_BYTES_MAX;
use foldhash::HashMap;

use crate::engine::error::Error;
use crate::engine::inbox::Inbox;
use crate::engine::limit::Limit;
use crate::engine::turn::assemble::Pending;
use crate::engine::turn::gather::{Publish, Queue};
use crate::engine::turn::{Turns, hand_out};
use crate::store::turn::TurnInput;
use crate::store::{self, LaneId};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// A look that takes longer is given up; another connection may do better.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// The stuck lanes of one loop.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    held: Inbox<Held>,
    /// Whether there are any, so that publishes need not look.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Held {
    lanes: HashMap<LaneId, Vec<Publish>>,
    bytes: usize,
}

impl Stuck {
    /// Makes the publishes to these lanes wait here from now on.
    pub(super) fn add(&self, lanes: &[LaneId]) {
        self.held.put(|held| {
            for lane in lanes {
                held.lanes.entry(*lane).or_default();
            }
            self.any.store(!held.lanes.is_empty(), Ordering::Release);
        });
    }

    /// Takes a publish if its lane is stuck; otherwise it is returned.
    pub(super) fn hold(&self, publish: Publish) -> Option<Publish> {
        if !self.any.load(Ordering::Acquire) {
            return Some(publish);
        }
        self.held.with(|held| {
            let Some(waiting) = held.lanes.get_mut(&publish.lane) else {
                return Some(publish);
            };
            let bytes = publish.content.queued_bytes();
            if held.bytes + bytes > QUEUED_PUBLISH_BYTES_MAX {
                let _ = publish
                    .reply
                    .send(Err(Error::Limited(Limit::QueuedPublishes)));
            } else {
                held.bytes += bytes;
                waiting.push(publish);
            }
            None
        })
    }

    /// Takes the publishes of a lane that is free again.
    fn free(&self, lane: LaneId) -> Vec<Publish> {
        self.held.with(|held| {
            let freed = held.lanes.remove(&lane).unwrap_or_default();
            self.any.store(!held.lanes.is_empty(), Ordering::Release);
            let bytes: usize = freed.iter().map(|one| one.content.queued_bytes()).sum();
            held.bytes -= bytes;
            freed
        })
    }

    /// Waits until there are stuck lanes.
    async fn lanes(&self) -> Vec<LaneId> {
        let all = |held: &mut Held| {
            let lanes: Vec<LaneId> = held.lanes.keys().copied().collect();
            (!lanes.is_empty()).then_some(lanes)
        };
        self.held.take(all).await
    }
}

/// Goes on after a turn that another transaction has held up: publishes to the lanes that it holds wait aside. If it holds
/// none, it holds leases, and the requests that settle fail if it does so for several turns.
pub(super) async fn step_aside(
    turns: &Turns,
    queue: &Queue,
    pending: Pending,
    input: &TurnInput,
    error: store::Error,
) {
    let lanes: Vec<LaneId> = input.blocks.iter().map(|block| block.lane).collect();
    match turns.stuck(&lanes).await {
        Ok(stuck) if !stuck.is_empty() => {
            tracing::warn!(
                lanes = stuck.len(),
                "other transactions hold lanes for long"
            );
            queue.stuck.add(&stuck);
            hand_out::put_back(queue, pending, None);
        }
        Ok(_) if input.changes.is_empty() => hand_out::put_back(queue, pending, None),
        Ok(_) => hand_out::put_back(queue, pending, Some(&error.into())),
        Err(error) => hand_out::fail(queue, pending, &error.into()),
    }
}

impl Turns {
    /// Which of these lanes another transaction holds now.
    pub(super) async fn stuck(&self, lanes: &[LaneId]) -> Result<Vec<LaneId>, store::Error> {
        let look = async {
            let mut session = self.store.session().await?;
            store::lane::held(&mut session, lanes).await
        };
        let stuck = tokio::time::timeout(LOOK_WITHIN, look).await;
        stuck.unwrap_or_else(|_| Err(store::Error::timed_out()))
    }

    /// Frees the stuck lanes of a loop, one look after the other. Publishes whose clients have gone are dropped.
    pub(super) async fn free_stuck(&self, queue: &Queue) {
        loop {
            let lanes = queue.stuck.lanes().await;
            if let Ok(stuck) = self.stuck(&lanes).await {
                for lane in lanes.into_iter().filter(|lane| !stuck.contains(lane)) {
                    let mut freed = queue.stuck.free(lane);
                    freed.retain(|publish| !publish.reply.is_closed());
                    queue.put_back(freed, Vec::new());
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

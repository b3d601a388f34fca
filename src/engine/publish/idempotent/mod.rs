//! Publishes with keys, which take effect once within the topic's window: `Idempotency-Key` of a request and `dedup_id`
//! of a message. The turn looks the keys up and stores them with the messages (`store/turn.sql`), so a crash leaves
//! neither key nor message. When a key was used before, the turn stores nothing and reports it. Then the request returns
//! the stored results, or publishes its other messages. All publishes of a topic with keys go to its first lane, whose
//! lock decides which of two comes first.

mod fingerprint;
mod key;
mod plan;
mod running;
mod stored;

use std::collections::HashMap;

use api::message::Published;
use uuid::Uuid;

use crate::engine::Engine;
use crate::engine::catalog::TopicEntry;
use crate::engine::error::Error;
use crate::engine::limit::Capacity;
use crate::engine::log::block::message_id;
use crate::engine::log::upload::Uploaded;
use crate::engine::meter::Metered;
use crate::engine::publish::Commit;
use crate::engine::publish::draft::{Draft, Drafts, IdempotencyKey};
use crate::engine::turn::{Content, Placed};
use crate::store::dedup::{KnownKey, NewKey};
use crate::store::{Era, LaneId, Offset};

use key::Scope;
use plan::KeyedPlan;

pub use running::Running;

pub(super) use fingerprint::fingerprinted;

type Results = Vec<Result<Published, Error>>;

/// An `Idempotency-Key` with its request, as stored.
#[derive(Debug, Clone, Copy)]
struct RequestKey {
    key: Uuid,
    fingerprint: Uuid,
}

impl RequestKey {
    fn of(lane: LaneId, key: &IdempotencyKey) -> Self {
        Self {
            key: key::stored(lane, Scope::Request(key.route), &key.key),
            fingerprint: key::first_half(&key.fingerprint),
        }
    }

    fn new_key(self, window_seconds: i32, results: Option<Vec<u8>>) -> NewKey {
        NewKey {
            key: self.key,
            index: 0,
            window_seconds,
            fingerprint: Some(self.fingerprint),
            results,
        }
    }

    /// The stored results of the first request with this key, if it is among the known ones.
    fn results(
        self,
        lane: LaneId,
        known: &[KnownKey],
        items: &[Draft],
    ) -> Result<Option<Results>, Error> {
        let Some(first) = known.iter().find(|known| known.key == self.key) else {
            return Ok(None);
        };
        if first.fingerprint != Some(self.fingerprint) {
            return Err(Error::KeyMismatch);
        }
        Ok(Some(stored::results(lane, first, items)))
    }
}

impl Engine {
    /// Publishes with keys; one result per draft, in order.
    pub(in crate::engine) async fn publish_keyed(
        &self,
        entry: &TopicEntry,
        drafts: Drafts,
        key: Option<IdempotencyKey>,
    ) -> Result<Metered<Results>, Error> {
        let lane = entry.first_lane();
        let window_seconds = entry.row.dedup_window_seconds;
        let request = key.map(|key| RequestKey::of(lane, &key));
        let _running = request
            .map(|request| self.running().begin(request.key))
            .transpose()?;
        let mut known: HashMap<Uuid, KnownKey> = HashMap::new();
        loop {
            let mut plan = KeyedPlan::of(lane, &drafts, &known);
            let measure = plan.records.measure();
            let whole = request.map(|request| {
                let results = stored::encode(lane, &plan.decisions);
                request.new_key(window_seconds, results)
            });
            let keys: Vec<NewKey> = plan.keys(window_seconds).chain(whole).collect();
            if plan.records.is_empty() && keys.is_empty() {
                return Ok(Metered {
                    answer: plan.results(message_id(lane, Era::FIRST, Offset::START)),
                    units: 0,
                });
            }
            let records = std::mem::take(&mut plan.records);
            let content = if records.bytes() > self.hot_limit_bytes() {
                Content::Object(Box::pin(self.uploads().put(&records)).await?)
            } else {
                Content::Records(records)
            };
            let commit = Commit {
                lane,
                content,
                measure,
                capacity: drafts.capacity,
                keys,
            };
            match self.commit(entry, commit).await? {
                Placed::At(first) => {
                    return Ok(Metered {
                        answer: plan.results(first),
                        units: measure.units,
                    });
                }
                Placed::Gone => return Err(self.is_gone(entry)),
                Placed::Known(more) => {
                    if let Some(request) = request
                        && let Some(answer) = request.results(lane, &more, &drafts.items)?
                    {
                        return Ok(Metered { answer, units: 0 });
                    }
                    known.extend(more.into_iter().map(|known| (known.key, known)));
                }
            }
        }
    }

    /// Publishes one message that is in object storage already.
    pub(in crate::engine) async fn publish_keyed_object(
        &self,
        entry: &TopicEntry,
        object: Uploaded,
        capacity: Capacity,
        key: IdempotencyKey,
    ) -> Result<Metered<Published>, Error> {
        let lane = entry.first_lane();
        let request = RequestKey::of(lane, &key);
        let _running = self.running().begin(request.key)?;
        let measure = object.streamed_measure();
        let commit = Commit {
            lane,
            content: Content::Object(object),
            measure,
            capacity,
            keys: vec![request.new_key(entry.row.dedup_window_seconds, None)],
        };
        match self.commit(entry, commit).await? {
            Placed::At(id) => Ok(Metered {
                answer: Published {
                    id,
                    duplicate: false,
                },
                units: measure.units,
            }),
            Placed::Gone => Err(self.is_gone(entry)),
            Placed::Known(known) => {
                let results = request.results(lane, &known, &[Draft::Valid(None)])?;
                let first = results.and_then(|mut results| results.pop());
                Ok(Metered {
                    answer: first.ok_or(Error::Internal)??,
                    units: 0,
                })
            }
        }
    }
}

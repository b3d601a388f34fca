//! Publishes with keys, which take effect once within the topic's window: `Idempotency-Key` of a request and `dedup_id`
//! of a message. One transaction reserves the keys, inserts the block and stores the results. A second publish with the
//! same key waits for that transaction and returns the stored results; a crash leaves neither key nor message.
//! Lock order: keys (sorted), then the lane.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::MessageId;
use api::message::Published;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::engine::catalog::TopicEntry;
use crate::engine::error::Error;
use crate::engine::limit::Capacity;
use crate::engine::log::pack::hot_block;
use crate::engine::log::payload::Records;
use crate::engine::log::upload::Uploaded;
use crate::engine::meter::measure::Measure;
use crate::engine::{Draft, Drafts, Engine, IdempotencyKey, Metered, PublishRoute};
use crate::store::dedup::{NewKey, Scope, UsedKey};
use crate::store::turn::{NewBlock, TurnInput};
use crate::store::{self, Session};

type Results = Vec<Result<Published, Error>>;

impl Engine {
    /// Publishes with keys; one result per draft, in order.
    pub(in crate::engine) async fn publish_keyed(
        &self,
        entry: &TopicEntry,
        drafts: Drafts,
        key: Option<IdempotencyKey>,
    ) -> Result<Metered<Results>, Error> {
        let topic = entry.row.topic_id;
        let request = key.map(NewKey::from);
        let _running = request
            .as_ref()
            .map(|key| self.running().begin(topic, key))
            .transpose()?;
        let mut keys: Vec<NewKey> = request
            .iter()
            .cloned()
            .chain(dedup_ids(&drafts.items))
            .collect();
        keys.sort_unstable_by(|a, b| (a.scope, &a.key).cmp(&(b.scope, &b.key)));
        keys.dedup();
        let mut known = HashMap::new();
        loop {
            let mut plan = KeyedPlan::of(&drafts, &known);
            // A large block is uploaded before the transaction begins.
            let large = plan.records.bytes() > self.hot_limit_bytes();
            let uploaded = if large {
                let lane = self.lane_of(entry);
                let block = self.uploads().block_of(lane, &plan.records, plan.measure);
                Some(block.await?)
            } else {
                None
            };
            let mut tx = self.store().tx("publish_keyed").await?;
            let used = self.reserve(&mut tx, entry, &keys).await?;
            if let Some(key) = &request
                && let Some(first) = used.get(&(key.scope as i16, key.key.clone()))
            {
                let answer = stored_results(&drafts.items, first, &key.fingerprint)?;
                return Ok(Metered { answer, units: 0 });
            }
            if used.len() != known.len() {
                if large {
                    // The object also holds messages that were published before. Nothing refers to it: upload again
                    // without them.
                    known = used;
                    continue;
                }
                plan = KeyedPlan::of(&drafts, &used);
            }
            let block = uploaded
                .unwrap_or_else(|| hot_block(self.lane_of(entry), &plan.records, plan.measure).0);
            let ids = if plan.records.is_empty() {
                Vec::new()
            } else {
                self.insert(&mut tx, entry, block).await?
            };
            let results = plan.results(&ids);
            let to_store = results_to_store(&results, &plan.new_ids, request.as_ref());
            if !to_store.is_empty() {
                store::dedup::answer(&mut tx, topic, &to_store).await?;
            }
            tx.commit().await?;
            self.published(topic, ids.len());
            return Ok(Metered {
                answer: results,
                units: plan.measure.units,
            });
        }
    }

    /// Counts messages that were published outside of the turn loops, and wakes their receivers.
    fn published(&self, topic: i64, messages: usize) {
        self.turns().metrics.published.inc_by(messages as u64);
        self.turns().wake_topic(topic);
    }

    /// Publishes one message that is in object storage already.
    pub(in crate::engine) async fn publish_keyed_object(
        &self,
        entry: &TopicEntry,
        (object, capacity): (Uploaded, Capacity),
        key: IdempotencyKey,
    ) -> Result<Metered<Published>, Error> {
        let topic = entry.row.topic_id;
        let key = NewKey::from(key);
        let _running = self.running().begin(topic, &key)?;
        let mut tx = self.store().tx("publish_keyed").await?;
        let used = self
            .reserve(&mut tx, entry, std::slice::from_ref(&key))
            .await?;
        if let Some(first) = used.into_values().next() {
            let answer = stored_results(&[Draft::Valid(None)], &first, &key.fingerprint)?
                .pop()
                .ok_or(Error::Internal)??;
            return Ok(Metered { answer, units: 0 });
        }
        let measure = object.streamed_measure().under(capacity);
        let block = object.block(self.lane_of(entry), measure);
        let ids = self.insert(&mut tx, entry, block).await?;
        let id = *ids.first().ok_or(Error::Internal)?;
        let published = Published {
            id,
            duplicate: false,
        };
        let answer = encode(std::iter::once(&published));
        store::dedup::answer(&mut tx, topic, &[(key.scope, key.key, answer)]).await?;
        tx.commit().await?;
        self.published(topic, 1);
        Ok(Metered {
            answer: published,
            units: measure.units,
        })
    }

    /// Reserves keys. Returns those that were used before, by scope and key.
    async fn reserve(
        &self,
        tx: &mut Session,
        entry: &TopicEntry,
        keys: &[NewKey],
    ) -> Result<HashMap<(i16, String), UsedKey>, Error> {
        let (topic, window) = (entry.row.topic_id, entry.row.dedup_window_seconds);
        let free = store::dedup::reserve(tx, self.clock().now(), topic, window, keys).await?;
        if free.len() == keys.len() {
            return Ok(HashMap::new());
        }
        let taken: Vec<NewKey> = keys
            .iter()
            .filter(|key| {
                !free
                    .iter()
                    .any(|(scope, free)| (*scope, free) == (key.scope as i16, &key.key))
            })
            .cloned()
            .collect();
        let used = store::dedup::used(tx, topic, &taken).await?;
        Ok(used
            .into_iter()
            .map(|used| ((used.scope, used.key.clone()), used))
            .collect())
    }

    /// Runs a turn with one block in this transaction. Returns the ids of its messages.
    async fn insert(
        &self,
        tx: &mut Session,
        entry: &TopicEntry,
        block: NewBlock,
    ) -> Result<Vec<MessageId>, Error> {
        let (lane, count) = (block.lane, i64::from(block.count));
        let input = TurnInput {
            blocks: vec![block],
            slot: self.turns().slot(),
            ..TurnInput::default()
        };
        let output = store::turn::run(tx, self.clock().now(), &input).await?;
        let Some(Some(first)) = output.first_offsets.first() else {
            self.catalog().invalidate();
            return Err(Error::not_found("topic", &entry.name));
        };
        Ok((*first..first + count)
            .map(|offset| MessageId { lane, offset })
            .collect())
    }
}

impl From<IdempotencyKey> for NewKey {
    fn from(key: IdempotencyKey) -> Self {
        Self {
            scope: match key.route {
                PublishRoute::Single => Scope::Single,
                PublishRoute::Batch => Scope::Batch,
            },
            key: key.key,
            fingerprint: key.fingerprint.to_vec(),
        }
    }
}

/// The `dedup_id`s of the valid drafts.
fn dedup_ids(items: &[Draft]) -> impl Iterator<Item = NewKey> {
    items.iter().filter_map(|item| match item {
        Draft::Valid(Some(id)) => Some(NewKey {
            scope: Scope::DedupId,
            key: id.clone(),
            fingerprint: Vec::new(),
        }),
        Draft::Valid(None) | Draft::Refused(_) => None,
    })
}

/// The results that the first request with this key got.
fn stored_results(items: &[Draft], first: &UsedKey, fingerprint: &[u8]) -> Result<Results, Error> {
    if first.fingerprint != fingerprint {
        return Err(Error::KeyMismatch);
    }
    let mut stored = decode(first.answer.as_deref().unwrap_or_default()).into_iter();
    let results = items.iter().map(|item| match item {
        Draft::Refused(error) => Err(error.clone()),
        Draft::Valid(_) => stored.next().ok_or(Error::KeyMismatch),
    });
    Ok(results.collect())
}

/// Which drafts are published, and which were published before.
struct KeyedPlan {
    /// The messages to publish.
    records: Records,
    /// Their measure: a message that was published before costs nothing.
    measure: Measure,
    /// One per draft, in order.
    decisions: Vec<Decision>,
    /// The `dedup_id`s of messages in `records`, with their index there.
    new_ids: Vec<(String, usize)>,
}

/// What a publish does with a draft.
enum Decision {
    /// It was refused by the checks.
    Refused(Error),
    /// Its `dedup_id` was published before, as this message.
    Duplicate(MessageId),
    /// It is published; the index in the records.
    New(usize),
    /// It has the `dedup_id` of a new message before it in the batch; the index of that message in the records.
    DuplicateOfNew(usize),
}

impl KeyedPlan {
    fn of(drafts: &Drafts, used: &HashMap<(i16, String), UsedKey>) -> Self {
        let mut plan = Self {
            records: Records::default(),
            measure: Measure::default(),
            decisions: Vec::new(),
            new_ids: Vec::new(),
        };
        let mut record = 0;
        for item in &drafts.items {
            let id = match item {
                Draft::Refused(error) => {
                    plan.decisions.push(Decision::Refused(error.clone()));
                    continue;
                }
                Draft::Valid(id) => id.as_ref(),
            };
            let index = plan.records.len();
            let duplicate = id.and_then(|id| {
                let published = used
                    .get(&(Scope::DedupId as i16, id.clone()))
                    .and_then(|used| decode(used.answer.as_deref()?).pop())
                    .map(|first| Decision::Duplicate(first.id));
                let in_batch = plan
                    .new_ids
                    .iter()
                    .find(|(new, _)| new == id)
                    .map(|(_, index)| Decision::DuplicateOfNew(*index));
                published.or(in_batch)
            });
            if duplicate.is_none() {
                plan.records.append_one(&drafts.records, record);
                plan.new_ids.extend(id.map(|id| (id.clone(), index)));
            }
            plan.decisions
                .push(duplicate.unwrap_or(Decision::New(index)));
            record += 1;
        }
        plan.measure = plan.records.measure().under(drafts.capacity);
        plan
    }

    /// One result per draft, given the ids of the new messages.
    fn results(&self, ids: &[MessageId]) -> Results {
        let id = |index: &usize| ids.get(*index).copied().ok_or(Error::Internal);
        let results = self.decisions.iter().map(|decision| match decision {
            Decision::Refused(error) => Err(error.clone()),
            Decision::Duplicate(id) => Ok(Published {
                id: *id,
                duplicate: true,
            }),
            Decision::New(index) => Ok(Published {
                id: id(index)?,
                duplicate: false,
            }),
            Decision::DuplicateOfNew(index) => Ok(Published {
                id: id(index)?,
                duplicate: true,
            }),
        });
        results.collect()
    }
}

/// The results to store by key: of each new `dedup_id` its message, and of the request all of them.
fn results_to_store(
    results: &Results,
    new_ids: &[(String, usize)],
    request: Option<&NewKey>,
) -> Vec<(Scope, String, Vec<u8>)> {
    let fresh: Vec<&Published> = results
        .iter()
        .flatten()
        .filter(|published| !published.duplicate)
        .collect();
    let ids = new_ids.iter().filter_map(|(id, index)| {
        let result = encode(std::iter::once(*fresh.get(*index)?));
        Some((Scope::DedupId, id.clone(), result))
    });
    let whole = |key: &NewKey| {
        let result = encode(results.iter().flatten());
        (key.scope, key.key.clone(), result)
    };
    ids.chain(request.map(whole)).collect()
}

/// Bit in the stored lane of a message that was a duplicate. With it a repeated request returns exactly the first
/// response.
const DUPLICATE: i64 = 1 << 62;

/// Results as they are stored: lane and offset of each message, 8 bytes each.
fn encode<'a>(results: impl Iterator<Item = &'a Published>) -> Vec<u8> {
    let numbers = results.map(|published| {
        let flag = if published.duplicate { DUPLICATE } else { 0 };
        [published.id.lane | flag, published.id.offset]
    });
    numbers.flatten().flat_map(i64::to_be_bytes).collect()
}

/// The inverse of `encode`.
fn decode(stored: &[u8]) -> Vec<Published> {
    let (numbers, _) = stored.as_chunks::<8>();
    let (pairs, _) = numbers.as_chunks::<2>();
    pairs
        .iter()
        .map(|pair| pair.map(i64::from_be_bytes))
        .map(|[lane, offset]| Published {
            id: MessageId {
                lane: lane & !DUPLICATE,
                offset,
            },
            duplicate: lane & DUPLICATE != 0,
        })
        .collect()
}

/// Requests with an `Idempotency-Key` that are running on this node.
#[derive(Debug, Default, Clone)]
pub struct Running {
    keys: Arc<Mutex<HashSet<(i64, Scope, String)>>>,
}

/// Marks a key as running until the request drops it.
#[derive(Debug)]
pub struct RunningKey {
    running: Running,
    key: (i64, Scope, String),
}

impl Running {
    fn begin(&self, topic: i64, key: &NewKey) -> Result<RunningKey, Error> {
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

/// The SHA-256 of a body, taken while the body streams.
pub(in crate::engine) struct Fingerprint(Arc<Mutex<Sha256>>);

impl Fingerprint {
    /// The hash, once the stream has ended.
    pub(in crate::engine) fn finish(&self) -> [u8; 32] {
        self.0.lock().clone().finalize().into()
    }
}

/// The same stream, and the fingerprint that it fills.
pub(in crate::engine) fn fingerprinted(
    body: BoxStream<'static, Result<Bytes, Error>>,
) -> (BoxStream<'static, Result<Bytes, Error>>, Fingerprint) {
    let hash = Arc::new(Mutex::new(Sha256::new()));
    let fingerprint = Fingerprint(hash.clone());
    let inspected = body.inspect(move |piece| {
        if let Ok(piece) = piece {
            hash.lock().update(piece);
        }
    });
    (inspected.boxed(), fingerprint)
}

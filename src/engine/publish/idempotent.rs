//! Publishes that must not happen twice: `Idempotency-Key` of a request and `dedup_id` of a message, within the topic's
//! window. The keys are reserved, the block inserted and the answers written in one transaction: a second publish with the
//! same key waits for it and then finds the first answer, and a crash leaves neither key nor message.
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

use crate::store::dedup::{NewKey, Scope, UsedKey};
use crate::store::turn::{NewBlock, TurnInput};
use crate::store::{self, Session};

use crate::engine::catalog::TopicEntry;
use crate::engine::error::Error;
use crate::engine::limit::Capacity;
use crate::engine::log::pack::hot_block;
use crate::engine::log::payload::Records;
use crate::engine::log::upload::Uploaded;
use crate::engine::meter::measure::Measure;
use crate::engine::{Draft, Drafts, Engine, IdempotencyKey, Metered, PublishRoute};

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
            let mut plan = Plan::of(&drafts, &known);
            // No transaction is open while object storage is asked.
            let large = plan.records.bytes() > self.hot_limit_bytes();
            let ready = match large {
                true => Some(
                    self.uploads()
                        .block_of(self.lane_of(entry), &plan.records, plan.measure)
                        .await?,
                ),
                false => None,
            };
            let mut tx = self.store().tx("publish_keyed").await?;
            let used = self.reserve(&mut tx, entry, &keys).await?;
            if let Some(key) = &request
                && let Some(first) = used.get(&(key.scope as i16, key.key.clone()))
            {
                let answer = answered(&drafts.items, first, &key.fingerprint)?;
                return Ok(Metered { answer, units: 0 });
            }
            if used.len() != known.len() {
                if large {
                    // Some were published before: the object holds too much, and nothing refers to it.
                    known = used;
                    continue;
                }
                plan = Plan::of(&drafts, &used);
            }
            let block = ready
                .unwrap_or_else(|| hot_block(self.lane_of(entry), &plan.records, plan.measure).0);
            let ids = match plan.records.is_empty() {
                true => Vec::new(),
                false => self.insert(&mut tx, entry, block).await?,
            };
            let results = plan.results(&ids);
            let answers = answers(&results, &plan.owners, request.as_ref());
            if !answers.is_empty() {
                store::dedup::answer(&mut tx, topic, &answers).await?;
            }
            tx.commit().await?;
            self.published(topic, ids.len());
            return Ok(Metered {
                answer: results,
                units: plan.measure.units,
            });
        }
    }

    /// Counts what was published beside the turns, and wakes its receivers.
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
            let answer = answered(&[Draft::Valid(None)], &first, &key.fingerprint)?
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

    /// Reserves keys; answers those that were used before.
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

/// The first answer again, for a request whose key was used before.
fn answered(items: &[Draft], first: &UsedKey, fingerprint: &[u8]) -> Result<Results, Error> {
    if first.fingerprint != fingerprint {
        return Err(Error::KeyMismatch);
    }
    let mut answers = decode(first.answer.as_deref().unwrap_or_default()).into_iter();
    let results = items.iter().map(|item| match item {
        Draft::Refused(error) => Err(error.clone()),
        Draft::Valid(_) => answers.next().ok_or(Error::KeyMismatch),
    });
    Ok(results.collect())
}

/// What becomes of each draft.
struct Plan {
    records: Records,
    /// What they are measured by: what was published before costs nothing again.
    measure: Measure,
    fates: Vec<Fate>,
    /// Ids that this publish answers, with the index of their message among the new ones.
    owners: Vec<(String, usize)>,
}

enum Fate {
    Refused(Error),
    Known(MessageId),
    New(usize),
    /// The same `dedup_id` as a new message before it in the batch.
    Twin(usize),
}

impl Plan {
    fn of(drafts: &Drafts, used: &HashMap<(i16, String), UsedKey>) -> Self {
        let mut plan = Self {
            records: Records::default(),
            measure: Measure::default(),
            fates: Vec::new(),
            owners: Vec::new(),
        };
        let mut record = 0;
        for item in &drafts.items {
            let id = match item {
                Draft::Refused(error) => {
                    plan.fates.push(Fate::Refused(error.clone()));
                    continue;
                }
                Draft::Valid(id) => id.as_ref(),
            };
            let index = plan.records.len();
            let fate = id.and_then(|id| {
                let known = used.get(&(Scope::DedupId as i16, id.clone()));
                let known = known
                    .and_then(|used| decode(used.answer.as_deref()?).pop())
                    .map(|first| Fate::Known(first.id));
                let twin = plan
                    .owners
                    .iter()
                    .find(|(owner, _)| owner == id)
                    .map(|(_, index)| Fate::Twin(*index));
                known.or(twin)
            });
            if fate.is_none() {
                plan.records.append_one(&drafts.records, record);
                plan.owners.extend(id.map(|id| (id.clone(), index)));
            }
            plan.fates.push(fate.unwrap_or(Fate::New(index)));
            record += 1;
        }
        plan.measure = plan.records.measure().under(drafts.capacity);
        plan
    }

    fn results(&self, ids: &[MessageId]) -> Results {
        let id = |index: &usize| ids.get(*index).copied().ok_or(Error::Internal);
        let results = self.fates.iter().map(|fate| match fate {
            Fate::Refused(error) => Err(error.clone()),
            Fate::Known(id) => Ok(Published {
                id: *id,
                duplicate: true,
            }),
            Fate::New(index) => Ok(Published {
                id: id(index)?,
                duplicate: false,
            }),
            Fate::Twin(index) => Ok(Published {
                id: id(index)?,
                duplicate: true,
            }),
        });
        results.collect()
    }
}

fn answers(
    results: &Results,
    owners: &[(String, usize)],
    request: Option<&NewKey>,
) -> Vec<(Scope, String, Vec<u8>)> {
    let fresh: Vec<&Published> = results
        .iter()
        .flatten()
        .filter(|published| !published.duplicate)
        .collect();
    let ids = owners.iter().filter_map(|(owner, index)| {
        let answer = encode(std::iter::once(*fresh.get(*index)?));
        Some((Scope::DedupId, owner.clone(), answer))
    });
    let whole = |key: &NewKey| {
        let answer = encode(results.iter().flatten());
        (key.scope, key.key.clone(), answer)
    };
    ids.chain(request.map(whole)).collect()
}

/// Set in the lane of an answer whose message was a duplicate: the first answer again is the same to the word.
const DUPLICATE: i64 = 1 << 62;

fn encode<'a>(answers: impl Iterator<Item = &'a Published>) -> Vec<u8> {
    let numbers = answers.map(|published| {
        let flag = if published.duplicate { DUPLICATE } else { 0 };
        [published.id.lane | flag, published.id.offset]
    });
    numbers.flatten().flat_map(i64::to_be_bytes).collect()
}

fn decode(answer: &[u8]) -> Vec<Published> {
    let (numbers, _) = answer.as_chunks::<8>();
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

/// Requests with a key that are running on this node.
#[derive(Debug, Default, Clone)]
pub struct Running {
    keys: Arc<Mutex<HashSet<(i64, Scope, String)>>>,
}

/// Ends with its request.
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

/// Takes the SHA-256 of a body while it streams by.
pub(in crate::engine) struct Fingerprint(Arc<Mutex<Sha256>>);

impl Fingerprint {
    /// The hash, once the stream has ended.
    pub(in crate::engine) fn finish(&self) -> [u8; 32] {
        self.0.lock().clone().finalize().into()
    }
}

/// The same stream, and its hash.
pub(in crate::engine) fn fingerprinted(
    body: BoxStream<'static, Result<Bytes, Error>>,
) -> (BoxStream<'static, Result<Bytes, Error>>, Fingerprint) {
    let hash = Arc::new(Mutex::new(Sha256::new()));
    let fingerprint = Fingerprint(hash.clone());
    let seen = body.inspect(move |piece| {
        if let Ok(piece) = piece {
            hash.lock().update(piece);
        }
    });
    (seen.boxed(), fingerprint)
}

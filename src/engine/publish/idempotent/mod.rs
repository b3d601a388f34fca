//! Publishes with keys, which take effect once within the topic's window: `Idempotency-Key` of a request and `dedup_id`
//! of a message. One transaction reserves the keys, inserts the block and stores the results. A second publish with the
//! same key waits for that transaction and returns the stored results; a crash leaves neither key nor message.
//! Lock order: keys (sorted), then the lane.

mod fingerprint;
mod plan;
mod running;
mod stored;

use std::collections::HashMap;

use api::MessageId;
use api::message::Published;

use crate::engine::Engine;
use crate::engine::catalog::TopicEntry;
use crate::engine::error::Error;
use crate::engine::limit::Capacity;
use crate::engine::log::block::message_id;
use crate::engine::log::pack::hot_block;
use crate::engine::log::upload::Uploaded;
use crate::engine::meter::Metered;
use crate::engine::publish::draft::{Draft, Drafts, IdempotencyKey, PublishRoute};
use crate::store::dedup::{NewKey, Scope, UsedKey};
use crate::store::turn::{NewBlock, TurnInput};
use crate::store::{self, Session, TopicId};

use plan::KeyedPlan;
use stored::{encode, results_to_store, stored_results};

pub use running::Running;

pub(super) use fingerprint::fingerprinted;

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
    fn published(&self, topic: TopicId, messages: usize) {
        self.turns().metrics.published.inc_by(messages as u64);
        self.turns().wake_topic(topic);
    }

    /// Publishes one message that is in object storage already.
    pub(in crate::engine) async fn publish_keyed_object(
        &self,
        entry: &TopicEntry,
        object: Uploaded,
        capacity: Capacity,
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
        Ok((0..count)
            .map(|index| message_id(lane, first.plus(index)))
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

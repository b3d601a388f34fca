//! Which drafts of a publish with keys are new, and which are duplicates of a message published before or in the same
//! batch. Pure: the keys that were used before go in, the messages to publish and the results come out.

use std::collections::HashMap;

use api::MessageId;
use api::message::Published;
use uuid::Uuid;

use super::Results;
use super::key::{Scope, stored};
use crate::engine::error::Error;
use crate::engine::log::block::message_id;
use crate::engine::log::payload::Records;
use crate::engine::publish::draft::{Draft, Drafts};
use crate::store::LaneId;
use crate::store::dedup::{KnownKey, NewKey};

/// Which drafts are published, and which were published before.
pub(super) struct KeyedPlan {
    /// The messages to publish.
    pub(super) records: Records,
    /// One per draft, in order.
    pub(super) decisions: Vec<Decision>,
    /// The keys of messages in `records`, with their index there.
    new_ids: Vec<(Uuid, u32)>,
}

/// What a publish does with a draft.
#[derive(Debug)]
pub(super) enum Decision {
    /// It was refused by the checks.
    Refused(Error),
    /// Its `dedup_id` was published before, as this message.
    Duplicate(MessageId),
    /// It is published; the index in the records.
    New(u32),
    /// It has the `dedup_id` of a new message before it in the batch; the index of that message in the records.
    DuplicateOfNew(u32),
}

impl KeyedPlan {
    /// The plan for these drafts, when these keys were used before.
    pub(super) fn of(lane: LaneId, drafts: &Drafts, known: &HashMap<Uuid, KnownKey>) -> Self {
        let mut plan = Self {
            records: Records::default(),
            decisions: Vec::with_capacity(drafts.items.len()),
            new_ids: Vec::new(),
        };
        let (mut record, mut index, mut published) = (0, 0, Vec::new());
        for item in &drafts.items {
            let id = match item {
                Draft::Refused(error) => {
                    plan.decisions.push(Decision::Refused(error.clone()));
                    continue;
                }
                Draft::Valid(id) => id.as_deref().map(|id| stored(lane, Scope::DedupId, id)),
            };
            let twin = |id: Uuid| {
                let mut new = plan.new_ids.iter();
                new.find(|(new, _)| *new == id).map(|(_, index)| *index)
            };
            let duplicate = id.and_then(|id| {
                let published = known.get(&id).map(|known| {
                    Decision::Duplicate(message_id(lane, known.era, known.first_offset))
                });
                published.or_else(|| twin(id).map(Decision::DuplicateOfNew))
            });
            plan.decisions.push(duplicate.unwrap_or_else(|| {
                plan.new_ids.extend(id.map(|id| (id, index)));
                published.push(record);
                index += 1;
                Decision::New(index - 1)
            }));
            record += 1;
        }
        plan.records = if published.len() == record {
            drafts.records.clone()
        } else {
            let mut records = Records::default();
            for record in published {
                records.append(&drafts.records.part(record..record + 1));
            }
            records
        };
        plan
    }

    /// The keys to look up and store: those of new messages.
    pub(super) fn keys(&self, window_seconds: i32) -> impl Iterator<Item = NewKey> {
        self.new_ids.iter().map(move |(key, index)| NewKey {
            key: *key,
            index: *index,
            window_seconds,
            fingerprint: None,
            results: None,
        })
    }

    /// One result per draft, given the first new message.
    pub(super) fn results(self, first: MessageId) -> Results {
        let new = |index: u32| MessageId {
            offset: first.offset + i64::from(index),
            ..first
        };
        let results = self.decisions.into_iter().map(|decision| {
            let (id, duplicate) = match decision {
                Decision::Refused(error) => return Err(error),
                Decision::Duplicate(id) => (id, true),
                Decision::New(index) => (new(index), false),
                Decision::DuplicateOfNew(index) => (new(index), true),
            };
            Ok(Published { id, duplicate })
        });
        results.collect()
    }
}

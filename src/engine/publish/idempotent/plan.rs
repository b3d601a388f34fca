//! Which drafts of a publish with keys are new, and which are duplicates of a message published before or in the same batch.
//! Pure: the keys that were used before go in, the messages to publish and the results come out.

use std::collections::HashMap;

use api::MessageId;
use api::message::Published;

use super::Results;
use super::stored::decode;
use crate::engine::error::Error;
use crate::engine::log::payload::Records;
use crate::engine::meter::measure::Measure;
use crate::engine::publish::draft::{Draft, Drafts};
use crate::store::dedup::{Scope, UsedKey};

/// Which drafts are published, and which were published before.
pub(super) struct KeyedPlan {
    /// The messages to publish.
    pub(super) records: Records,
    /// Their measure: a message that was published before costs nothing.
    pub(super) measure: Measure,
    /// One per draft, in order.
    decisions: Vec<Decision>,
    /// The `dedup_id`s of messages in `records`, with their index there.
    pub(super) new_ids: Vec<(String, usize)>,
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
    pub(super) fn of(drafts: &Drafts, used: &HashMap<(i16, String), UsedKey>) -> Self {
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
    pub(super) fn results(&self, ids: &[MessageId]) -> Results {
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

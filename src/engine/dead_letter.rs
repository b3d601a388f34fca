//! Dead letters: messages whose attempts are used up, or that a consumer gave up, move to the subscription's dead-letter
//! topic. Their leases were set aside before; here they are read (which may need object storage, so no transaction is
//! open), and then published there and settled here in one transaction, so that no crash loses or doubles one.

use std::sync::Arc;

use api::Timestamp;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::store;
use crate::store::lease::Lease;
use crate::store::turn::{NewBlock, TurnInput};

use super::Engine;
use super::delivery::StoredMessage;
use super::error::Error;
use super::payload::{Meta, Records, stream_head};
use super::subscriber::{Grant, Subscriber};

/// How long a lease is set aside for the move; when it fails, the messages are due again after that.
pub(super) const BURIAL_TIME: time::Duration = time::Duration::seconds(60);

/// Why a message is moved, as the reason says when nobody gave one.
const ATTEMPTS_USED_UP: &str = "max_attempts";

/// What became of messages that were to be moved.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Burial {
    /// Messages that are in the dead-letter topic now.
    pub(super) moved: usize,
    /// Leases that were not moved: settled meanwhile, or there is no such topic any more. They are due again.
    pub(super) kept: usize,
}

impl Engine {
    /// Moves the messages of `leases`, which were set aside, to the dead-letter topic.
    pub(super) async fn bury(
        &self,
        subscriber: &Arc<Subscriber>,
        leases: &[Lease],
        reason: Option<&str>,
    ) -> Result<Burial, Error> {
        let mut burial = Burial {
            moved: 0,
            kept: leases.len(),
        };
        let Some(topic) = subscriber.settings().dead_letter_topic_id else {
            return Ok(burial);
        };
        let mut session = self.store().session().await?;
        let lanes = store::lane::of_topic(&mut session, topic).await?;
        drop(session);
        let Some(lane) = lanes.first() else {
            return Ok(burial);
        };
        for lease in leases {
            let blocks = self
                .dead_blocks(subscriber, lease, *lane, reason.unwrap_or(ATTEMPTS_USED_UP))
                .await?;
            let letters: usize = blocks
                .iter()
                .map(|block| usize::try_from(block.count).unwrap_or(0))
                .sum();
            if self.move_lease(lease, blocks).await? {
                burial.moved += letters;
                burial.kept -= 1;
                subscriber.moved(-i64::from(lease.pending.count_ones()));
                self.metrics().dead_lettered.inc_by(letters as u64);
            }
        }
        self.wake_topic(topic);
        Ok(burial)
    }

    /// Publishes the blocks and settles the lease, or neither: when it was settled meanwhile or the topic was deleted.
    async fn move_lease(&self, lease: &Lease, blocks: Vec<NewBlock>) -> Result<bool, Error> {
        let mut tx = self.store().tx("dead_letter").await?;
        for block in blocks {
            let input = TurnInput {
                blocks: vec![block],
                slot: self.slot(),
                ..TurnInput::default()
            };
            let output = store::turn::run(&mut tx, self.clock().now(), &input).await?;
            if output.first_offsets == [None] {
                return Ok(false);
            }
        }
        let held = store::lease::delete(&mut tx, &[lease.key]).await? == 1;
        if held {
            tx.commit().await?;
        }
        Ok(held)
    }

    /// The messages of a lease as blocks of the dead-letter topic: those in memory together, each large one by itself.
    async fn dead_blocks(
        &self,
        subscriber: &Subscriber,
        lease: &Lease,
        lane: i64,
        reason: &str,
    ) -> Result<Vec<NewBlock>, Error> {
        let mut records = Records::default();
        let mut blocks = Vec::new();
        let grants = [Grant::of(lease)];
        let (deliveries, _) = self.deliveries(subscriber, &grants, usize::MAX).await?;
        for delivery in deliveries {
            let message = &delivery.message;
            let view = message.view().ok_or(Error::Internal)?;
            let story = Story::of(message, lease, reason);
            let meta = story.told(view.meta());
            match view.body() {
                Some(body) => records.push(&meta, body),
                None => {
                    let head = stream::iter([Ok(Bytes::from(stream_head(&meta)))]);
                    let (start, end) = view.body_range();
                    let body = self.body_part(message, 0..end - start).await?;
                    let object = self.upload(head.chain(body).boxed()).await?;
                    blocks.push(NewBlock {
                        lane,
                        count: 1,
                        compressed: false,
                        place: object.place(),
                    });
                }
            }
        }
        if !records.is_empty() {
            blocks.push(self.block_of(lane, &records).await?);
        }
        Ok(blocks)
    }
}

/// What is told of a dead letter, as attributes.
struct Story {
    attributes: [(&'static str, String); 6],
}

impl Story {
    fn of(message: &StoredMessage, lease: &Lease, reason: &str) -> Self {
        let text = |at: time::OffsetDateTime| Timestamp::from(at).to_string();
        let last = text(lease.last_failed_at.unwrap_or(lease.deadline));
        let first = lease.first_failed_at.map_or_else(|| last.clone(), text);
        Self {
            attributes: [
                ("cursus-dead-letter-attempts", lease.attempt.to_string()),
                ("cursus-dead-letter-first-failed-at", first),
                ("cursus-dead-letter-id", message.id().to_string()),
                ("cursus-dead-letter-last-failed-at", last),
                ("cursus-dead-letter-reason", reason.to_owned()),
                ("cursus-dead-letter-topic", message.topic.to_string()),
            ],
        }
    }

    /// The message's own attributes with these in place of those of an earlier death.
    fn told<'a>(&'a self, mut meta: Meta<'a>) -> Meta<'a> {
        meta.attributes
            .retain(|(name, _)| !name.starts_with("cursus-dead-letter-"));
        meta.attributes.extend(
            self.attributes
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        );
        meta.attributes.sort_unstable();
        meta
    }
}

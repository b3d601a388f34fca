//! Dead letters: messages whose attempts are used up, or that a consumer gave up, move to the subscription's dead-letter
//! topic. Their leases were set aside before (`lease::set_aside`); here they are read (which may need object storage, so no transaction is
//! open), and then published there and settled here in one transaction, so that no crash loses or doubles one. A receiver
//! never waits for the move of what it did not get: that goes on in the background.
//!
//! A dead letter costs nothing, because nobody published it: its block has 0 units, and it is metered as `dead_letter`. It
//! is stored like any other message.

use std::sync::Arc;

use api::Timestamp;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::store;
use crate::store::lease::Lease;
use crate::store::turn::{Clear, NewBlock, TurnInput};

use crate::engine::error::Error;
use crate::engine::lease::Spent;
use crate::engine::log::block::StoredMessage;
use crate::engine::log::payload::{Meta, Records, stream_head};
use crate::engine::subscriber::{Grant, Subscriber};
use crate::engine::{Engine, Tenant};

/// Moves at once, so that one that waits for object storage does not hold up all others.
const MOVES_AT_ONCE: usize = 4;
/// The reason of a message whose attempts are used up.
const ATTEMPTS_USED_UP: &str = "max_attempts";

/// What became of the messages of a lease that was set aside.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Moved {
    /// Messages that are in the dead-letter topic now.
    pub(super) messages: u32,
    /// Some were not moved: settled meanwhile, or there is no such topic any more. They are due again.
    pub(super) kept: bool,
}

impl Engine {
    /// Starts the tasks that move what was set aside; they end at `stop`, and what is left then is due again.
    pub(in crate::engine) fn start_dead_letters(
        &self,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) {
        for _ in 0..MOVES_AT_ONCE {
            let (engine, stop) = (self.clone(), stop.clone());
            tracker.spawn(async move {
                let moves = async {
                    loop {
                        engine.move_next().await;
                    }
                };
                stop.run_until_cancelled(moves).await;
            });
        }
    }

    async fn move_next(&self) {
        let spent = self.leases().set_aside.next().await;
        if spent.is_over() {
            return;
        }
        let Spent {
            subscriber, lease, ..
        } = &spent;
        let moved = self.move_to_dead_letters(subscriber, lease, ATTEMPTS_USED_UP);
        if let Err(error) = moved.await {
            tracing::warn!(%error, "dead letters could not be moved; they are due again in a while");
        }
    }

    /// Moves the messages of a lease that was set aside to the dead-letter topic: small ones in groups, each large one by
    /// itself, so that what has moved stays moved. Ends early when the lease is no longer there.
    pub(super) async fn move_to_dead_letters(
        &self,
        subscriber: &Arc<Subscriber>,
        lease: &Lease,
        reason: &str,
    ) -> Result<Moved, Error> {
        let kept = |messages| {
            Ok(Moved {
                messages,
                kept: true,
            })
        };
        let Some(topic) = subscriber.settings().dead_letter_topic_id else {
            return kept(0);
        };
        let mut session = self.store().session().await?;
        let lanes = store::lane::of_topic(&mut session, topic).await?;
        drop(session);
        let Some(lane) = lanes.first() else {
            return kept(0);
        };
        let tenant = Tenant(subscriber.tenant);
        let (mut group, mut moved) = (Group::default(), 0);
        let grants = [Grant::of(lease)];
        let read = self.deliveries(subscriber, &grants, usize::MAX).await;
        for delivery in read.deliveries {
            let message = &delivery.message;
            let view = message.view().ok_or(Error::Internal)?;
            let why = Reason::of(message, lease, reason);
            let meta = why.added_to(view.meta());
            let bit = 1 << (message.id().offset - lease.base);
            let Some(body) = view.body() else {
                let head = stream::iter([Ok(Bytes::from(stream_head(&meta)))]);
                let (start, end) = view.body_range();
                let body = self.body_part(tenant, message, 0..end - start).await?;
                let object = self
                    .uploads()
                    .upload(tenant.0, head.chain(body).boxed())
                    .await?;
                let block = object.block(*lane, object.streamed_measure().free());
                if !self.move_messages(subscriber, lease, (bit, block)).await? {
                    return kept(moved);
                }
                moved += 1;
                continue;
            };
            if group.bits != 0 && group.records.bytes() + body.len() > self.hot_limit_bytes() {
                let full = std::mem::take(&mut group);
                let more = full.bits.count_ones();
                if !self.move_group(subscriber, lease, (*lane, full)).await? {
                    return kept(moved);
                }
                moved += more;
            }
            group.records.push(&meta, body);
            group.bits |= bit;
        }
        if group.bits != 0 {
            let more = group.bits.count_ones();
            if !self.move_group(subscriber, lease, (*lane, group)).await? {
                return kept(moved);
            }
            moved += more;
        }
        self.turns().wake_topic(topic);
        let unread = read.unreadable.into_iter().next();
        let moved = Moved {
            messages: moved,
            kept: false,
        };
        unread.map_or(Ok(moved), |(_, error)| Err(error))
    }

    async fn move_group(
        &self,
        subscriber: &Subscriber,
        lease: &Lease,
        (lane, group): (i64, Group),
    ) -> Result<bool, Error> {
        let measure = group.records.measure().free();
        let block = self
            .uploads()
            .block_of(lane, &group.records, measure)
            .await?;
        self.move_messages(subscriber, lease, (group.bits, block))
            .await
    }

    /// Publishes a block and takes its messages out of the lease, or neither: when somebody has the lease meanwhile, or the
    /// topic was deleted.
    async fn move_messages(
        &self,
        subscriber: &Subscriber,
        lease: &Lease,
        (bits, block): (u64, NewBlock),
    ) -> Result<bool, Error> {
        let clear = Clear {
            lane: lease.key.lane,
            subscription: lease.key.subscription,
            lease: lease.key.lease,
            mask: bits,
        };
        let input = TurnInput {
            blocks: vec![block],
            clears: vec![clear],
            slot: self.turns().slot(),
            ..TurnInput::default()
        };
        let mut tx = self.store().tx("dead_letter").await?;
        let output = store::turn::run(&mut tx, self.clock().now(), &input).await?;
        let taken = output.settled.iter().fold(0, |all, (_, bits)| all | bits);
        if output.first_offsets == [None] || taken != bits {
            return Ok(false);
        }
        tx.commit().await?;
        let messages = bits.count_ones();
        subscriber.in_flight.moved(-i64::from(messages));
        self.metrics().dead_lettered.inc_by(u64::from(messages));
        Ok(true)
    }
}

/// Messages that move together.
#[derive(Default)]
struct Group {
    records: Records,
    /// Their bits in the lease.
    bits: u64,
}

/// Why a message is in the dead-letter topic, as attributes.
struct Reason {
    attributes: [(&'static str, String); 6],
}

impl Reason {
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

    /// The message's own attributes with these in place of those of an earlier move.
    fn added_to<'a>(&'a self, mut meta: Meta<'a>) -> Meta<'a> {
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

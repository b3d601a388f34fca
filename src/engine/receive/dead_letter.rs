//! Dead letters: a message moves to the subscription's dead-letter topic when its attempts are used up, or when a
//! consumer asks for it. Redelivery or settle has set its lease aside before. The message is read first, with no
//! transaction open, because that may need object storage. One transaction then publishes it to the dead-letter topic
//! and takes it out of its lease, so a crash neither loses nor duplicates it. Messages whose attempts are used up are
//! moved by background tasks (`lease::set_aside`), so that no receiver waits for the move.
//!
//! A dead letter costs nothing, because no client published it: its block has 0 units, and it is metered as
//! `dead_letter`. It is stored like any other message.

use std::sync::Arc;

use api::Timestamp;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;
use crate::engine::access::Tenant;
use crate::engine::error::Error;
use crate::engine::lease::Spent;
use crate::engine::log::block::StoredMessage;
use crate::engine::log::payload::{Meta, Records, stream_head};
use crate::engine::subscriber::{Grant, Subscriber};
use crate::store::lease::Lease;
use crate::store::turn::{Clear, NewBlock, TurnInput};
use crate::store::{self, LaneId};

/// Tasks that move dead letters: while one waits for object storage, the others go on.
const MOVES_AT_ONCE: usize = 4;
/// `cursus-dead-letter-reason` of a message whose attempts are used up.
const ATTEMPTS_USED_UP: &str = "max_attempts";

/// The result of moving the messages of a lease that was set aside.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Moved {
    /// Messages that were moved to the dead-letter topic.
    pub(super) messages: u32,
    /// Some messages stay in the lease: it changed meanwhile, or the dead-letter topic is gone. Those not settled fall
    /// due again.
    pub(super) kept: bool,
}

impl Engine {
    /// Starts the tasks that move the leases set aside. They end at `stop`; leases not moved by then fall due again.
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

    /// Moves the next lease that was set aside.
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

    /// Moves the messages of a lease that was set aside to the dead-letter topic: small messages in groups, each large
    /// one by itself. Each group is a transaction of its own. Stops early when the lease or the topic is gone.
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
        let read = self.read_leases(subscriber, &grants, usize::MAX).await;
        for delivery in read.deliveries {
            let message = &delivery.message;
            let view = message.view().ok_or(Error::Internal)?;
            let history = History::of(message, lease, reason);
            let meta = history.added_to(view.meta());
            let bit = 1 << message.offset().since(lease.base);
            let Some(body) = view.body() else {
                let head = stream::iter([Ok(Bytes::from(stream_head(&meta)))]);
                let (start, end) = view.body_range();
                let body = self.body_part(tenant, message, 0..end - start).await?;
                let object = self
                    .uploads()
                    .upload(tenant.0, head.chain(body).boxed())
                    .await?;
                let block = object.block(*lane, object.streamed_measure().free());
                if !self.move_messages(subscriber, lease, bit, block).await? {
                    return kept(moved);
                }
                moved += 1;
                continue;
            };
            if group.bits != 0 && group.records.bytes() + body.len() > self.hot_limit_bytes() {
                let full = std::mem::take(&mut group);
                let more = full.bits.count_ones();
                if !self.move_group(subscriber, lease, *lane, full).await? {
                    return kept(moved);
                }
                moved += more;
            }
            group.records.push(&meta, body);
            group.bits |= bit;
        }
        if group.bits != 0 {
            let more = group.bits.count_ones();
            if !self.move_group(subscriber, lease, *lane, group).await? {
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

    /// Moves a group of small messages as one block. False when nothing was moved.
    async fn move_group(
        &self,
        subscriber: &Subscriber,
        lease: &Lease,
        lane: LaneId,
        group: Group,
    ) -> Result<bool, Error> {
        let measure = group.records.measure().free();
        let block = self
            .uploads()
            .block_of(lane, &group.records, measure)
            .await?;
        self.move_messages(subscriber, lease, group.bits, block)
            .await
    }

    /// Publishes a block and takes its messages out of the lease in one transaction. Does neither and returns false
    /// when another transaction has changed the lease meanwhile, or the topic was deleted.
    async fn move_messages(
        &self,
        subscriber: &Subscriber,
        lease: &Lease,
        bits: u64,
        block: NewBlock,
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
        let cleared = output.settled.iter().fold(0, |all, of| all | of.bits);
        if output.first_offsets == [None] || cleared != bits {
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

/// Why a message is in the dead-letter topic, and where it came from, as attributes.
struct History {
    attributes: [(&'static str, String); 6],
}

impl History {
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

    /// The message's own attributes and these. They replace the attributes of an earlier move.
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

//! Dead letters: messages whose attempts are used up, or that a consumer gave up, move to the subscription's dead-letter
//! topic. Their leases were set aside before; here they are read (which may need object storage, so no transaction is
//! open), and then published there and settled here in one transaction, so that no crash loses or doubles one. A receiver
//! never waits for the burial of what it did not get: that goes on in the background.
//!
//! A dead letter costs nothing, because nobody published it: its block has 0 units, and it is metered as `dead_letter`. It
//! is stored like any other message.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Timestamp;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::store;
use crate::store::lease::Lease;
use crate::store::turn::{Clear, NewBlock, TurnInput};

use crate::engine::error::Error;
use crate::engine::log::block::StoredMessage;
use crate::engine::log::payload::{Meta, Records, stream_head};
use crate::engine::subscriber::{Grant, Subscriber};
use crate::engine::{Engine, Tenant};

/// How long a lease is set aside for the move; what has not moved by then is due again.
pub(in crate::engine) const BURIAL_SECONDS: u32 = 60;
/// Leases that wait for their burial on this node; those beyond are due again, and found again, when their time is over.
const WAITING_MAX: usize = 1_024;
/// Burials at once, so that one that waits for object storage does not hold up all others.
pub(in crate::engine) const BURIALS_AT_ONCE: usize = 4;
/// Why a message is moved, as the reason says when nobody gave one.
const ATTEMPTS_USED_UP: &str = "max_attempts";

/// A lease that was set aside.
#[derive(Debug)]
struct Burial {
    subscriber: Arc<Subscriber>,
    lease: Lease,
    since: Instant,
}

/// Leases whose attempts are used up, set aside by this node.
#[derive(Debug, Default)]
pub(in crate::engine) struct Burials {
    waiting: Mutex<VecDeque<Burial>>,
    arrived: Notify,
}

impl Burials {
    /// Adds leases that were just set aside.
    pub(in crate::engine) fn add(&self, subscriber: &Arc<Subscriber>, leases: Vec<Lease>) {
        let mut waiting = self.waiting.lock();
        let room = WAITING_MAX.saturating_sub(waiting.len());
        for lease in leases.into_iter().take(room) {
            waiting.push_back(Burial {
                subscriber: subscriber.clone(),
                lease,
                since: Instant::now(),
            });
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    async fn next(&self) -> Burial {
        loop {
            let next = self.waiting.lock().pop_front();
            if let Some(next) = next {
                // Several may have been added at once: another loop looks too.
                self.arrived.notify_one();
                return next;
            }
            self.arrived.notified().await;
        }
    }
}

/// What became of the messages of a lease that was set aside.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::engine) struct Buried {
    /// Messages that are in the dead-letter topic now.
    pub(in crate::engine) moved: u32,
    /// Some were not moved: settled meanwhile, or there is no such topic any more. They are due again.
    pub(in crate::engine) kept: bool,
}

impl Engine {
    /// Moves what was set aside, until `stop`: what is left then is due again on another node.
    pub(in crate::engine) async fn bury_waiting(&self, stop: CancellationToken) {
        loop {
            let bury = async {
                let Burial {
                    subscriber,
                    lease,
                    since,
                } = self.inner.burials.next().await;
                if since.elapsed() >= Duration::from_secs(u64::from(BURIAL_SECONDS)) {
                    return;
                }
                if let Err(error) = self.bury(&subscriber, &lease, ATTEMPTS_USED_UP).await {
                    tracing::warn!(%error, "dead letters could not be moved; they are due again in a while");
                }
            };
            tokio::select! {
                () = bury => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Moves the messages of a lease that was set aside to the dead-letter topic: small ones in groups, each large one by
    /// itself, so that what has moved stays moved. Ends early when the lease is no longer there.
    pub(in crate::engine) async fn bury(
        &self,
        subscriber: &Arc<Subscriber>,
        lease: &Lease,
        reason: &str,
    ) -> Result<Buried, Error> {
        let kept = |moved| Ok(Buried { moved, kept: true });
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
            let story = Story::of(message, lease, reason);
            let meta = story.told(view.meta());
            let bit = 1 << (message.id().offset - lease.base);
            let Some(body) = view.body() else {
                let head = stream::iter([Ok(Bytes::from(stream_head(&meta)))]);
                let (start, end) = view.body_range();
                let body = self.body_part(tenant, message, 0..end - start).await?;
                let object = self.upload(tenant.0, head.chain(body).boxed()).await?;
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
        self.wake_topic(topic);
        let unread = read.unreadable.into_iter().next();
        unread.map_or(Ok(Buried { moved, kept: false }), |(_, error)| Err(error))
    }

    async fn move_group(
        &self,
        subscriber: &Subscriber,
        lease: &Lease,
        (lane, group): (i64, Group),
    ) -> Result<bool, Error> {
        let measure = group.records.measure().free();
        let block = self.block_of(lane, &group.records, measure).await?;
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
            slot: self.slot(),
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
        subscriber.moved(-i64::from(messages));
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

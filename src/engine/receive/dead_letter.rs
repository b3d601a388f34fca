//! Dead letters: a message moves to the subscription's dead-letter topic when its attempts are used up, or when a
//! consumer asks for it. A turn or redelivery has set its lease aside before (`turn::SetAside`). Background tasks move
//! what has gathered, many messages at once. Messages are read first, with no transaction open, because that may need
//! object storage. A turn of their own then publishes them to the dead-letter topic as one block and takes them out of
//! their leases, so a crash neither loses nor duplicates any. Only the consumer that asked waits for the move.
//!
//! A dead letter costs nothing, because no client published it: its block has 0 units, and it is metered as
//! `dead_letter`. It is stored like any other message.

use std::sync::Arc;

use api::{Timestamp, TopicName};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;
use crate::engine::access::Tenant;
use crate::engine::error::Error;
use crate::engine::log::block::StoredMessage;
use crate::engine::log::pack::hot_block;
use crate::engine::log::payload::{Meta, Records, stream_head};
use crate::engine::subscriber::{Grant, Subscriber};
use crate::engine::turn::{Aside, Moved};
use crate::store::lease::Lease;
use crate::store::turn::{LeaseAction, LeaseChange, NewBlock, TurnInput};
use crate::store::{self, Era, LaneId};

/// Tasks that move dead letters: while one waits for object storage, the others go on.
const MOVES_AT_ONCE: usize = 4;
/// Bytes of messages that are moved as one block.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// `cursus-dead-letter-reason` of a message whose attempts are used up.
const ATTEMPTS_USED_UP: &str = "max_attempts";

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

    /// Moves the next leases that were set aside.
    async fn move_next(&self) {
        let set_aside = &self.turns().set_aside;
        let (subscriber, mut leases) = set_aside.next().await;
        leases.retain(|aside| !aside.is_over());
        let mut moves = Moves::of(leases);
        if let Err(error) = self.move_all(&subscriber, &mut moves).await {
            tracing::warn!(%error, "dead letters could not be moved; they are due again in a while");
            moves.fail(&error);
        }
        moves.reply();
        set_aside.done(&subscriber);
    }

    /// Moves the messages of leases of one subscription to its dead-letter topic: small messages in groups, each large
    /// one by itself. Each group is a transaction of its own.
    async fn move_all(&self, subscriber: &Arc<Subscriber>, moves: &mut Moves) -> Result<(), Error> {
        let Some(topic) = subscriber.settings().dead_letter_topic_id else {
            moves.keep_all();
            return Ok(());
        };
        let mut session = self.store().session().await?;
        let lanes = store::lane::of_topic(&mut session, topic).await?;
        drop(session);
        let Some(lane) = lanes.first().copied() else {
            moves.keep_all();
            return Ok(());
        };
        let mut group = Group::default();
        for index in 0..moves.leases.len() {
            let grants = [Grant::of(&moves.leases[index].lease)];
            let read = self
                .read_leases(subscriber, &grants, usize::MAX, None)
                .await;
            moves.outcomes[index].error =
                read.unreadable.into_iter().next().map(|(_, error)| error);
            let mut history = History::of(&moves.leases[index].lease, &subscriber.topic);
            for read in read.messages {
                let aside = &moves.leases[index];
                let message = &read.message;
                let view = message.view().ok_or(Error::Internal)?;
                let bit = u8::try_from(message.offset().since(aside.lease.base));
                let bit = bit.map_err(|_| Error::Internal)?;
                let reason = aside.reason(bit).unwrap_or(ATTEMPTS_USED_UP);
                history.set(message, reason);
                let meta = history.added_to(view.meta());
                let Some(body) = view.body() else {
                    match self.large_block(subscriber, message, &meta, lane).await {
                        Ok(block) => {
                            let group = Group::of_one(index, bit);
                            self.move_messages(subscriber, block, &group, moves).await?;
                        }
                        Err(error) => moves.outcomes[index].error = Some(error),
                    }
                    continue;
                };
                if group.records.bytes() + body.len() > GROUP_BYTES_MAX {
                    let full = std::mem::take(&mut group);
                    self.move_group(subscriber, lane, full, moves).await?;
                }
                group.records.push(&meta, body);
                group.add(index, bit);
            }
        }
        self.move_group(subscriber, lane, group, moves).await?;
        self.turns().wake_topic(topic);
        Ok(())
    }

    /// A block in object storage for one message whose body is there already.
    async fn large_block(
        &self,
        subscriber: &Subscriber,
        message: &StoredMessage,
        meta: &Meta<'_>,
        lane: LaneId,
    ) -> Result<NewBlock, Error> {
        let tenant = Tenant(subscriber.tenant);
        let view = message.view().ok_or(Error::Internal)?;
        let era = self.store().era();
        let head = stream::iter([Ok(Bytes::from(stream_head(meta, era)))]);
        let (start, end) = view.body_range();
        let body = self.body_part(tenant, message, 0..end - start).await?;
        let object = self
            .uploads()
            .upload(tenant.0, era, head.chain(body).boxed())
            .await?;
        Ok(object.block(lane, object.streamed_measure().free()))
    }

    /// Moves a group of small messages as one block. If one of its leases has changed meanwhile, each lease by itself.
    async fn move_group(
        &self,
        subscriber: &Subscriber,
        lane: LaneId,
        group: Group,
        moves: &mut Moves,
    ) -> Result<(), Error> {
        if group.records.is_empty() {
            return Ok(());
        }
        let era = self.store().era();
        if self
            .try_move(subscriber, group.block(lane, era), &group, moves)
            .await?
        {
            return Ok(());
        }
        for part in group.by_lease() {
            self.move_messages(subscriber, part.block(lane, era), &part, moves)
                .await?;
        }
        Ok(())
    }

    /// Moves messages as this block. They are kept when that cannot be done.
    async fn move_messages(
        &self,
        subscriber: &Subscriber,
        block: NewBlock,
        group: &Group,
        moves: &mut Moves,
    ) -> Result<(), Error> {
        if !self.try_move(subscriber, block, group, moves).await? {
            for (index, bits) in &group.bits {
                moves.outcomes[*index].kept |= bits;
            }
        }
        Ok(())
    }

    /// Publishes a block and takes its messages out of their leases in one turn. Does neither and returns false when
    /// another transaction has changed a lease meanwhile, or the topic was deleted.
    async fn try_move(
        &self,
        subscriber: &Subscriber,
        block: NewBlock,
        group: &Group,
        moves: &mut Moves,
    ) -> Result<bool, Error> {
        let changes = group.bits.iter().map(|(index, bits)| {
            let key = moves.leases[*index].lease.key;
            LeaseChange {
                lane: key.lane,
                subscription: key.subscription,
                lease: key.lease,
                action: LeaseAction::Settle,
                mask: *bits,
                max_attempts: None,
            }
        });
        let mut changes: Vec<LeaseChange> = changes.collect();
        changes.sort_unstable();
        let input = TurnInput {
            blocks: vec![block],
            changes,
            slot: self.turns().slot(),
            strict: true,
            ..TurnInput::default()
        };
        let mut session = self.store().session().await?;
        match store::turn::run(&mut session, self.clock().now(), &input).await {
            Err(store::Error::Strict) => return Ok(false),
            done => done?,
        };
        drop(session);
        let mut messages = 0;
        for (index, bits) in &group.bits {
            moves.outcomes[*index].moved |= bits;
            messages += bits.count_ones();
        }
        subscriber.in_flight.moved(-i64::from(messages));
        self.metrics().dead_lettered.inc_by(u64::from(messages));
        Ok(true)
    }
}

/// Leases that are moved together, and what became of the messages of each.
struct Moves {
    leases: Vec<Aside>,
    outcomes: Vec<Moved>,
}

impl Moves {
    fn of(leases: Vec<Aside>) -> Self {
        let outcomes = leases.iter().map(|_| Moved::default());
        Self {
            outcomes: outcomes.collect(),
            leases,
        }
    }

    /// Keeps all messages in their leases.
    fn keep_all(&mut self) {
        for (aside, outcome) in self.leases.iter().zip(&mut self.outcomes) {
            outcome.kept = aside.lease.pending;
        }
    }

    /// Records why messages that were not moved were not.
    fn fail(&mut self, error: &Error) {
        for outcome in &mut self.outcomes {
            outcome.error.get_or_insert_with(|| error.clone());
        }
    }

    /// Sends the outcomes to the requests that wait for them.
    fn reply(self) {
        for (mut aside, outcome) in self.leases.into_iter().zip(self.outcomes) {
            aside.reply(outcome);
        }
    }
}

/// Messages that move together.
#[derive(Default)]
struct Group {
    records: Records,
    /// The leases by index, in order, with the messages of each as bits.
    bits: Vec<(usize, u64)>,
}

impl Group {
    /// A group of one message, which is not in its records.
    fn of_one(index: usize, bit: u8) -> Self {
        Self {
            records: Records::default(),
            bits: vec![(index, 1 << bit)],
        }
    }

    fn add(&mut self, index: usize, bit: u8) {
        match self.bits.last_mut() {
            Some((last, bits)) if *last == index => *bits |= 1 << bit,
            _ => self.bits.push((index, 1 << bit)),
        }
    }

    /// The messages as a block, which costs nothing.
    fn block(&self, lane: LaneId, era: Era) -> NewBlock {
        hot_block(lane, era, &self.records, self.records.measure().free()).0
    }

    /// A group for each lease.
    fn by_lease(&self) -> Vec<Self> {
        let mut start = 0;
        let parts = self.bits.iter().map(|(index, bits)| {
            let end = start + bits.count_ones() as usize;
            let records = self.records.part(start..end);
            start = end;
            Self {
                records,
                bits: vec![(*index, *bits)],
            }
        });
        parts.collect()
    }
}

/// Why a message is in the dead-letter topic, and where it came from, as attributes in order of name. Most of them are the
/// same for all messages of a lease.
struct History {
    attributes: [(&'static str, String); 6],
}

/// Positions in [`History`] of what differs by message.
const ID: usize = 2;
const REASON: usize = 4;

impl History {
    fn of(lease: &Lease, topic: &TopicName) -> Self {
        let text = |at: time::OffsetDateTime| Timestamp::from(at).to_string();
        let last = text(lease.last_failed_at.unwrap_or(lease.deadline));
        let first = lease.first_failed_at.map_or_else(|| last.clone(), text);
        Self {
            attributes: [
                ("cursus-dead-letter-attempts", lease.attempt.to_string()),
                ("cursus-dead-letter-first-failed-at", first),
                ("cursus-dead-letter-id", String::new()),
                ("cursus-dead-letter-last-failed-at", last),
                ("cursus-dead-letter-reason", String::new()),
                ("cursus-dead-letter-topic", topic.to_string()),
            ],
        }
    }

    /// Sets what differs by message.
    fn set(&mut self, message: &StoredMessage, reason: &str) {
        self.attributes[ID].1 = message.id().to_string();
        if self.attributes[REASON].1 != reason {
            reason.clone_into(&mut self.attributes[REASON].1);
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

//! Settle: acks join the next turn. Everything that splits a lease locks its rows, plans and writes in a transaction of
//! its own: changes of visibility, nacks, dead letters, and acks of messages that were split off before. Each item
//! succeeds or fails by itself, and only the current lease of a message can settle it (I3).

use std::sync::Arc;

use api::SubscriptionName;
use api::settle::{Extended, Outcome, Settled};
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::engine::access::Tenant;
use crate::engine::error::Error;
use crate::engine::lease::SET_ASIDE_SECONDS;
use crate::engine::lease::plan::{self, MessageStep, Step};
use crate::engine::lease::receipt::Receipt;
use crate::engine::log::block::message_id;
use crate::engine::receive::dead_letter::Moved;
use crate::engine::subscriber::Subscriber;
use crate::engine::turn::{Settle, SettleEntry};
use crate::store::LeaseId;

/// What to do with a message.
#[derive(Debug, Clone)]
pub enum Action {
    /// It is done.
    Ack,
    /// Hand it out again after some seconds.
    Nack {
        /// Seconds.
        delay_seconds: u32,
    },
    /// Hide it for some seconds from now; `None` means the subscription's timeout.
    Extend {
        /// Seconds.
        visibility_seconds: Option<u32>,
    },
    /// Move it to the dead-letter topic.
    DeadLetter {
        /// Why.
        reason: Option<String>,
    },
}

type Results = Vec<Result<Outcome, Error>>;

impl Engine {
    /// Settles messages by their receipts; one result per item, in order.
    ///
    /// # Errors
    /// When the subscription does not exist, or the database is unavailable.
    pub async fn settle(
        &self,
        tenant: Tenant,
        subscription: &SubscriptionName,
        items: Vec<(&str, Action)>,
    ) -> Result<Results, Error> {
        let subscriber = self
            .catalog()
            .subscriber(self.store(), tenant, subscription)
            .await?;
        let mut results: Results = Vec::with_capacity(items.len());
        let (mut acks, mut others) = (Vec::new(), Vec::new());
        for (index, (token, action)) in items.into_iter().enumerate() {
            results.push(Ok(Outcome::Settled(Settled {})));
            match (self.signer().verify(subscriber.id, token), action) {
                (None, _) => results[index] = Err(Error::ReceiptInvalid),
                (Some(receipt), Action::Ack) => acks.push((index, receipt)),
                (Some(receipt), action) => others.push((index, receipt, action)),
            }
        }
        if !others.is_empty() && names_one_twice(&acks, &others) {
            // The order of items matters: each one applies to the lease as the items before it left it.
            others.extend(
                acks.drain(..)
                    .map(|(index, receipt)| (index, receipt, Action::Ack)),
            );
            others.sort_unstable_by_key(|(index, ..)| *index);
            for round in others.chunk_by(|(.., a), (.., b)| is_dead_letter(a) == is_dead_letter(b))
            {
                Box::pin(self.change(&subscriber, round, &mut results)).await?;
            }
            return Ok(results);
        }
        if !acks.is_empty() {
            self.ack(&subscriber, &acks, &mut results).await?;
        }
        if !others.is_empty() {
            Box::pin(self.change(&subscriber, &others, &mut results)).await?;
        }
        Ok(results)
    }

    /// Acks messages by the next turn; those that the turn did not find in their lease by `reshape`.
    async fn ack(
        &self,
        subscriber: &Arc<Subscriber>,
        acks: &[(usize, Receipt)],
        results: &mut Results,
    ) -> Result<(), Error> {
        let mut entries: Vec<SettleEntry> = Vec::with_capacity(2);
        for (_, receipt) in acks {
            match entries
                .iter_mut()
                .find(|entry| entry.lease == receipt.lease)
            {
                Some(entry) => entry.mask |= receipt.mask(),
                None => entries.push(SettleEntry {
                    lane: receipt.lane,
                    lease: receipt.lease,
                    mask: receipt.mask(),
                }),
            }
        }
        let leases: Vec<LeaseId> = entries.iter().map(|entry| entry.lease).collect();
        let (reply, settled) = oneshot::channel();
        self.turns().queue(subscriber.topic_id).settle(Settle {
            subscriber: subscriber.clone(),
            entries,
            reply,
        });
        let mut bits = settled
            .await
            .map_err(|_| Error::Unavailable("the node"))??;
        let mut missed = Vec::new();
        for (index, receipt) in acks {
            let at = leases
                .iter()
                .position(|lease| *lease == receipt.lease)
                .unwrap_or(0);
            if bits[at] & receipt.mask() == 0 {
                missed.push((*index, *receipt));
            }
            bits[at] &= !receipt.mask();
        }
        if missed.is_empty() {
            return Ok(());
        }
        // These are not in the lease as it was handed out: a change of visibility split them off, or the lease is lost.
        let items: Vec<MessageStep> = missed
            .iter()
            .map(|(_, receipt)| item(receipt, Step::Done))
            .collect();
        let (current, _, _) = Box::pin(self.leases().reshape(subscriber, &items)).await?;
        let done = current.iter().filter(|current| **current).count();
        subscriber
            .in_flight
            .moved(-i64::try_from(done).unwrap_or(0));
        for ((index, _), current) in missed.iter().zip(current) {
            if !current {
                results[*index] = Err(Error::LeaseLost);
            }
        }
        Ok(())
    }

    /// Settles items by transactions of their own. Dead letters come last.
    async fn change(
        &self,
        subscriber: &Arc<Subscriber>,
        others: &[(usize, Receipt, Action)],
        results: &mut Results,
    ) -> Result<(), Error> {
        let default_seconds = subscriber.settings().visibility_seconds.unsigned_abs();
        let (mut steps, mut dead_letters) = (Vec::new(), Vec::new());
        for (index, receipt, action) in others {
            match action {
                Action::Ack => steps.push((*index, receipt, Step::Done)),
                Action::Nack { delay_seconds } => {
                    steps.push((*index, receipt, Step::Return(*delay_seconds)))
                }
                Action::Extend { visibility_seconds } => {
                    let seconds = visibility_seconds.unwrap_or(default_seconds);
                    steps.push((*index, receipt, Step::Hide(seconds)));
                }
                Action::DeadLetter { reason } => {
                    dead_letters.push((*index, receipt, reason.as_deref()))
                }
            }
        }
        let items: Vec<MessageStep> = steps
            .iter()
            .map(|(_, receipt, step)| item(receipt, *step))
            .collect();
        if !items.is_empty() {
            let (current, _, at) = self.leases().reshape(subscriber, &items).await?;
            let done = current
                .iter()
                .zip(&steps)
                .filter(|(current, (.., step))| **current && *step == Step::Done)
                .count();
            subscriber
                .in_flight
                .moved(-i64::try_from(done).unwrap_or(0));
            for ((index, receipt, step), current) in steps.into_iter().zip(current) {
                results[index] = match step {
                    _ if !current => Err(Error::LeaseLost),
                    Step::Hide(seconds) => Ok(Outcome::Extended(Extended {
                        receipt: self.signer().sign(subscriber.id, *receipt),
                        visible_until: plan::after(at, seconds).into(),
                    })),
                    Step::Done | Step::Return(_) | Step::GiveBack(_) => {
                        Ok(Outcome::Settled(Settled {}))
                    }
                };
            }
        }
        for (index, receipt, reason) in dead_letters {
            results[index] = self.dead_letter(subscriber, receipt, reason).await;
        }
        Ok(())
    }

    /// Takes one message out of its lease and moves it to the dead-letter topic.
    async fn dead_letter(
        &self,
        subscriber: &Arc<Subscriber>,
        receipt: &Receipt,
        reason: Option<&str>,
    ) -> Result<Outcome, Error> {
        let settings = subscriber.settings();
        if settings.dead_letter_topic_id.is_none() {
            return Err(Error::Conflict(format!(
                "subscription {} has no dead_letter_topic",
                settings.name
            )));
        }
        let step = Step::Return(SET_ASIDE_SECONDS);
        let (current, taken, _) = self
            .leases()
            .reshape(subscriber, &[item(receipt, step)])
            .await?;
        if current != [true] {
            return Err(Error::LeaseLost);
        }
        let mut outcome = Moved::default();
        for lease in &taken {
            let reason = reason.unwrap_or("dead_letter");
            outcome = self.move_to_dead_letters(subscriber, lease, reason).await?;
        }
        let id = message_id(receipt.lane, receipt.offset);
        match outcome {
            Moved { kept: true, .. } => Err(Error::Conflict(format!(
                "message {id} was not moved: the dead_letter_topic of subscription {} is gone, or the message was \
                 settled at the same moment; it is handed out again after {SET_ASIDE_SECONDS} seconds unless it was",
                settings.name,
            ))),
            // Retention deleted it before it could be read.
            Moved { messages: 0, .. } => Err(Error::not_found("message", id)),
            Moved { .. } => Ok(Outcome::Settled(Settled {})),
        }
    }
}

/// Whether the same message occurs more than once.
fn names_one_twice(acks: &[(usize, Receipt)], others: &[(usize, Receipt, Action)]) -> bool {
    let mut messages: Vec<_> = acks
        .iter()
        .map(|(_, receipt)| receipt)
        .chain(others.iter().map(|(_, receipt, _)| receipt))
        .map(|receipt| (receipt.lane, receipt.offset))
        .collect();
    messages.sort_unstable();
    messages.windows(2).any(|pair| pair[0] == pair[1])
}

fn is_dead_letter(action: &Action) -> bool {
    matches!(action, Action::DeadLetter { .. })
}

fn item(receipt: &Receipt, step: Step) -> MessageStep {
    MessageStep {
        lane: receipt.lane,
        lease: receipt.lease,
        bit: receipt.bit,
        step,
    }
}

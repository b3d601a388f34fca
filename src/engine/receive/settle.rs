//! Settle: acks, nacks, changes of visibility and dead letters join the next turn, one masked change per lease and action.
//! Each item succeeds or fails by itself, and only the current lease of a message can settle it (I3). A turn takes
//! messages for the dead-letter topic out of their leases, and `dead_letter` moves them.

use std::sync::Arc;

use api::SubscriptionName;
use api::settle::{Extended, Outcome, Settled};
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::engine::access::Tenant;
use crate::engine::error::Error;
use crate::engine::lease::plan::after;
use crate::engine::lease::receipt::Receipt;
use crate::engine::subscriber::Subscriber;
use crate::engine::turn::{Changed, Moved, Settle, SettleEntry};
use crate::store;
use crate::store::lost_lease::{self, LeaseBits};
use crate::store::subscription::SubscriptionRow;
use crate::store::turn::{ASIDE_SECONDS, LeaseAction};

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
    /// Hand it out again at once: it was handed out to nobody, so that this is no attempt. Not for clients.
    GiveBack,
    /// Move it to the dead-letter topic.
    DeadLetter {
        /// Why.
        reason: Option<String>,
    },
}

/// `cursus-dead-letter-reason` of a message whose consumer gave none.
const NO_REASON: &str = "dead_letter";

type Results = Vec<Result<Outcome, Error>>;

/// An item whose receipt is valid.
struct Item<'a> {
    /// Its index in the request.
    index: usize,
    token: &'a str,
    receipt: Receipt,
    /// The index of its entry in the turn.
    entry: usize,
    /// Why it is to be moved to the dead-letter topic.
    reason: Option<String>,
}

/// Items that one turn can take: no message is in it twice.
#[derive(Default)]
struct Round<'a> {
    items: Vec<Item<'a>>,
    entries: Vec<SettleEntry>,
}

impl<'a> Round<'a> {
    /// Adds an item. False when its message is in the round already.
    fn add(&mut self, item: Item<'a>, action: LeaseAction) -> Result<(), Item<'a>> {
        let (lane, lease, mask) = (item.receipt.lane, item.receipt.lease, item.receipt.mask());
        let mut found = None;
        for (index, entry) in self.entries.iter().enumerate() {
            if (entry.lane, entry.lease) == (lane, lease) {
                if entry.mask & mask != 0 {
                    return Err(item);
                }
                if entry.action == action {
                    found = Some(index);
                }
            }
        }
        let entry = found.unwrap_or_else(|| {
            self.entries.push(SettleEntry {
                lane,
                lease,
                action,
                mask: 0,
            });
            self.entries.len() - 1
        });
        self.entries[entry].mask |= mask;
        self.items.push(Item { entry, ..item });
        Ok(())
    }
}

impl Engine {
    /// Settles messages by their receipts; one result per item, in order. When a message is in several items, each one
    /// applies to its lease as the items before have left it.
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
        let settings = subscriber.settings();
        let mut results: Results = Vec::with_capacity(items.len());
        let mut round = Round::default();
        for (index, (token, action)) in items.into_iter().enumerate() {
            results.push(Ok(Outcome::Settled(Settled {})));
            let Some(receipt) = self.signer().verify(subscriber.id, token) else {
                results[index] = Err(Error::ReceiptInvalid);
                continue;
            };
            let (action, reason) = match lease_action(action, &settings) {
                Ok(action) => action,
                Err(error) => {
                    results[index] = Err(error);
                    continue;
                }
            };
            let item = Item {
                index,
                token,
                receipt,
                entry: 0,
                reason,
            };
            if let Err(item) = round.add(item, action) {
                let full = std::mem::take(&mut round);
                self.settle_round(&subscriber, full, &mut results).await?;
                let _ = round.add(item, action);
            }
        }
        if !round.items.is_empty() {
            self.settle_round(&subscriber, round, &mut results).await?;
        }
        Ok(results)
    }

    /// Settles items by the next turn.
    async fn settle_round(
        &self,
        subscriber: &Arc<Subscriber>,
        round: Round<'_>,
        results: &mut Results,
    ) -> Result<(), Error> {
        let actions: Vec<LeaseAction> = round.entries.iter().map(|entry| entry.action).collect();
        let (reply, changed) = oneshot::channel();
        self.turns().queue(subscriber.topic_id).settle(Settle {
            subscriber: subscriber.clone(),
            entries: round.entries,
            held_up: 0,
            reply,
        });
        let changed = changed
            .await
            .map_err(|_| Error::Unavailable("the node"))??;
        let mut unknown = Vec::new();
        for item in &round.items {
            if changed.bits[item.entry] & item.receipt.mask() == 0 {
                results[item.index] = Err(Error::LeaseLost);
                if actions[item.entry] == LeaseAction::Settle {
                    unknown.push(item);
                }
            } else if let LeaseAction::Hide(seconds) = actions[item.entry] {
                results[item.index] = Ok(Outcome::Extended(Extended {
                    receipt: item.token.to_owned(),
                    visible_until: after(changed.at, seconds).into(),
                }));
            }
        }
        if !unknown.is_empty() {
            Box::pin(self.acked_before(subscriber, &unknown, results)).await;
        }
        if !changed.aside.is_empty() {
            Box::pin(self.move_aside(subscriber, round.items, changed, results)).await;
        }
        Ok(())
    }

    /// Acks whose messages are not in their leases any more succeed if an ack by the same receipt was committed before:
    /// the client may not have got the answer. Every other way to lose a message is recorded (`store::lost_lease`).
    async fn acked_before(
        &self,
        subscriber: &Subscriber,
        items: &[&Item<'_>],
        results: &mut Results,
    ) {
        let asked = items.iter().map(|item| LeaseBits {
            lane: item.receipt.lane,
            lease: item.receipt.lease,
            bits: item.receipt.mask(),
        });
        let asked: Vec<LeaseBits> = asked.collect();
        let look = async {
            let mut session = self.store().session().await?;
            let found = lost_lease::not_lost(&mut session, subscriber.id, &asked).await?;
            Ok::<_, store::Error>((session.era(), found))
        };
        match look.await {
            Ok((era, found)) => {
                for (item, bits) in items.iter().zip(found) {
                    // An ack in a history that the database has lost is lost as well.
                    if bits != 0 && item.receipt.lease.is_of(era) {
                        results[item.index] = Ok(Outcome::Settled(Settled {}));
                    }
                }
            }
            Err(error) => {
                let error = Error::from(error);
                for item in items {
                    results[item.index] = Err(error.clone());
                }
            }
        }
    }

    /// Has the messages moved that a turn has set aside, and waits for it.
    async fn move_aside(
        &self,
        subscriber: &Arc<Subscriber>,
        items: Vec<Item<'_>>,
        changed: Changed,
        results: &mut Results,
    ) {
        let mut moves = Vec::with_capacity(changed.aside.len());
        for lease in changed.aside {
            let of_lease = |item: &&Item<'_>| {
                let base = lease.base.plus(i64::from(item.receipt.bit));
                // An old receipt of the same message has lost its lease.
                results[item.index].is_ok()
                    && item.reason.is_some()
                    && item.receipt.lane == lease.key.lane
                    && item.receipt.offset == base
                    && lease.pending & item.receipt.mask() != 0
            };
            let of_lease: Vec<&Item<'_>> = items.iter().filter(of_lease).collect();
            let reasons = of_lease.iter().filter_map(|item| {
                let reason = item.reason.clone()?;
                Some((item.receipt.bit, reason))
            });
            let moved = self
                .turns()
                .set_aside
                .ask(subscriber, lease, reasons.collect());
            moves.push((of_lease, moved));
        }
        for (of_lease, moved) in moves {
            let moved = moved.await;
            for item in of_lease {
                results[item.index] = match &moved {
                    Ok(moved) => outcome(item, moved, subscriber),
                    Err(_) => Err(Error::Unavailable("the node")),
                };
            }
        }
    }
}

/// What an action does with the lease, and why a message is to be moved to the dead-letter topic.
fn lease_action(
    action: Action,
    settings: &SubscriptionRow,
) -> Result<(LeaseAction, Option<String>), Error> {
    Ok(match action {
        Action::Ack => (LeaseAction::Settle, None),
        Action::Nack { delay_seconds } => (LeaseAction::Return(delay_seconds), None),
        Action::GiveBack => (LeaseAction::GiveBack(0), None),
        Action::Extend { visibility_seconds } => {
            let default_seconds = settings.visibility_seconds.unsigned_abs();
            let seconds = visibility_seconds.unwrap_or(default_seconds);
            (LeaseAction::Hide(seconds), None)
        }
        Action::DeadLetter { .. } if settings.dead_letter_topic_id.is_none() => {
            let name = &settings.name;
            let why = format!("subscription {name} has no dead_letter_topic");
            return Err(Error::Conflict(why));
        }
        Action::DeadLetter { reason } => {
            let reason = reason.unwrap_or_else(|| NO_REASON.to_owned());
            (LeaseAction::SetAside(ASIDE_SECONDS), Some(reason))
        }
    })
}

/// The result of an item whose message was to be moved to the dead-letter topic.
fn outcome(item: &Item<'_>, moved: &Moved, subscriber: &Subscriber) -> Result<Outcome, Error> {
    let mask = item.receipt.mask();
    if moved.moved & mask != 0 {
        return Ok(Outcome::Settled(Settled {}));
    }
    if moved.kept & mask != 0 {
        return Err(Error::Conflict(format!(
            "the message was not moved: the dead_letter_topic of subscription {} is gone, or the message was settled at \
             the same moment; it is handed out again after {ASIDE_SECONDS} seconds unless it was",
            subscriber.name,
        )));
    }
    // Without an error, retention deleted it before it could be read.
    let deleted = || Error::not_found("message", "of this receipt");
    Err(moved.error.clone().unwrap_or_else(deleted))
}

//! Attempts to deliver, so that people see what happened to a message. Drivers add them here, and a loop stores them: all
//! attempts of a subscription and a lane within a moment in one row. They are for people to look at: those of the last
//! moment before a crash are lost, and when too many wait, those that succeeded are left out.

use std::collections::HashMap;
use std::time::Duration;

use api::MessageId;
use api::push::PushAttempt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::error::Error;
use crate::engine::log::block::Delivery;
use crate::engine::log::pack::unpack;
use crate::engine::push::answer;
use crate::outbound::{self, Reply};
use crate::repeat::every;
use crate::store::push_attempt::{Attempts as Row, SPAN};
use crate::store::{self, LaneId, Offset, SubscriptionId};

/// Pause between two stores.
const PAUSE: Duration = Duration::from_millis(500);
/// Attempts that wait at most; a row of them has about a hundred bytes.
const WAITING_MAX: usize = 200_000;
/// Attempts of one row.
const ROW_MAX: usize = 2_000;
/// zstd level: the fastest.
const LEVEL: i32 = 1;
/// Bytes of a row, unpacked: each attempt has a few short texts.
const ROW_BYTES_MAX: usize = 4 << 20;
/// Rows of one statement.
const ROWS_MAX: usize = 500;
/// Rows that are read for one message.
const FOUND_MAX: i64 = 1_000;
/// Attempts of a message that are shown; the latest.
const SHOWN_MAX: usize = 1_000;

/// An attempt as it is stored. One letter a name, because there are many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Attempt {
    #[serde(skip)]
    lane: LaneId,
    /// Offset of the message.
    #[serde(rename = "o")]
    offset: i64,
    /// Number of the attempt.
    #[serde(rename = "n")]
    number: u32,
    /// When it was sent, in microseconds since 1970.
    #[serde(rename = "t")]
    at: i64,
    /// How long it took, in microseconds.
    #[serde(rename = "d")]
    took: u64,
    /// Status of the answer.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Why there was none.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The first bytes of the answer.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
}

impl Attempt {
    /// An attempt that has ended.
    pub(super) fn of(
        delivery: &Delivery,
        at: OffsetDateTime,
        took: Duration,
        result: &Result<Reply, outbound::Error>,
    ) -> Self {
        let reply = result.as_ref().ok();
        Self {
            lane: delivery.message.block.lane,
            offset: delivery.message.offset().get(),
            number: delivery.attempt,
            at: api::Timestamp::from(at).0,
            took: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            status: reply.map(|reply| reply.status),
            error: result.as_ref().err().map(ToString::to_string),
            answer: reply.and_then(|reply| answer::start_of(&reply.body)),
        }
    }

    fn has_failed(&self) -> bool {
        !self
            .status
            .is_some_and(|status| (200..300).contains(&status))
    }

    /// As the API shows it.
    #[expect(clippy::cast_precision_loss, reason = "a duration in microseconds")]
    fn shown(self, subscription: String) -> PushAttempt {
        PushAttempt {
            subscription,
            attempt: self.number,
            at: api::Timestamp(self.at),
            duration_seconds: self.took as f64 / 1e6,
            status: self.status,
            error: self.error,
            answer: self.answer,
        }
    }
}

/// The attempts of a node that wait to be stored.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    of: HashMap<(SubscriptionId, LaneId), Vec<Attempt>>,
    count: usize,
}

impl Attempts {
    /// Adds an attempt.
    pub(super) fn add(&self, subscription: SubscriptionId, attempt: Attempt) {
        let mut waiting = self.waiting.lock();
        if waiting.count >= WAITING_MAX && !attempt.has_failed() || waiting.count >= WAITING_MAX * 2
        {
            return;
        }
        waiting.count += 1;
        let key = (subscription, attempt.lane);
        waiting.of.entry(key).or_default().push(attempt);
    }

    /// Takes all, as rows.
    fn take(&self) -> Vec<Row> {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let mut rows = Vec::new();
        for ((subscription, lane), mut attempts) in waiting.of {
            attempts.sort_by_key(|attempt| (attempt.offset, attempt.number));
            let mut rest = &attempts[..];
            while let Some(first) = rest.first().map(|attempt| attempt.offset) {
                let fits = rest.partition_point(|attempt| attempt.offset < first + SPAN);
                let (part, others) = rest.split_at(fits.min(ROW_MAX));
                rest = others;
                let last = part.last().map_or(first, |attempt| attempt.offset);
                if let Some(attempts) = packed(part) {
                    rows.push(Row {
                        lane,
                        subscription,
                        first: Offset::new(first),
                        last: Offset::new(last),
                        attempts,
                    });
                }
            }
        }
        rows
    }
}

/// Attempts as a row holds them.
fn packed(attempts: &[Attempt]) -> Option<Vec<u8>> {
    let json = serde_json::to_vec(attempts).ok()?;
    zstd::bulk::compress(&json, LEVEL).ok()
}

/// The attempts of a row. It is one of this service's own frames.
fn unpacked(row: &[u8]) -> Option<Vec<Attempt>> {
    let json = unpack(row, ROW_BYTES_MAX)?;
    serde_json::from_slice(&json).ok()
}

impl Engine {
    /// Stores attempts until `stop`, and then those that are left.
    pub(super) async fn store_attempts(self, stop: CancellationToken) {
        let mut rounds = every(PAUSE, &stop);
        loop {
            let goes_on = rounds.next().await;
            let rows = self.push().attempts.take();
            for part in rows.chunks(ROWS_MAX) {
                if let Err(error) = self.store_rows(part).await {
                    tracing::warn!(%error, rows = part.len(), "attempts of deliveries were not recorded");
                }
            }
            if !goes_on {
                return;
            }
        }
    }

    async fn store_rows(&self, rows: &[Row]) -> Result<(), store::Error> {
        let mut session = self.store().session().await?;
        store::push_attempt::insert(&mut session, rows, self.clock().now()).await
    }

    /// The attempts to deliver a message, in their order; the latest if there are many.
    ///
    /// # Errors
    /// When the message does not exist (any more) for this caller, or the database or object storage is unavailable.
    pub async fn attempts(&self, by: &Access, id: MessageId) -> Result<Vec<PushAttempt>, Error> {
        let message = self.stored_message(by, id).await?;
        let (lane, offset) = (message.block.lane, message.offset());
        let mut session = self.store().session().await?;
        let rows = store::push_attempt::of_message(&mut session, lane, offset, FOUND_MAX).await?;
        let ids: Vec<SubscriptionId> = rows.iter().map(|row| row.subscription_id).collect();
        let names = store::subscription::names(&mut session, by.tenant().0, &ids).await?;
        let mut shown = Vec::new();
        for row in rows {
            let name = names.iter().find(|named| named.0 == row.subscription_id);
            let (Some((_, name)), Some(attempts)) = (name, unpacked(&row.attempts)) else {
                continue;
            };
            let of_message = attempts
                .into_iter()
                .filter(|one| one.offset == offset.get());
            shown.extend(of_message.map(|one| one.shown(name.clone())));
        }
        shown.sort_by_key(|attempt| attempt.at);
        let older = shown.len().saturating_sub(SHOWN_MAX);
        shown.drain(..older);
        Ok(shown)
    }
}

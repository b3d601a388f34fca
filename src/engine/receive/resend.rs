//! Resend: hands messages out again that a subscription is done with, by push or by receive. They become leases that are
//! due at once, so all else is as with messages that were returned. Messages that are in a lease stay in it (I2).

use std::sync::Arc;

use api::limits::RESEND_MESSAGES_MAX;
use api::resend::{ResendRequest, ResendResult};
use api::{FieldError, MessageId, SubscriptionName};

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::access::audit::{self, Change};
use crate::engine::error::Error;
use crate::engine::subscriber::Subscriber;
use crate::store::{self, CursorKey, LaneId, Offset, Session};

/// Offsets of a lane, from the first up to and without the last.
type Span = (LaneId, Offset, Offset);

impl Engine {
    /// Hands messages out again that the subscription is done with.
    ///
    /// # Errors
    /// When the subscription or the message does not exist, there are too many messages, or the database is unavailable.
    pub async fn resend(
        &self,
        by: &Access,
        name: &SubscriptionName,
        request: &ResendRequest,
    ) -> Result<ResendResult, Error> {
        let (tenant, now) = (by.tenant(), self.clock().now());
        let subscriber = self
            .catalog()
            .subscriber(self.store(), tenant, name)
            .await?;
        let spans = match request.message_id {
            Some(id) => vec![self.span_of(&subscriber, id).await?],
            None => self.spans_in(&subscriber, request).await?,
        };
        let all: i64 = spans
            .iter()
            .map(|(_, first, end)| end.since(*first).max(0))
            .sum();
        if all > i64::from(RESEND_MESSAGES_MAX) {
            let detail =
                format!("the range has {all} messages, at most {RESEND_MESSAGES_MAX} are allowed");
            return Err(Error::Invalid(vec![FieldError::new("/from", detail)]));
        }
        let mut tx = self.store().tx("resend").await?;
        let mut messages = 0;
        for (lane, first, end) in spans {
            let subscription = subscriber.id;
            let key = CursorKey { lane, subscription };
            let Some(cursor) = store::cursor::lock(&mut tx, key).await? else {
                continue;
            };
            let end = end.min(cursor.next_offset);
            if first < end {
                messages += store::lease_resend::insert(&mut tx, key, (first, end), now).await?;
            }
        }
        let change = Change {
            tenant: Some(tenant),
            action: "subscription.resend",
            target: name.as_str(),
            detail: request,
        };
        audit::record(&mut tx, by, change, now).await?;
        tx.commit().await?;
        self.look_for_due(&subscriber);
        self.turns().wake_topic(subscriber.topic_id);
        Ok(ResendResult {
            messages: messages.unsigned_abs(),
        })
    }

    /// The place of a message, if the topic of the subscription has it.
    async fn span_of(&self, subscriber: &Arc<Subscriber>, id: MessageId) -> Result<Span, Error> {
        let missing = || Error::not_found("message", id);
        let (lane, offset) = (LaneId::new(id.lane), Offset::new(id.offset));
        if !subscriber.lanes.all().contains(&lane) {
            return Err(missing());
        }
        let block = self.reader().block(subscriber.tenant, lane, offset).await?;
        let block = block.ok_or_else(missing)?;
        // The message of another era at this offset is another message.
        if block.payload.era().get() != id.era {
            return Err(missing());
        }
        Ok((lane, offset, offset.plus(1)))
    }

    /// The places of the messages that were published in a range of time.
    async fn spans_in(
        &self,
        subscriber: &Arc<Subscriber>,
        request: &ResendRequest,
    ) -> Result<Vec<Span>, Error> {
        let mut session = self.store().session().await?;
        let mut spans = Vec::new();
        for lane in subscriber.lanes.all().iter().copied() {
            let Some(from) = request.from else { continue };
            let first = store::block::after_time(&mut session, lane, from.into()).await?;
            let end = end_of(&mut session, lane, request).await?;
            spans.extend(first.zip(end).map(|(first, end)| (lane, first, end)));
        }
        Ok(spans)
    }
}

async fn end_of(
    session: &mut Session,
    lane: LaneId,
    request: &ResendRequest,
) -> Result<Option<Offset>, store::Error> {
    match request.until {
        Some(until) => store::block::after_time(session, lane, until.into()).await,
        None => store::block::end(session, lane).await,
    }
}

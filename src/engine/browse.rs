//! Browse: looking at messages without consuming them. An id grants nothing: its lane is looked up through the tenant (I7).

use api::limits::PAGE;
use api::{MessageId, TopicName};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::store;

use super::delivery::StoredMessage;
use super::error::Error;
use super::{BodyStream, Engine, From, Tenant};

impl Engine {
    /// One message, not consumed.
    ///
    /// # Errors
    /// When it does not exist (any more), or a place of payloads does not answer.
    pub async fn message(&self, tenant: Tenant, id: MessageId) -> Result<StoredMessage, Error> {
        let missing = || Error::not_found("message", id);
        let entry = self
            .catalog()
            .topic_of_lane(self.store(), tenant, id.lane)
            .await?
            .ok_or_else(missing)?;
        let block = self
            .reader()
            .block(id.lane, id.offset)
            .await?
            .ok_or_else(missing)?;
        let index = usize::try_from(id.offset - block.first_offset).map_err(|_| missing())?;
        let message = StoredMessage {
            block,
            index,
            topic: entry.name.clone(),
        };
        if message.view().is_none() {
            return Err(missing());
        }
        Ok(message)
    }

    /// The body of one message.
    ///
    /// # Errors
    /// As [`Engine::message`].
    pub async fn message_body(&self, tenant: Tenant, id: MessageId) -> Result<BodyStream, Error> {
        let message = self.message(tenant, id).await?;
        let view = message.view().ok_or(Error::Internal)?;
        let (start, end) = view.body_range();
        let content_type = view.meta().content_type.unwrap_or_default().to_owned();
        Ok(BodyStream {
            content_type,
            bytes: end - start,
            stream: self.body_stream(&message).await?,
        })
    }

    /// The body of a message as a stream, from memory or from its object.
    pub(super) async fn body_stream(
        &self,
        message: &StoredMessage,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let view = message.view().ok_or(Error::Internal)?;
        if let Some(body) = view.body() {
            return Ok(stream::iter([Ok(Bytes::copy_from_slice(body))]).boxed());
        }
        let (lane, first) = (message.block.lane, message.block.first_offset);
        let mut session = self.store().session().await?;
        let row = store::block::covering(&mut session, lane, first, first + 1, 1)
            .await?
            .pop();
        drop(session);
        let missing = || Error::not_found("message", message.id());
        let (key, at) = row
            .and_then(|row| row.object_key.zip(row.object_offset))
            .ok_or_else(missing)?;
        let (start, end) = view.body_range();
        let at = at.unsigned_abs();
        let body = self.blob().stream(&key, at + start..at + end).await?;
        Ok(body.map_err(Error::from).boxed())
    }

    /// Messages of a topic from a place on, lane by lane, and the `next` cursor.
    ///
    /// # Errors
    /// When the topic does not exist, or a place of payloads does not answer.
    pub async fn browse(
        &self,
        tenant: Tenant,
        topic: &TopicName,
        from: From,
        limit: u32,
    ) -> Result<(Vec<StoredMessage>, Option<String>), Error> {
        let entry = self.catalog().topic(self.store(), tenant, topic).await?;
        let limit = limit.clamp(*PAGE.start(), *PAGE.end()) as usize;
        let first_lane = match from {
            From::Start | From::Time(_) => 0,
            From::Message(id) | From::After(id) => {
                let lane = entry.lanes.iter().position(|lane| *lane == id.lane);
                lane.ok_or_else(|| Error::not_found("message", id))?
            }
        };
        let mut messages: Vec<StoredMessage> = Vec::new();
        for (index, lane) in entry.lanes.iter().enumerate().skip(first_lane) {
            let from = if index == first_lane {
                from
            } else if let From::Time(_) = from {
                from
            } else {
                From::Start
            };
            let mut at = self.first_offset(*lane, from).await?;
            while messages.len() <= limit {
                let want = i64::try_from(limit + 1 - messages.len()).unwrap_or(1);
                let blocks = self.reader().blocks(*lane, at..at + want).await?;
                let Some(last) = blocks.last() else { break };
                let until = last.end();
                for block in blocks {
                    let begin = usize::try_from(at - block.first_offset).unwrap_or(0);
                    let all = begin..block.payload.len();
                    messages.extend(all.map(|index| StoredMessage {
                        block: block.clone(),
                        index,
                        topic: entry.name.clone(),
                    }));
                }
                at = until;
            }
        }
        let more = messages.len() > limit;
        messages.truncate(limit);
        let next = messages
            .last()
            .filter(|_| more)
            .map(|last| last.id().to_string());
        Ok((messages, next))
    }

    async fn first_offset(&self, lane: i64, from: From) -> Result<i64, Error> {
        let mut session = self.store().session().await?;
        match from {
            From::Message(id) => Ok(id.offset),
            From::After(id) => Ok(id.offset + 1),
            From::Start => Ok(store::lane::start(&mut session, lane).await?.unwrap_or(0)),
            From::Time(at) => {
                match store::block::after_time(&mut session, lane, at.into()).await? {
                    Some(first) => Ok(first),
                    None => Ok(store::block::end(&mut session, lane).await?.unwrap_or(0)),
                }
            }
        }
    }
}

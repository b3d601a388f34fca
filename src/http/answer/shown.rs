//! Messages as JSON, serialised directly from the cached block into the response. A time that consecutive messages
//! share is formatted once. This is the most frequent serialisation of the service. `api::message::{Message,
//! ReceivedMessage}` document the same shape; a test compares them.

use api::Timestamp;
use api::limits::INLINE_BODY_BYTES_MAX;
use axum::response::Response;
use base64::display::Base64Display;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use super::held::Holder;
use super::json_text;
use crate::engine::log::payload::View;
use crate::engine::{Delivery, Error, StoredMessage};

/// Approximate size of a message in a response, without its body.
const FRAME_BYTES: usize = 320;

#[derive(Serialize)]
struct MessageJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<&'a str>,
    id: &'a str,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<Base64<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_url: Option<String>,
    content_type: &'a str,
    #[serde(skip_serializing_if = "Attributes::is_empty")]
    attributes: Attributes<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    published_at: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    visible_until: Option<&'a str>,
}

struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::<GeneralPurpose>::new(self.0, &STANDARD))
    }
}

struct Attributes<'a>(Vec<(&'a str, &'a str)>);

impl Attributes<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// A time with its text, which is reused while the time stays the same.
#[derive(Default)]
struct TimeText {
    at: Option<Timestamp>,
    text: String,
}

impl TimeText {
    fn text(&mut self, at: Timestamp) -> &str {
        if self.at != Some(at) {
            self.at = Some(at);
            self.text = at.to_string();
        }
        &self.text
    }
}

/// Writes the text of a response with messages.
struct Writer {
    out: Vec<u8>,
    /// Bytes of bodies that the response may still include.
    room: usize,
    published: TimeText,
    visible: TimeText,
}

impl Writer {
    fn of(messages: usize, body_bytes: usize, room: usize) -> Self {
        let body_bytes = body_bytes.min(room);
        Self {
            out: Vec::with_capacity(64 + messages * FRAME_BYTES + body_bytes + body_bytes / 8),
            room,
            published: TimeText::default(),
            visible: TimeText::default(),
        }
    }

    fn put(&mut self, message: &StoredMessage, lease: Option<&Delivery>) -> Result<(), Error> {
        let view = message.view().ok_or_else(|| {
            tracing::error!(id = %message.id(), "a message is not in its block");
            Error::Internal
        })?;
        let meta = view.meta();
        let id = message.id().to_chars();
        let id = std::str::from_utf8(&id).map_err(|_| Error::Internal)?;
        let inline = view
            .body()
            .filter(|body| body.len() <= INLINE_BODY_BYTES_MAX.min(self.room));
        self.room -= inline.map_or(0, <[u8]>::len);
        let text = inline.and_then(|_| view.text());
        let shown = MessageJson {
            receipt: lease.map(|lease| lease.receipt.as_str()),
            id,
            topic: message.topic.as_str(),
            body: text,
            body_base64: inline.filter(|_| text.is_none()).map(Base64),
            body_url: inline.is_none().then(|| format!("/v1/messages/{id}/body")),
            content_type: meta.content_type.unwrap_or_default(),
            attributes: Attributes(meta.attributes),
            tag: meta.tag,
            key: meta.key,
            traceparent: meta.traceparent,
            tracestate: meta.tracestate,
            attempt: lease.map(|lease| lease.attempt),
            published_at: self.published.text(message.block.published_at),
            visible_until: lease.map(|lease| self.visible.text(lease.visible_until)),
        };
        serde_json::to_writer(&mut self.out, &shown).map_err(|_| Error::Internal)
    }
}

fn body_bytes(message: &StoredMessage) -> usize {
    let view: Option<View<'_>> = message.view();
    view.and_then(|view| view.body())
        .map_or(0, <[u8]>::len)
        .min(INLINE_BODY_BYTES_MAX)
}

/// The response to a receive.
pub(in crate::http) fn received(
    deliveries: &[Delivery],
    holder: Holder<'_>,
) -> Result<Response, Error> {
    let bytes = deliveries.iter().map(|d| body_bytes(&d.message)).sum();
    let held = holder.hold(bytes);
    let mut writer = Writer::of(deliveries.len(), bytes, held.room());
    writer.out.extend_from_slice(br#"{"messages":["#);
    for (index, delivery) in deliveries.iter().enumerate() {
        if index > 0 {
            writer.out.push(b',');
        }
        writer.put(&delivery.message, Some(delivery))?;
    }
    writer.out.extend_from_slice(b"]}");
    Ok(held.response(writer.out))
}

/// A page of messages.
pub(in crate::http) fn page(
    messages: &[StoredMessage],
    next: Option<&str>,
    holder: Holder<'_>,
) -> Result<Response, Error> {
    let bytes = messages.iter().map(body_bytes).sum();
    let held = holder.hold(bytes);
    let mut writer = Writer::of(messages.len(), bytes, held.room());
    writer.out.extend_from_slice(br#"{"items":["#);
    for (index, message) in messages.iter().enumerate() {
        if index > 0 {
            writer.out.push(b',');
        }
        writer.put(message, None)?;
    }
    writer.out.push(b']');
    if let Some(next) = next {
        writer.out.extend_from_slice(br#","next":"#);
        serde_json::to_writer(&mut writer.out, next).map_err(|_| Error::Internal)?;
    }
    writer.out.push(b'}');
    Ok(held.response(writer.out))
}

/// One message.
pub(in crate::http) fn one(message: &StoredMessage) -> Result<Response, Error> {
    let mut writer = Writer::of(1, body_bytes(message), INLINE_BODY_BYTES_MAX);
    writer.put(message, None)?;
    Ok(json_text(writer.out))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::list::Page;
    use api::message::{Message, Received};
    use bytes::Bytes;
    use http_body_util::BodyExt;

    use super::*;
    use crate::engine::Tenant;
    use crate::engine::held::Budget;
    use crate::engine::log::block::Block;
    use crate::engine::log::payload::{Meta, Payload, Records, stream_head};
    use crate::store::{Era, LaneId, Offset, TenantId, TopicId};

    fn block(payload: Vec<u8>, beyond: u64) -> Arc<Block> {
        let total = payload.len() as u64 + beyond;
        Arc::new(Block {
            lane: LaneId::new(1),
            first_offset: Offset::new(5),
            published_at: Timestamp(1_769_860_800_123_456),
            is_cold: false,
            payload: Payload::parse(Bytes::from(payload), total).unwrap(),
        })
    }

    fn messages(block: &Arc<Block>) -> Vec<StoredMessage> {
        let topic = Arc::new("orders".parse().unwrap());
        let message = |index| StoredMessage {
            block: Arc::clone(block),
            index,
            topic: Arc::clone(&topic),
            topic_id: TopicId::new(1),
        };
        (0..block.payload.len()).map(message).collect()
    }

    fn records() -> Records {
        let mut records = Records::default();
        let meta = Meta {
            tag: Some("eu"),
            attributes: vec![("a", "1"), ("b", "\"")],
            ..Meta::default()
        };
        records.push(&meta, b"hello \"you\"");
        records.push(&Meta::default(), b"\xff\x00");
        records.push(&Meta::default(), &vec![b'x'; INLINE_BODY_BYTES_MAX + 1]);
        records
    }

    /// Calls `write` with a budget of this many bytes, and returns the text of its answer.
    async fn text_of(
        max: usize,
        write: impl FnOnce(Holder<'_>) -> Result<Response, Error>,
    ) -> Bytes {
        let budget = Budget::new(max);
        let tenant = Tenant(TenantId::new(1));
        let holder = Holder {
            budget: &budget,
            tenant,
        };
        let body = write(holder).unwrap().into_body();
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn what_a_receive_writes_is_what_the_wire_type_reads() {
        let block = block(records().to_payload(Era::FIRST), 0);
        let deliveries: Vec<_> = messages(&block)
            .into_iter()
            .map(|message| Delivery {
                receipt: "r.1".to_owned(),
                message,
                attempt: 2,
                visible_until: Timestamp(1_769_860_830_000_000),
            })
            .collect();
        let text = text_of(1 << 20, |holder| received(&deliveries, holder)).await;
        let read: Received = serde_json::from_slice(&text).unwrap();
        let again: serde_json::Value = serde_json::to_value(&read).unwrap();
        assert_eq!(
            again,
            serde_json::from_slice::<serde_json::Value>(&text).unwrap()
        );
        let [text, bytes, large] = &read.messages[..] else {
            panic!("three messages");
        };
        assert_eq!(text.message.body.as_deref(), Some("hello \"you\""));
        assert_eq!(text.message.attributes["b"], "\"");
        assert_eq!((text.attempt, text.receipt.as_str()), (2, "r.1"));
        assert_eq!(bytes.message.body_base64.as_deref(), Some("/wA="));
        assert_eq!(
            large.message.body_url,
            Some(format!("/v1/messages/{}/body", large.message.id))
        );
        let none = text_of(0, |holder| received(&[], holder)).await;
        assert_eq!(none, br#"{"messages":[]}"#[..]);
    }

    #[tokio::test]
    async fn bodies_that_find_no_room_are_named_by_a_url() {
        let mut records = Records::default();
        for _ in 0..5 {
            records.push(&Meta::default(), &vec![b'x'; 30_000]);
        }
        let block = block(records.to_payload(Era::FIRST), 0);
        // Two thirds of it are free to one tenant.
        let text = text_of(90_000, |holder| page(&messages(&block), None, holder)).await;
        let read: Page<Message> = serde_json::from_slice(&text).unwrap();
        let inline = read.items.iter().filter(|item| item.body.is_some());
        let urls = read.items.iter().filter(|item| item.body_url.is_some());
        assert_eq!((inline.count(), urls.count()), (2, 3));
    }

    #[tokio::test]
    async fn a_page_and_a_large_message_read_back() {
        let block1 = block(records().to_payload(Era::FIRST), 0);
        let all = messages(&block1);
        let text = text_of(1 << 20, |holder| page(&all, Some("next"), holder)).await;
        let read: Page<Message> = serde_json::from_slice(&text).unwrap();
        assert_eq!((read.items.len(), read.next.as_deref()), (3, Some("next")));
        let large = block(stream_head(&Meta::default(), Era::FIRST), 1_000);
        let text = text_of(0, |_| one(&messages(&large)[0])).await;
        let read: Message = serde_json::from_slice(&text).unwrap();
        assert!(read.body_url.is_some() && read.body_base64.is_none());
    }
}

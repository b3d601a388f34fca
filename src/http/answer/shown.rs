//! Responses with messages (`engine::log::json` writes them), bounded by the budget for bodies.

use api::limits::INLINE_BODY_BYTES_MAX;
use axum::response::Response;

use super::held::Holder;
use super::json_text;
use crate::engine::log::json::MessageWriter;
use crate::engine::{Delivery, Error, StoredMessage};

fn body_bytes(message: &StoredMessage) -> usize {
    let view = message.view();
    view.and_then(|view| view.body())
        .map_or(0, <[u8]>::len)
        .min(INLINE_BODY_BYTES_MAX)
}

fn writer(room: usize) -> MessageWriter {
    MessageWriter::new(INLINE_BODY_BYTES_MAX, room)
}

/// The response to a receive.
pub(in crate::http) fn received(
    deliveries: &[Delivery],
    holder: Holder<'_>,
) -> Result<Response, Error> {
    let bytes = deliveries.iter().map(|d| body_bytes(&d.message)).sum();
    let held = holder.hold(bytes);
    let mut writer = writer(held.room()).sized(deliveries.len(), bytes);
    writer.put_received(deliveries)?;
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
    let mut writer = writer(held.room()).sized(messages.len(), bytes);
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
    let mut writer = writer(INLINE_BODY_BYTES_MAX).sized(1, body_bytes(message));
    writer.put(message, None)?;
    Ok(json_text(writer.out))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::list::Page;
    use api::message::{Message, ReceiveResult};
    use bytes::Bytes;
    use http_body_util::BodyExt;

    use api::Timestamp;

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
        let read: ReceiveResult = serde_json::from_slice(&text).unwrap();
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

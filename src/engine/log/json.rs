//! Messages as JSON, serialised directly from the cached block into the text of a response or a request. A time that
//! consecutive messages share is formatted once. This is the most frequent serialisation of the service. `http` writes
//! responses with it, `push` requests. `api::message::{Message, ReceivedMessage}` document the same shape; a test of
//! `http::answer::shown` compares them.

use api::Timestamp;
use base64::display::Base64Display;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use crate::engine::error::Error;
use crate::engine::log::block::{Delivery, StoredMessage};

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
#[derive(Debug, Default)]
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

/// Writes a text with messages.
#[derive(Debug)]
pub struct MessageWriter {
    /// The text.
    pub out: Vec<u8>,
    /// Bytes of the largest body that is included.
    body_bytes_max: usize,
    /// Bytes of bodies that may still be included.
    room: usize,
    published: TimeText,
    visible: TimeText,
}

impl MessageWriter {
    /// A writer of texts with bodies of at most `body_bytes_max` each and `room` bytes of bodies together.
    #[must_use]
    pub fn new(body_bytes_max: usize, room: usize) -> Self {
        Self {
            out: Vec::new(),
            body_bytes_max,
            room,
            published: TimeText::default(),
            visible: TimeText::default(),
        }
    }

    /// Makes room for this many messages with this many bytes of bodies together.
    #[must_use]
    pub fn sized(mut self, messages: usize, body_bytes: usize) -> Self {
        let bodies = body_bytes.min(self.room);
        self.out
            .reserve(64 + messages * FRAME_BYTES + bodies + bodies / 8);
        self
    }

    /// Writes a message, with its receipt when it was handed out.
    ///
    /// # Errors
    /// When it is not in its block.
    pub fn put(&mut self, message: &StoredMessage, lease: Option<&Delivery>) -> Result<(), Error> {
        let view = message.view().ok_or_else(|| {
            tracing::error!(id = %message.id(), "a message is not in its block");
            Error::Internal
        })?;
        let meta = view.meta();
        let id = message.id().to_chars();
        let id = std::str::from_utf8(&id).map_err(|_| Error::Internal)?;
        let inline = view
            .body()
            .filter(|body| body.len() <= self.body_bytes_max.min(self.room));
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

    /// Writes messages that were handed out, as the response to a receive.
    ///
    /// # Errors
    /// When one is not in its block.
    pub fn put_received(&mut self, deliveries: &[Delivery]) -> Result<(), Error> {
        self.out.extend_from_slice(br#"{"messages":["#);
        for (index, delivery) in deliveries.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.put(&delivery.message, Some(delivery))?;
        }
        self.out.extend_from_slice(b"]}");
        Ok(())
    }
}

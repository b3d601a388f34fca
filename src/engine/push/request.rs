//! Makes the request that delivers messages to an endpoint, in each of the formats. Pure: everything comes from the
//! endpoint and the messages. It runs for every delivery, so names of headers are static, values share one buffer, and a
//! body that is sent as it was published is a slice of its block.
//!
//! Every request has `webhook-id`, which is the same when the same is sent again, `webhook-timestamp` and
//! `webhook-signature`. `lines` writes headers, `event` makes CloudEvents, `sink` has those of the
//! service itself.

mod event;
mod lines;
mod sink;

use api::limits::PUSH_BODY_BYTES_MAX;
use api::push::PushFormat;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::engine::error::Error;
use crate::engine::log::block::{Delivery, StoredMessage};
use crate::engine::log::json::MessageWriter;
use crate::engine::log::payload::{Meta, View};
use crate::engine::push::endpoint::Endpoint;
use crate::engine::push::sign::Signed;
use crate::hex;
use crate::outbound::{HeaderMap, HeaderName, Post};
use crate::store::SubscriptionId;

use lines::Lines;

static AUTHORIZATION: HeaderName = HeaderName::from_static("authorization");
static CONTENT_TYPE: HeaderName = HeaderName::from_static("content-type");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
static WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
static WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
static ATTEMPT: HeaderName = HeaderName::from_static("cursus-attempt");
static ATTRS_OMITTED: HeaderName = HeaderName::from_static("cursus-attrs-omitted");
static BODY_URL: HeaderName = HeaderName::from_static("cursus-body-url");
static KEY: HeaderName = HeaderName::from_static("cursus-key");
static MESSAGE_ID: HeaderName = HeaderName::from_static("cursus-message-id");
static PUBLISHED_AT: HeaderName = HeaderName::from_static("cursus-published-at");
static RECEIPT: HeaderName = HeaderName::from_static("cursus-receipt");
static TAG: HeaderName = HeaderName::from_static("cursus-tag");
static TOPIC: HeaderName = HeaderName::from_static("cursus-topic");
static VISIBLE_UNTIL: HeaderName = HeaderName::from_static("cursus-visible-until");

/// Bytes of the headers that attributes become. Receivers refuse requests with long heads, and commonly at 16 KiB.
const ATTRIBUTE_HEADERS_BYTES_MAX: usize = 8 << 10;
/// Headers that a request gets after it is made: a token, and those of the connection.
const HEADERS_TO_COME: usize = 8;
/// Bytes of the hash that are the id of a batch.
const BATCH_ID_BYTES: usize = 16;

/// The request that delivers messages at a time: several with the format `json_batch`, else one.
///
/// # Errors
/// When there is no message, one is not in its block, or there are more than the format has room for.
pub fn of(endpoint: &Endpoint, deliveries: &[Delivery], at: OffsetDateTime) -> Result<Post, Error> {
    let mut lines = Lines::default();
    let (id, body) = if endpoint.is_in_order() {
        let is_batch = endpoint.format == PushFormat::JsonBatch;
        sink::of(deliveries, is_batch, &mut lines)?
    } else {
        let id = id_of(deliveries, endpoint.row.subscription_id);
        (id, body_of(endpoint, deliveries, &mut lines)?)
    };
    let timestamp = at.unix_timestamp().to_string();
    let signed = Signed {
        id: &id,
        timestamp: &timestamp,
        body: &body,
    };
    let signature = endpoint.signer.signature(signed, at);
    lines.plain(&WEBHOOK_ID, &id);
    lines.plain(&WEBHOOK_TIMESTAMP, &timestamp);
    lines.plain(&WEBHOOK_SIGNATURE, &signature);
    let constant = &endpoint.headers;
    let mut headers = HeaderMap::with_capacity(constant.len() + lines.len() + HEADERS_TO_COME);
    for (name, value) in constant {
        headers.append(name, value.clone());
    }
    lines.append_to(&mut headers)?;
    if let Some(bearer) = &endpoint.bearer {
        headers.insert(&AUTHORIZATION, bearer.value(at)?);
    }
    Ok(Post {
        url: endpoint.url.clone(),
        headers,
        body,
        timeout: endpoint.timeout,
    })
}

/// The body in the format of the endpoint. Its headers go to `lines`.
fn body_of(
    endpoint: &Endpoint,
    deliveries: &[Delivery],
    lines: &mut Lines,
) -> Result<Bytes, Error> {
    Ok(match (endpoint.format, deliveries) {
        (_, []) => return Err(Error::Internal),
        (PushFormat::JsonBatch, all) => {
            let mut writer = writer(all);
            writer.put_received(all)?;
            Bytes::from(writer.out)
        }
        (PushFormat::Json, [one]) => {
            let mut writer = writer(deliveries);
            writer.put(&one.message, Some(one))?;
            Bytes::from(writer.out)
        }
        (PushFormat::Raw, [one]) => Parts::of(one)?.raw(lines),
        (PushFormat::CloudeventsBinary, [one]) => event::binary(endpoint, &Parts::of(one)?, lines),
        (PushFormat::CloudeventsStructured, [one]) => {
            event::structured(endpoint, &Parts::of(one)?, lines)?
        }
        (
            PushFormat::Json
            | PushFormat::Raw
            | PushFormat::CloudeventsBinary
            | PushFormat::CloudeventsStructured,
            [_, _, ..],
        ) => return Err(Error::Internal),
    })
}

/// The value of `webhook-id`: the id of the message and the number of the subscription, so that an endpoint of two
/// subscriptions can tell them apart; of several messages the hash of their ids. There is no `.` in it.
fn id_of(deliveries: &[Delivery], subscription: SubscriptionId) -> String {
    if let [one] = deliveries {
        return format!("{}-{subscription}", one.message.id());
    }
    let mut hash = Sha256::new();
    for delivery in deliveries {
        hash.update(delivery.message.id().to_chars());
    }
    let hash = hex::encode(&hash.finalize()[..BATCH_ID_BYTES]);
    format!("{hash}-{subscription}")
}

/// A writer with room for these messages.
fn writer(deliveries: &[Delivery]) -> MessageWriter {
    let views = deliveries.iter().filter_map(|one| one.message.view());
    let bytes = views.filter_map(|view| view.body()).map(<[u8]>::len).sum();
    MessageWriter::new(PUSH_BODY_BYTES_MAX, PUSH_BODY_BYTES_MAX).sized(deliveries.len(), bytes)
}

/// A message taken apart.
struct Parts<'a> {
    delivery: &'a Delivery,
    view: View<'a>,
    meta: Meta<'a>,
    /// Its id as text.
    id: [u8; 20],
}

impl<'a> Parts<'a> {
    fn of(delivery: &'a Delivery) -> Result<Self, Error> {
        let view = delivery.message.view().ok_or_else(|| {
            tracing::error!(id = %delivery.message.id(), "a message is not in its block");
            Error::Internal
        })?;
        Ok(Self {
            delivery,
            view,
            meta: view.meta(),
            id: delivery.message.id().to_chars(),
        })
    }

    fn message(&self) -> &'a StoredMessage {
        &self.delivery.message
    }

    fn id(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// Path at which the service has the body.
    fn body_path(&self) -> String {
        format!("/v1/messages/{}/body", self.id())
    }

    fn content_type(&self) -> &'a str {
        self.meta.content_type.unwrap_or_default()
    }

    /// The body; `None` when it is too long for a request.
    fn body(&self) -> Option<&'a [u8]> {
        self.view
            .body()
            .filter(|body| body.len() <= PUSH_BODY_BYTES_MAX)
    }

    /// The body as it was published, sharing the memory of its block. A body that is too long is named by a header.
    fn body_as_published(&self, lines: &mut Lines) -> Bytes {
        let message = self.message();
        let body = self
            .body()
            .and_then(|_| message.block.payload.body(message.index));
        body.unwrap_or_else(|| {
            lines.plain(&BODY_URL, &self.body_path());
            Bytes::new()
        })
    }

    /// The message as it was published: the body with its content type, the rest in headers.
    fn raw(&self, lines: &mut Lines) -> Bytes {
        lines.plain(&CONTENT_TYPE, self.content_type());
        self.put_facts(lines);
        // An event in the body is in structured mode, and then no header may begin with `ce-`.
        let is_event = event::is_event(self.content_type());
        let attributes = self.meta.attributes.iter();
        for (name, value) in attributes {
            match event::name(name) {
                Some(_) if is_event => {}
                Some(own) => event::put(lines, own, value),
                None => lines.attribute(name, value),
            }
        }
        lines.put_omitted();
        self.body_as_published(lines)
    }

    /// Headers with what is known of the message and of this delivery, without attributes.
    fn put_facts(&self, lines: &mut Lines) {
        let delivery = self.delivery;
        lines.plain(&MESSAGE_ID, self.id());
        lines.plain(&TOPIC, self.message().topic.as_str());
        lines.shown(&ATTEMPT, delivery.attempt);
        lines.shown(&PUBLISHED_AT, self.message().block.published_at);
        lines.plain(&RECEIPT, &delivery.receipt);
        lines.shown(&VISIBLE_UNTIL, delivery.visible_until);
        for (name, value) in [(&TAG, self.meta.tag), (&KEY, self.meta.key)] {
            if let Some(value) = value {
                lines.encoded(name.clone(), value);
            }
        }
        // Checked when they were published, and given back as they came.
        for (name, value) in [
            (&TRACEPARENT, self.meta.traceparent),
            (&TRACESTATE, self.meta.tracestate),
        ] {
            if let Some(value) = value {
                lines.plain(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;

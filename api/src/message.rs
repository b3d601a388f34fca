//! Messages on the wire: requests and responses of publish and receive, and the checks of their fields. Request types
//! borrow from the request body, so that a batch is checked without copying its bodies.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use crate::error::FieldError;
use crate::field::pointer_segment;
use crate::limits::{
    ATTRIBUTE_NAME_CHARS_MAX, ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX, BATCH_MESSAGES_MAX,
    CONTENT_TYPE_CHARS_MAX, DEDUP_ID_CHARS_MAX, KEY_CHARS_MAX, RECEIVE_MESSAGES,
    VISIBILITY_SECONDS, WAIT_SECONDS,
};
use crate::topic::check_range;
use crate::validate::Validate;
use crate::{MessageId, Problem, Timestamp, TopicName};

/// One message to publish. At most one of `body`, `body_base64` and `json` may be given; without any the body is empty.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishMessage<'a> {
    /// Body as text.
    #[serde(
        borrow,
        default,
        deserialize_with = "crate::borrow::text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>, max_length = 1048576)]
    pub body: Option<Cow<'a, str>>,
    /// Body as bytes, in standard base64.
    #[serde(
        borrow,
        default,
        deserialize_with = "crate::borrow::text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>, format = Byte, max_length = 1398104)]
    pub body_base64: Option<Cow<'a, str>>,
    /// Body as a JSON value; its text is stored as it was sent. Null is the value null if no other body is given, else it
    /// means absent.
    #[serde(
        borrow,
        default,
        deserialize_with = "crate::borrow::json",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<serde_json::Value>)]
    pub json: Option<&'a RawValue>,
    /// Media type of the body. When absent, `text/plain` with `body`, `application/octet-stream` with `body_base64` and
    /// `application/json` with `json`.
    #[serde(
        borrow,
        default,
        deserialize_with = "crate::borrow::text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>, max_length = 256, pattern = r"^[0-9A-Za-z!#$&^_.+-]+/[0-9A-Za-z!#$&^_.+-]+( *;[ -~]*)?$")]
    pub content_type: Option<Cow<'a, str>>,
    /// Attributes: names and values that travel with the message.
    #[serde(
        borrow,
        default,
        deserialize_with = "crate::borrow::attributes",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(schema_with = attributes_schema)]
    pub attributes: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    /// Label for filtering.
    #[serde(
        borrow,
        default,
        deserialize_with = "crate::borrow::text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$")]
    pub tag: Option<Cow<'a, str>>,
    /// Business key by which the message can be found.
    #[serde(
        borrow,
        default,
        deserialize_with = "crate::borrow::text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$")]
    pub key: Option<Cow<'a, str>>,
    /// Deduplication id. A message with the id of another one published within the topic's deduplication window is not
    /// stored again.
    #[serde(
        borrow,
        default,
        deserialize_with = "crate::borrow::text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$")]
    pub dedup_id: Option<Cow<'a, str>>,
}

/// Schema of a text that [`check_text`] accepts.
pub(crate) fn text_schema(chars_max: usize) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(chars_max))
        .pattern(Some(r"^[^\u0000-\u001F\u007F-\u009F]*$"))
}

fn attributes_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some(
            "Attributes: names and values that travel with the message, at most 16 KiB together",
        ))
        .property_names(Some(text_schema(ATTRIBUTE_NAME_CHARS_MAX)))
        .additional_properties(Some(ObjectBuilder::new().schema_type(Type::String)))
        .max_properties(Some(ATTRIBUTES_MAX))
        .build()
}

impl PublishMessage<'_> {
    /// The JSON value that is the body. Many clients send null for every field that is not set.
    #[must_use]
    pub fn json(&self) -> Option<&RawValue> {
        let has_other = self.body.is_some() || self.body_base64.is_some();
        self.json.filter(|json| !has_other || json.get() != "null")
    }

    /// Returns an error for each field that is over a limit or contradicts another. Pointers begin with `at`, such as
    /// `/messages/3`.
    #[must_use]
    pub fn validate(&self, at: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let bodies = [
            self.body.is_some(),
            self.body_base64.is_some(),
            self.json().is_some(),
        ];
        if bodies.into_iter().filter(|given| *given).count() > 1 {
            errors.push(FieldError::new(
                at,
                "only one of body, body_base64 and json may be given",
            ));
        }
        for (field, value, max) in [
            ("tag", &self.tag, KEY_CHARS_MAX),
            ("key", &self.key, KEY_CHARS_MAX),
            ("dedup_id", &self.dedup_id, DEDUP_ID_CHARS_MAX),
        ] {
            if let Some(value) = value {
                check_text(&mut errors, || format!("{at}/{field}"), value, max);
            }
        }
        if let Some(media) = &self.content_type {
            check_media_type(&mut errors, || format!("{at}/content_type"), media);
        }
        if let Some(attributes) = &self.attributes {
            check_attributes(&mut errors, &format!("{at}/attributes"), attributes);
        }
        errors
    }
}

/// Adds an error unless `text` has 1 to `max` characters, and one when it contains control characters.
pub fn check_text(
    errors: &mut Vec<FieldError>,
    pointer: impl Fn() -> String,
    text: &str,
    max: usize,
) {
    let chars = if text.len() <= max {
        text.len()
    } else {
        text.chars().count()
    };
    if chars == 0 || chars > max {
        errors.push(FieldError::new(
            pointer(),
            format!("must have 1 to {max} characters, has {chars}"),
        ));
    }
    if text.chars().any(char::is_control) {
        errors.push(FieldError::new(
            pointer(),
            "must have no control characters",
        ));
    }
}

/// Adds an error unless `text` is a media type (RFC 6838), with or without parameters. It is later returned in a
/// response header, so it must not break one.
pub fn check_media_type(errors: &mut Vec<FieldError>, pointer: impl Fn() -> String, text: &str) {
    let (media, parameters) = text
        .split_once(';')
        .map_or((text, ""), |(media, parameters)| {
            (media.trim_end_matches(' '), parameters)
        });
    let is_name = |name: &str| {
        let is_in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
        !name.is_empty() && name.bytes().all(is_in_name)
    };
    let is_media = media
        .split_once('/')
        .is_some_and(|(kind, rest)| is_name(kind) && is_name(rest));
    let is_printable = parameters.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !is_media || !is_printable || text.len() > CONTENT_TYPE_CHARS_MAX {
        let detail = format!(
            "must be a media type such as text/plain; charset=utf-8, of at most {CONTENT_TYPE_CHARS_MAX} characters"
        );
        errors.push(FieldError::new(pointer(), detail));
    }
}

/// Adds an error for each limit on attributes that is exceeded.
pub fn check_attributes<N: AsRef<str>, V: AsRef<str>>(
    errors: &mut Vec<FieldError>,
    at: &str,
    attributes: &BTreeMap<N, V>,
) {
    if attributes.len() > ATTRIBUTES_MAX {
        errors.push(FieldError::new(
            at,
            format!(
                "at most {ATTRIBUTES_MAX} attributes, has {}",
                attributes.len()
            ),
        ));
        // The names are not checked: each could add another error.
        return;
    }
    let bytes: usize = attributes
        .iter()
        .map(|(name, value)| name.as_ref().len() + value.as_ref().len())
        .sum();
    if bytes > ATTRIBUTES_BYTES_MAX {
        errors.push(FieldError::new(
            at,
            format!("at most {ATTRIBUTES_BYTES_MAX} bytes together, has {bytes}"),
        ));
    }
    for name in attributes.keys().map(AsRef::as_ref) {
        let pointer = || format!("{at}/{}", pointer_segment(name));
        check_text(errors, pointer, name, ATTRIBUTE_NAME_CHARS_MAX);
    }
}

/// A batch of messages to publish.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishBatch<'a> {
    /// 1 to 100 messages. Each succeeds or fails on its own.
    #[serde(borrow, deserialize_with = "crate::borrow::items")]
    #[schema(min_items = 1, max_items = 100)]
    pub messages: Vec<PublishMessage<'a>>,
}

/// Returns an error unless a batch has 1 to 100 items.
#[must_use]
pub fn check_batch(pointer: &str, items: usize) -> Vec<FieldError> {
    if (1..=BATCH_MESSAGES_MAX).contains(&items) {
        return Vec::new();
    }
    vec![FieldError::new(
        pointer,
        format!("must have 1 to {BATCH_MESSAGES_MAX} items, has {items}"),
    )]
}

/// A published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Published {
    /// Id of the message.
    pub id: MessageId,
    /// Whether a message with the same `dedup_id` was published before, so that this one was not stored again. Absent
    /// when false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// Result of one message of a batch: its `id`, or an `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishResult {
    /// Id of the message. Absent when it was not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<MessageId>,
    /// Whether a message with the same `dedup_id` was published before, so that this one was not stored again. Absent
    /// when false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    /// Reason why the message was not published. Absent when it was. Other messages of the batch are not affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<Problem>,
}

/// Results of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishResults {
    /// One result per message, in order.
    pub results: Vec<PublishResult>,
}

/// Options of a receive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiveRequest {
    /// Maximum number of messages to return. 1 when absent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 1, maximum = 100)]
    pub max_messages: Option<u32>,
    /// Seconds to wait for the first message. 0 when absent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 0, maximum = 30)]
    pub wait_seconds: Option<u32>,
    /// Seconds for which the received messages are hidden from other receivers. The subscription's setting when absent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 0, maximum = 43200)]
    pub visibility_timeout_seconds: Option<u32>,
}

impl Validate for ReceiveRequest {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check_range(
            &mut errors,
            "/max_messages",
            self.max_messages,
            &RECEIVE_MESSAGES,
        );
        check_range(
            &mut errors,
            "/wait_seconds",
            self.wait_seconds,
            &WAIT_SECONDS,
        );
        let visibility = self.visibility_timeout_seconds;
        check_range(
            &mut errors,
            "/visibility_timeout_seconds",
            visibility,
            &VISIBILITY_SECONDS,
        );
        errors
    }
}

/// A message. Exactly one of `body` (text), `body_base64` (bytes) and `body_url` (large bodies) is present.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// Id of the message.
    pub id: MessageId,
    /// Topic that the message was published to.
    pub topic: TopicName,
    /// Body as text. Present when the body is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub body: Option<String>,
    /// Body in standard base64. Present when the body is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = Byte)]
    pub body_base64: Option<String>,
    /// Path from which the body can be read. Present when the body is too large to be included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub body_url: Option<String>,
    /// Media type of the body.
    pub content_type: String,
    /// Attributes: names and values that travel with the message. Absent when there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Label for filtering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tag: Option<String>,
    /// Business key by which the message can be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub key: Option<String>,
    /// `traceparent` of the publish request (W3C Trace Context).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub traceparent: Option<String>,
    /// `tracestate` of the publish request (W3C Trace Context).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tracestate: Option<String>,
    /// Time of publishing.
    pub published_at: Timestamp,
}

impl Message {
    /// The bytes of the body. `None` when the body is so large that only `body_url` is present.
    #[must_use]
    pub fn data(&self) -> Option<Cow<'_, [u8]>> {
        if let Some(text) = &self.body {
            return Some(Cow::Borrowed(text.as_bytes()));
        }
        let bytes = BASE64_STANDARD.decode(self.body_base64.as_ref()?);
        bytes.ok().map(Cow::Owned)
    }
}

/// A message handed out by a receive.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReceivedMessage {
    /// Receipt of this delivery, needed to settle the message.
    pub receipt: String,
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// Number of times the message has been handed out, including this one.
    pub attempt: u32,
    /// Time until which the message is hidden from other receivers.
    pub visible_until: Timestamp,
}

/// Response of a receive.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReceiveResult {
    /// Received messages. Empty when none arrived in time.
    pub messages: Vec<ReceivedMessage>,
}

#[cfg(test)]
mod tests {
    use super::check_media_type;

    #[test]
    fn a_content_type_is_a_media_type() {
        let errors = |text: &str| {
            let mut errors = Vec::new();
            check_media_type(&mut errors, || "/content_type".to_owned(), text);
            errors.len()
        };
        for good in [
            "text/plain",
            "application/vnd.a+json ; charset=\"utf-8\"",
            "a/b;",
        ] {
            assert_eq!(errors(good), 0, "{good}");
        }
        for bad in [
            "",
            "text",
            "/plain",
            "text/",
            "te xt/plain",
            "a/b/c",
            "ñ/b",
            "a/b; x=ñ",
            "a/b;\r\nx: y",
        ] {
            assert_eq!(errors(bad), 1, "{bad}");
        }
        assert_eq!(errors(&format!("a/{}", "b".repeat(255))), 1);
    }
}

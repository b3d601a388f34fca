//! Messages on the wire: what a publish takes and answers, what a receive asks and gets. Borrowed where the hot path
//! parses, so that a batch is checked without copying its bodies.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use crate::error::FieldError;
use crate::limits::{
    ATTRIBUTE_NAME_CHARS_MAX, ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX, BATCH_MESSAGES_MAX,
    CONTENT_TYPE_CHARS_MAX, DEDUP_ID_CHARS_MAX, KEY_CHARS_MAX, RECEIVE_MESSAGES,
    VISIBILITY_SECONDS, WAIT_SECONDS,
};
use crate::topic::check_range;
use crate::validate::Validate;
use crate::{MessageId, Problem, Timestamp, TopicName};

/// One message to publish. Exactly one of `body`, `body_base64` and `json` carries the body; none is an empty body.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishMessage<'a> {
    /// Body as text.
    #[serde(borrow, default, deserialize_with = "crate::borrow::text")]
    #[schema(value_type = Option<String>, max_length = 1048576)]
    pub body: Option<Cow<'a, str>>,
    /// Body as bytes, in standard base64.
    #[serde(borrow, default, deserialize_with = "crate::borrow::text")]
    #[schema(value_type = Option<String>, format = Byte, max_length = 1398104)]
    pub body_base64: Option<Cow<'a, str>>,
    /// Body as a JSON value, kept as it is written.
    #[serde(borrow, default, deserialize_with = "crate::borrow::json")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub json: Option<&'a RawValue>,
    /// Media type of the body; text/plain, application/octet-stream or application/json when absent.
    #[serde(borrow, default, deserialize_with = "crate::borrow::text")]
    #[schema(value_type = Option<String>, max_length = 256, pattern = r"^[0-9A-Za-z!#$&^_.+-]+/[0-9A-Za-z!#$&^_.+-]+( *;[ -~]*)?$")]
    pub content_type: Option<Cow<'a, str>>,
    /// Names and values that travel with the message.
    #[serde(borrow, default, deserialize_with = "crate::borrow::attributes")]
    #[schema(schema_with = attributes_schema)]
    pub attributes: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    /// A label to filter by.
    #[serde(borrow, default, deserialize_with = "crate::borrow::text")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$")]
    pub tag: Option<Cow<'a, str>>,
    /// A business key to find the message by.
    #[serde(borrow, default, deserialize_with = "crate::borrow::text")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$")]
    pub key: Option<Cow<'a, str>>,
    /// Published again with the same id within the topic's window, the message is not stored again.
    #[serde(borrow, default, deserialize_with = "crate::borrow::text")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$")]
    pub dedup_id: Option<Cow<'a, str>>,
}

fn attributes_schema() -> Object {
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(ATTRIBUTE_NAME_CHARS_MAX))
        .pattern(Some(r"^[^\u0000-\u001F\u007F-\u009F]*$"));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some(
            "Names and values that travel with the message, at most 16 KiB together",
        ))
        .property_names(Some(name))
        .additional_properties(Some(ObjectBuilder::new().schema_type(Type::String)))
        .max_properties(Some(ATTRIBUTES_MAX))
        .build()
}

impl PublishMessage<'_> {
    /// The fields that are missing, contradictory or over a limit, with pointers below `at` (`/messages/3`).
    #[must_use]
    pub fn validate(&self, at: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let bodies = [
            self.body.is_some(),
            self.body_base64.is_some(),
            self.json.is_some(),
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

/// Adds an error when `text` is empty, has more than `max` characters, or control characters.
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

/// Adds an error when `text` is no media type (RFC 6838), with parameters or without: it goes into the head of an answer.
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

/// Adds an error for every limit on attributes that is not kept.
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
        // Their names would be as many errors.
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
        let pointer = || format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        check_text(errors, pointer, name, ATTRIBUTE_NAME_CHARS_MAX);
    }
}

/// A batch to publish.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishBatch<'a> {
    /// 1 to 100 messages; each succeeds or fails by itself.
    #[serde(borrow, deserialize_with = "crate::borrow::items")]
    #[schema(min_items = 1, max_items = 100)]
    pub messages: Vec<PublishMessage<'a>>,
}

/// Adds an error unless a batch has 1 to 100 items.
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

/// A message that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Published {
    /// Its id.
    pub id: MessageId,
    /// Whether it was published before with the same `dedup_id`, and so not stored again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// What became of one message of a batch: its `id`, or an `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishResult {
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<MessageId>,
    /// Whether it was published before with the same `dedup_id`, and so not stored again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    /// Why it was not published; its neighbours are not concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<Problem>,
}

/// What became of a batch, one result per message, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishResults {
    /// One per message, in order.
    pub results: Vec<PublishResult>,
}

/// What a receive asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiveRequest {
    /// Most messages to get; 1 when absent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 1, maximum = 100)]
    pub max_messages: Option<u32>,
    /// Seconds to wait for the first message; 0 when absent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 0, maximum = 30)]
    pub wait_seconds: Option<u32>,
    /// Seconds to hide what is received; the subscription's when absent.
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

/// A message as it is shown: one of `body` (text), `body_base64` (bytes) and `body_url` (large) leads to the body.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The topic it was published to.
    pub topic: TopicName,
    /// Body, when it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub body: Option<String>,
    /// Body in standard base64, when it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub body_base64: Option<String>,
    /// Path of the body, when it is too large to be put here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub body_url: Option<String>,
    /// Media type of the body.
    pub content_type: String,
    /// Names and values that travel with the message.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Its tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tag: Option<String>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub key: Option<String>,
    /// Trace context of its producer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub traceparent: Option<String>,
    /// What the tracers of its producer added to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tracestate: Option<String>,
    /// When it was published.
    pub published_at: Timestamp,
}

/// A message handed out by a receive.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReceivedMessage {
    /// Settles this message, once.
    pub receipt: String,
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// How many times it has been handed out, this time included.
    pub attempt: u32,
    /// Until when no other receiver gets it.
    pub visible_until: Timestamp,
}

/// What a receive got; empty when nothing came.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Received {
    /// The messages.
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

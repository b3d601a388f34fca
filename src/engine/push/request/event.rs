//! Messages as CloudEvents (1.0). A message that was published as an event keeps its attributes; another one gets `id` and
//! `time` of its own, the topic as `subject` and its key as `partitionkey`.
//!
//! The public libraries read some events wrongly. So a request in structured mode has no header that begins with `ce-`, no
//! attribute is null, and a body that JSON cannot hold as it is (bytes, or what claims to be JSON and is not) goes in
//! binary mode: readers find the mode by the content type of the request.

use bytes::Bytes;
use serde::Serializer as _;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;

use super::lines::Lines;
use super::{BODY_URL, CONTENT_TYPE, Parts};
use crate::engine::error::Error;
use crate::engine::log::payload::OCTET_STREAM;
use crate::engine::push::endpoint::Endpoint;
use crate::outbound::HeaderName;

const PREFIX: &str = "ce-";
/// Media type of an event in structured mode, and of several. Parameters and formats follow.
const EVENT: &str = "application/cloudevents";
const EVENT_JSON: &str = "application/cloudevents+json";
/// CloudEvents `type` of messages that were not published as events.
const TYPE: &str = "cursus.message";
/// Bytes of an event without its data.
const FRAME_BYTES: usize = 384;

static DATAREF: HeaderName = HeaderName::from_static("ce-dataref");
static ID: HeaderName = HeaderName::from_static("ce-id");
static SOURCE: HeaderName = HeaderName::from_static("ce-source");
static SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
static SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
static TIME: HeaderName = HeaderName::from_static("ce-time");
static TYPE_NAME: HeaderName = HeaderName::from_static("ce-type");

/// Whether a body of this content type is an event in structured mode, or several.
pub(super) fn is_event(content_type: &str) -> bool {
    let start = content_type.as_bytes().get(..EVENT.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(EVENT.as_bytes()))
}

/// The name of the attribute of an event that an attribute of a message holds: `ce-id` holds `id`.
pub(super) fn name(attribute: &str) -> Option<&str> {
    let name = attribute.strip_prefix(PREFIX)?;
    let is_in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    // The content type of the request says what the data is.
    let is_own = !name.is_empty() && name.bytes().all(is_in_name) && name != "datacontenttype";
    (is_own && name != "data").then_some(name)
}

/// An attribute of an event as header.
pub(super) fn put(lines: &mut Lines, name: &str, value: &str) {
    let known = match name {
        "id" => &ID,
        "source" => &SOURCE,
        "specversion" => &SPECVERSION,
        "subject" => &SUBJECT,
        "time" => &TIME,
        "type" => &TYPE_NAME,
        other => {
            if let Ok(name) = HeaderName::try_from(format!("{PREFIX}{other}")) {
                lines.within_room(name, value);
            }
            return;
        }
    };
    lines.encoded(known.clone(), value);
}

/// Calls `each` with the name and value of every attribute of the event that a message is.
fn attributes(endpoint: &Endpoint, parts: &Parts<'_>, mut each: impl FnMut(&str, &str)) {
    let own = || {
        let attributes = parts.meta.attributes.iter();
        attributes.filter_map(|(attribute, value)| Some((name(attribute)?, *value)))
    };
    // An attribute must not be empty.
    let own = || own().filter(|(_, value)| !value.is_empty());
    let given = |wanted: &str| own().find(|(name, _)| *name == wanted);
    let is_event = ["id", "source", "type"]
        .iter()
        .all(|name| given(name).is_some());
    let mut fill = |name: &str, value: &str| {
        if given(name).is_none() {
            each(name, value);
        }
    };
    fill("specversion", "1.0");
    if !is_event {
        fill("id", parts.id());
        fill("source", &endpoint.source);
        fill("type", TYPE);
        fill("subject", parts.message().topic.as_str());
        fill("time", &parts.message().block.published_at.to_string());
        if let Some(key) = parts.meta.key {
            fill("partitionkey", key);
        }
    }
    for (name, value) in own() {
        each(name, value);
    }
}

/// Attributes of the message that are none of the event.
fn put_others(parts: &Parts<'_>, lines: &mut Lines) {
    for (attribute, value) in &parts.meta.attributes {
        if name(attribute).is_none() && *attribute != "ce-datacontenttype" {
            lines.attribute(attribute, value);
        }
    }
    lines.put_omitted();
}

/// The message as event in binary mode. One whose body is an event is sent as it is, in structured mode.
pub(super) fn binary(endpoint: &Endpoint, parts: &Parts<'_>, lines: &mut Lines) -> Bytes {
    if is_event(parts.content_type()) {
        return parts.raw(lines);
    }
    lines.plain(&CONTENT_TYPE, parts.content_type());
    parts.put_facts(lines);
    attributes(endpoint, parts, |name, value| put(lines, name, value));
    put_others(parts, lines);
    if parts.body().is_none() {
        lines.plain(&DATAREF, &parts.body_path());
    }
    parts.body_as_published(lines)
}

/// The body of a message inside of an event.
enum Data<'a> {
    /// A JSON value.
    Json(&'a RawValue),
    /// A text.
    Text(&'a str),
    /// The path of a body that is too long.
    Ref(String),
    /// Nothing.
    Empty,
}

/// The data of an event in structured mode; `None`: JSON cannot hold it as it is.
fn data<'a>(parts: &Parts<'a>) -> Option<Data<'a>> {
    let Some(body) = parts.body() else {
        return Some(Data::Ref(parts.body_path()));
    };
    if body.is_empty() {
        return Some(Data::Empty);
    }
    if is_json(parts.content_type()) {
        return serde_json::from_slice(body).ok().map(Data::Json);
    }
    let text = parts.view.text();
    text.filter(|_| parts.content_type() != OCTET_STREAM)
        .map(Data::Text)
}

/// Whether a content type is one of JSON.
fn is_json(content_type: &str) -> bool {
    let media = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim_end();
    let ends_with = |end: &str| {
        let at = media.len().checked_sub(end.len());
        at.and_then(|at| media.as_bytes().get(at..))
            .is_some_and(|found| found.eq_ignore_ascii_case(end.as_bytes()))
    };
    ends_with("/json") || ends_with("+json")
}

/// The message as event in structured mode.
pub(super) fn structured(
    endpoint: &Endpoint,
    parts: &Parts<'_>,
    lines: &mut Lines,
) -> Result<Bytes, Error> {
    if is_event(parts.content_type()) {
        return Ok(parts.raw(lines));
    }
    let Some(data) = data(parts) else {
        return Ok(binary(endpoint, parts, lines));
    };
    lines.plain(&CONTENT_TYPE, EVENT_JSON);
    parts.put_facts(lines);
    put_others(parts, lines);
    let bytes = parts.body().map_or(0, <[u8]>::len);
    let mut out = Vec::with_capacity(FRAME_BYTES + bytes + bytes / 8);
    let mut writer = serde_json::Serializer::new(&mut out);
    let mut map = writer.serialize_map(None).map_err(|_| Error::Internal)?;
    let mut result = Ok(());
    attributes(endpoint, parts, |name, value| {
        if result.is_ok() {
            result = map.serialize_entry(name, value);
        }
    });
    let written = result.and_then(|()| {
        match data {
            Data::Json(json) => {
                map.serialize_entry("datacontenttype", parts.content_type())?;
                map.serialize_entry("data", json)?;
            }
            Data::Text(text) => {
                map.serialize_entry("datacontenttype", parts.content_type())?;
                map.serialize_entry("data", text)?;
            }
            Data::Ref(path) => {
                map.serialize_entry("datacontenttype", parts.content_type())?;
                map.serialize_entry("dataref", &path)?;
                lines.plain(&BODY_URL, &path);
            }
            Data::Empty => {}
        }
        map.end()
    });
    written.map_err(|_: serde_json::Error| Error::Internal)?;
    Ok(Bytes::from(out))
}

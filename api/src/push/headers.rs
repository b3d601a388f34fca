//! Headers that a subscription adds to its requests: how they are read, and which are allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use crate::error::FieldError;
use crate::field::pointer_segment;
use crate::limits::{PUSH_HEADER_CHARS_MAX, PUSH_HEADERS_MAX, PUSH_VALUE_CHARS_MAX};

/// Headers that the service writes, and those that belong to the connection.
const RESERVED: [&str; 12] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Beginnings of names of headers that the service writes.
const RESERVED_PREFIXES: [&str; 5] = ["ce-", "cursus-", "proxy-", "trace", "webhook-"];

pub(super) fn schema() -> Object {
    let text = |chars_max, pattern| {
        let text = ObjectBuilder::new().schema_type(Type::String);
        text.min_length(Some(1))
            .max_length(Some(chars_max))
            .pattern(Some(pattern))
    };
    let name = r"^[0-9A-Za-z!#$%&'*+.^_`|~-]+$";
    let value = "^[!-~]([ -~]*[!-~])?$";
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some(
            "Headers that are sent with every request, at most 20. None that the service writes or that belongs to \
             the connection.",
        ))
        .property_names(Some(text(PUSH_HEADER_CHARS_MAX, name)))
        .additional_properties(Some(text(PUSH_VALUE_CHARS_MAX, value)))
        .max_properties(Some(PUSH_HEADERS_MAX))
        .build()
}

/// Headers by name, or null for none. A name that is given twice is an error, because one of its values would be lost.
pub(super) fn read<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::<Headers>::deserialize(deserializer)?.map_or_else(BTreeMap::new, |all| all.0))
}

struct Headers(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeadersVisitor).map(Self)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut headers = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            if headers.len() == PUSH_HEADERS_MAX {
                return Err(A::Error::custom(format_args!(
                    "at most {PUSH_HEADERS_MAX} headers, has more"
                )));
            }
            if headers.insert(name, value).is_some() {
                return Err(A::Error::custom("a header is given twice"));
            }
        }
        Ok(headers)
    }
}

/// Adds an error for each header that a request cannot have.
pub(super) fn check(errors: &mut Vec<FieldError>, at: &str, headers: &BTreeMap<String, String>) {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let mut seen = BTreeSet::new();
    for (name, value) in headers {
        let pointer = format!("{at}/headers/{}", pointer_segment(name));
        let lower = name.to_ascii_lowercase();
        let is_reserved = RESERVED.contains(&lower.as_str())
            || RESERVED_PREFIXES
                .iter()
                .any(|prefix| lower.starts_with(prefix));
        if !(1..=PUSH_HEADER_CHARS_MAX).contains(&name.len()) || !name.bytes().all(is_token) {
            let detail =
                format!("must be the name of a header of 1 to {PUSH_HEADER_CHARS_MAX} characters");
            errors.push(FieldError::new(&pointer, detail));
        } else if is_reserved {
            let detail = "is a header that the service writes, or one of the connection";
            errors.push(FieldError::new(&pointer, detail));
        } else if !seen.insert(lower) {
            errors.push(FieldError::new(
                &pointer,
                "is given twice, in other letters",
            ));
        }
        check_header_value(errors, &pointer, value);
    }
}

/// Adds an error unless the text can be the value of a header: visible ASCII, and spaces between.
pub(super) fn check_header_value(errors: &mut Vec<FieldError>, pointer: &str, text: &str) {
    let is_visible = |byte: u8| (b' '..=b'~').contains(&byte);
    if text.is_empty() || text.len() > PUSH_VALUE_CHARS_MAX {
        let detail = format!("must have 1 to {PUSH_VALUE_CHARS_MAX} characters");
        errors.push(FieldError::new(pointer, detail));
    } else if !text.bytes().all(is_visible) || text.trim() != text {
        let detail = "must be visible ASCII, without spaces around it";
        errors.push(FieldError::new(pointer, detail));
    }
}

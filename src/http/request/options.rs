//! Options of a raw publish. They are headers, because the body is the message. An unknown or misspelled option is
//! refused: silently ignoring a delay or an ordering key would be worse.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::limits::{DEDUP_ID_CHARS_MAX, KEY_CHARS_MAX};
use api::message::{check_attributes, check_media_type, check_text};
use api::{FieldError, Problem};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::trace::{self, Trace};
use crate::engine::log::payload::Meta;
use crate::http::answer::problem::Refusal;

const ATTRIBUTE: &str = "cursus-attr-";

/// The headers of a raw publish.
#[derive(Debug, Default)]
pub(in crate::http) struct Options<'a> {
    content_type: Option<&'a str>,
    tag: Option<&'a str>,
    key_of_message: Option<&'a str>,
    trace: Option<Trace<'a>>,
    attributes: BTreeMap<&'a str, Cow<'a, str>>,
    /// The idempotency key.
    pub(in crate::http) key: Option<String>,
}

impl Options<'_> {
    /// The message without its body.
    pub(in crate::http) fn meta(&self) -> Meta<'_> {
        let attributes = self.attributes.iter();
        Meta {
            content_type: self.content_type,
            tag: self.tag,
            key: self.key_of_message,
            traceparent: self.trace.as_ref().map(|trace| trace.parent),
            tracestate: self.trace.as_ref().and_then(|trace| trace.state.as_deref()),
            attributes: attributes.map(|(name, value)| (*name, &**value)).collect(),
        }
    }
}

/// Reads the options of a raw publish in one pass: a look-up by name hashes the name each time.
pub(in crate::http) fn of_message(headers: &HeaderMap) -> Result<Options<'_>, Refusal> {
    let mut errors = Vec::new();
    let mut options = Options::default();
    for (name, value) in headers {
        match name.as_str() {
            "content-type" => {
                let media = utf8(&mut errors, name, value);
                check_media_type(&mut errors, || "header:content-type".to_owned(), media);
                options.content_type = Some(media);
            }
            "cursus-tag" => {
                options.tag = text(&mut errors, name, value, KEY_CHARS_MAX);
            }
            "cursus-key" => {
                options.key_of_message = text(&mut errors, name, value, KEY_CHARS_MAX);
            }
            "idempotency-key" => match idempotency_key(value) {
                Ok(key) => options.key = Some(key),
                Err(error) => errors.push(error),
            },
            "traceparent" => {
                options.trace = trace::of(headers);
                continue;
            }
            other if other.starts_with("cursus-") || other.starts_with("ce-") => {
                attribute(&mut errors, &mut options.attributes, name, value);
            }
            _ => continue,
        }
        if is_given_twice(headers, name) {
            errors.push(field(name, "is given twice"));
        }
    }
    if !options.attributes.is_empty() {
        check_attributes(&mut errors, "header:cursus-attr", &options.attributes);
    }
    if errors.is_empty() {
        return Ok(options);
    }
    Err(Problem::invalid(errors).into())
}

/// Reads the options of a batch that are headers; all others are in its body.
pub(in crate::http) fn of_batch(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut key = None;
    for (name, value) in headers {
        let read = match name.as_str() {
            "idempotency-key" if is_given_twice(headers, name) => {
                Err(field(name, "is given twice"))
            }
            "idempotency-key" => idempotency_key(value).map(|read| key = Some(read)),
            other if other.starts_with("cursus-") => Err(field(
                name,
                "goes into the messages of a batch, not into a header",
            )),
            _ => Ok(()),
        };
        read.map_err(|error| Problem::invalid(vec![error]))?;
    }
    Ok(key)
}

/// Nearly no request repeats a header, and then comparing two counts is enough.
fn is_given_twice(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.len() > headers.keys_len() && headers.get_all(name).iter().nth(1).is_some()
}

fn field(name: &HeaderName, detail: impl Into<String>) -> FieldError {
    FieldError::of_header(name, detail)
}

fn utf8<'a>(errors: &mut Vec<FieldError>, name: &HeaderName, value: &'a HeaderValue) -> &'a str {
    std::str::from_utf8(value.as_bytes()).unwrap_or_else(|_| {
        errors.push(field(name, "must be UTF-8"));
        "-"
    })
}

fn text<'a>(
    errors: &mut Vec<FieldError>,
    name: &HeaderName,
    value: &'a HeaderValue,
    max: usize,
) -> Option<&'a str> {
    let text = utf8(errors, name, value);
    check_text(errors, || format!("header:{name}"), text, max);
    Some(text)
}

/// Facts of a message that the service pushes. They are passed over, so that a subscription can be pushed to a topic.
const PUSHED: [&str; 9] = [
    "cursus-attempt",
    "cursus-attrs-omitted",
    "cursus-body-url",
    "cursus-message-id",
    "cursus-published-at",
    "cursus-receipt",
    "cursus-subscription",
    "cursus-topic",
    "cursus-visible-until",
];

/// `Cursus-Attr-<name>` and `ce-<name>` (named with its prefix) are attributes; other `Cursus-…` headers are refused, but
/// those of a push.
fn attribute<'a>(
    errors: &mut Vec<FieldError>,
    attributes: &mut BTreeMap<&'a str, Cow<'a, str>>,
    name: &'a HeaderName,
    value: &'a HeaderValue,
) {
    let attribute = match (name.as_str(), name.as_str().strip_prefix(ATTRIBUTE)) {
        (_, Some(attribute)) => attribute,
        (whole, None) if whole.starts_with("ce-") => {
            let value = percent_decoded(value.as_bytes()).unwrap_or_else(|| {
                errors.push(field(name, "must be UTF-8, percent-encoded"));
                Cow::Borrowed("")
            });
            attributes.insert(whole, value);
            return;
        }
        (whole, None) if PUSHED.contains(&whole) => return,
        ("cursus-ordering-key" | "cursus-delay-seconds" | "cursus-deliver-at", None) => {
            errors.push(field(name, "is reserved: this version does not do it yet"));
            return;
        }
        _ => {
            errors.push(field(name, "is not an option of a publish"));
            return;
        }
    };
    attributes.insert(attribute, Cow::Borrowed(utf8(errors, name, value)));
}

/// Decodes the value of a CloudEvents header (HTTP binding 1.0, section 3.1.3.2). A `%` without two hex digits is kept
/// as it is.
fn percent_decoded(value: &[u8]) -> Option<Cow<'_, str>> {
    if !value.contains(&b'%') {
        return std::str::from_utf8(value).ok().map(Cow::Borrowed);
    }
    let digit = |at: usize| char::from(*value.get(at)?).to_digit(16);
    let byte = |at: usize| u8::try_from(digit(at + 1)? * 16 + digit(at + 2)?).ok();
    let mut bytes = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(&plain) = value.get(at) {
        let encoded = (plain == b'%').then(|| byte(at)).flatten();
        bytes.push(encoded.unwrap_or(plain));
        at += if encoded.is_some() { 3 } else { 1 };
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn idempotency_key(value: &HeaderValue) -> Result<String, FieldError> {
    let refused = |detail: String| FieldError::of_header("idempotency-key", detail);
    let text = value
        .to_str()
        .map_err(|_| refused("must be ASCII".to_owned()))?;
    let key = structured_string(text.trim()).ok_or_else(|| {
        refused(r#"must be a string like "8e03978e-40d5-43dd-bc93-6894a57f9324""#.to_owned())
    })?;
    if (1..=DEDUP_ID_CHARS_MAX).contains(&key.len()) {
        return Ok(key);
    }
    Err(refused(format!(
        "must have 1 to {DEDUP_ID_CHARS_MAX} characters, has {}",
        key.len()
    )))
}

/// A string of RFC 9651 without its quotes. A value without quotes is taken as it is.
fn structured_string(text: &str) -> Option<String> {
    let Some(quoted) = text.strip_prefix('"') else {
        return (!text.contains(['"', '\t'])).then(|| text.to_owned());
    };
    let mut key = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => key.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            '\t' => return None,
            plain => key.push(plain),
        }
    }
    // Parameters may follow the string; none are defined.
    let rest = chars.as_str();
    (rest.is_empty() || rest.starts_with(';')).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn options_are_read_from_headers() {
        let headers = headers(&[
            ("content-type", "image/png"),
            ("cursus-tag", "eu"),
            ("cursus-key", "42"),
            ("cursus-attr-zone", "b"),
            ("cursus-attr-area", "a"),
            ("ce-id", "7"),
            ("ce-subject", "Euro%20%E2%82%AC 100%"),
            ("idempotency-key", "\"k\""),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
        ]);
        let options = of_message(&headers).unwrap();
        assert_eq!(options.key.as_deref(), Some("k"));
        let meta = options.meta();
        assert_eq!((meta.tag, meta.key), (Some("eu"), Some("42")));
        assert_eq!(meta.content_type, Some("image/png"));
        assert!(meta.traceparent.is_some());
        assert_eq!(
            meta.attributes,
            [
                ("area", "a"),
                ("ce-id", "7"),
                ("ce-subject", "Euro € 100%"),
                ("zone", "b")
            ]
        );
        assert!(of_message(&self::headers(&[("ce-id", "%ff")])).is_err());
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for name in [
            "cursus-delay-seconds",
            "cursus-ordering-key",
            "cursus-tga",
            "cursus-attr-",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("1"));
            let refusal = format!("{:?}", of_message(&headers).unwrap_err());
            assert!(
                refusal.contains(&format!("header:{}", name.trim_end_matches('-'))),
                "{refusal}"
            );
        }
        let twice = headers(&[("cursus-tag", "a"), ("cursus-tag", "b")]);
        assert!(of_message(&twice).is_err());
        let twice = headers(&[("content-type", "a/b"), ("content-type", "c/d")]);
        assert!(of_message(&twice).is_err());
        assert!(of_batch(&headers(&[("cursus-tag", "a")])).is_err());
    }

    #[test]
    fn an_idempotency_key_is_a_structured_string_or_plain() {
        for (text, key) in [
            (r#""8e03""#, Some("8e03")),
            ("8e03", Some("8e03")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            (r#""a";p=1"#, Some("a")),
            (r#""a"#, None),
            (r#""a"b"#, None),
            (r#""a\b""#, None),
            (r#"a"b"#, None),
        ] {
            assert_eq!(structured_string(text).as_deref(), key, "{text}");
        }
        assert!(idempotency_key(&HeaderValue::from_static("\"\"")).is_err());
        let twice = headers(&[("idempotency-key", "a"), ("idempotency-key", "b")]);
        assert!(of_message(&twice).is_err() && of_batch(&twice).is_err());
    }
}

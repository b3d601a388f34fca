//! Options of a raw publish, which stand in headers because the body is the message. An option that is misspelled or not
//! known is refused: silently dropping a delay or an ordering key would be the worst answer.

use std::collections::BTreeMap;

use api::limits::{DEDUP_ID_CHARS_MAX, KEY_CHARS_MAX};
use api::message::{check_attributes, check_media_type, check_text};
use api::{FieldError, Problem};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::problem::Refusal;
use crate::engine::payload::Meta;

const ATTRIBUTE: &str = "cursus-attr-";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const TRACEPARENT: &str = "traceparent";

/// What the headers of a raw publish say.
#[derive(Debug, Default)]
pub(super) struct Options<'a> {
    /// What the message carries beside its body.
    pub(super) meta: Meta<'a>,
    /// The idempotency key.
    pub(super) key: Option<String>,
}

/// Reads the options of a raw publish.
pub(super) fn of_message(headers: &HeaderMap) -> Result<Options<'_>, Refusal> {
    let mut errors = Vec::new();
    let mut options = Options::default();
    let mut attributes = BTreeMap::new();
    for (name, value) in headers {
        match name.as_str() {
            "cursus-tag" => {
                options.meta.tag = text(&mut errors, name, value, KEY_CHARS_MAX);
            }
            "cursus-key" => {
                options.meta.key = text(&mut errors, name, value, KEY_CHARS_MAX);
            }
            other if other.starts_with("cursus-") || other.starts_with("ce-") => {
                attribute(&mut errors, &mut attributes, name, value);
            }
            _ => continue,
        }
        if headers.get_all(name).iter().nth(1).is_some() {
            errors.push(field(name, "is given twice"));
        }
    }
    if let Some(value) = headers.get(CONTENT_TYPE) {
        let media = utf8(&mut errors, &CONTENT_TYPE, value);
        check_media_type(&mut errors, || "header:content-type".to_owned(), media);
        options.meta.content_type = Some(media);
    }
    options.meta.traceparent = traceparent(headers);
    options.key = idempotency_key(headers).unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    if !attributes.is_empty() {
        check_attributes(&mut errors, "header:cursus-attr", &attributes);
        options.meta.attributes = attributes.into_iter().collect();
    }
    if errors.is_empty() {
        return Ok(options);
    }
    Err(Problem::invalid(errors).into())
}

/// Reads what the headers of a batch may say; everything else stands in its body.
pub(super) fn of_batch(headers: &HeaderMap) -> Result<(Option<String>, Option<&str>), Refusal> {
    let misplaced = headers
        .keys()
        .find(|name| name.as_str().starts_with("cursus-"));
    if let Some(name) = misplaced {
        let refused = field(name, "goes into the messages of a batch, not into a header");
        return Err(Problem::invalid(vec![refused]).into());
    }
    let key = idempotency_key(headers).map_err(|error| Problem::invalid(vec![error]))?;
    Ok((key, traceparent(headers)))
}

fn field(name: &HeaderName, detail: impl Into<String>) -> FieldError {
    FieldError::new(format!("header:{name}"), detail)
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

/// `Cursus-Attr-<name>` and `ce-<name>` (kept under its whole name) are attributes; other `Cursus-…` are refused.
fn attribute<'a>(
    errors: &mut Vec<FieldError>,
    attributes: &mut BTreeMap<&'a str, &'a str>,
    name: &'a HeaderName,
    value: &'a HeaderValue,
) {
    let attribute = match (name.as_str(), name.as_str().strip_prefix(ATTRIBUTE)) {
        (_, Some(attribute)) => attribute,
        (whole, None) if whole.starts_with("ce-") => whole,
        ("cursus-ordering-key" | "cursus-delay-seconds" | "cursus-deliver-at", None) => {
            errors.push(field(name, "is reserved: this version does not do it yet"));
            return;
        }
        _ => {
            errors.push(field(name, "is not an option of a publish"));
            return;
        }
    };
    attributes.insert(attribute, utf8(errors, name, value));
}

/// The producer's trace context (W3C), dropped when it is malformed.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    is_traceparent(text).then_some(text)
}

fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let id = |part: &str, len: usize| hex(part, len) && part.bytes().any(|b| b != b'0');
    let mut parts = text.split('-');
    let parts: [Option<&str>; 5] = std::array::from_fn(|_| parts.next());
    match parts {
        [Some("00"), Some(trace), Some(span), Some(flags), None] => {
            id(trace, 32) && id(span, 16) && hex(flags, 2)
        }
        _ => false,
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, FieldError> {
    let refused = |detail: String| FieldError::new(format!("header:{IDEMPOTENCY_KEY}"), detail);
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(refused("is given twice".to_owned()));
    }
    let text = value
        .to_str()
        .map_err(|_| refused("must be ASCII".to_owned()))?;
    let key = structured_string(text.trim()).ok_or_else(|| {
        refused(r#"must be a string like "8e03978e-40d5-43dd-bc93-6894a57f9324""#.to_owned())
    })?;
    if (1..=DEDUP_ID_CHARS_MAX).contains(&key.len()) {
        return Ok(Some(key));
    }
    Err(refused(format!(
        "must have 1 to {DEDUP_ID_CHARS_MAX} characters, has {}",
        key.len()
    )))
}

/// A string of RFC 9651 without its quotes; a text without any quotes is taken as it is.
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
    // Parameters may follow; none is defined.
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
            ("idempotency-key", "\"k\""),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
        ]);
        let options = of_message(&headers).unwrap();
        assert_eq!(options.key.as_deref(), Some("k"));
        let meta = options.meta;
        assert_eq!((meta.tag, meta.key), (Some("eu"), Some("42")));
        assert_eq!(meta.content_type, Some("image/png"));
        assert!(meta.traceparent.is_some());
        assert_eq!(
            meta.attributes,
            [("area", "a"), ("ce-id", "7"), ("zone", "b")]
        );
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
        assert!(idempotency_key(&headers(&[("idempotency-key", "\"\"")])).is_err());
        assert!(
            idempotency_key(&headers(&[
                ("idempotency-key", "a"),
                ("idempotency-key", "b")
            ]))
            .is_err()
        );
    }

    #[test]
    fn a_malformed_trace_context_is_dropped() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}

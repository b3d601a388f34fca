//! JSON requests, and JSON responses of the wire types. A request is parsed in one pass of serde_json. If that fails, a
//! second, slower pass finds the pointer to the invalid field. Requests are validated here, once; the engine relies on
//! it.

use api::error::echo;
use api::limits::REQUEST_BYTES_MAX;
use api::object::Object;
use api::{ErrorCode, FieldError, Problem, Validate};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use serde::de::{DeserializeOwned, DeserializeSeed};
use serde::{Deserialize, Serialize};
use serde_path_to_error::{Path, Segment, Track};

use super::body;
use crate::http::answer::json_text;
use crate::http::answer::problem::Refusal;

/// A validated JSON request, or a JSON response.
pub(in crate::http) struct Json<T>(pub(in crate::http) T);

impl<T: DeserializeOwned + Validate, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let JsonText(text) = JsonText::from_request(request, state).await?;
        // An absent body means `{}`, and so does null: generated clients of several languages send it for no body.
        let is_null = || serde_json::from_slice::<()>(&text).is_ok();
        let is_absent = text.is_empty() || (!text.starts_with(b"{") && is_null());
        let text: &[u8] = if is_absent { b"{}" } else { &text };
        let value: T = parse(text).map_err(|error| Problem::invalid(vec![error]))?;
        match value.validate() {
            errors if errors.is_empty() => Ok(Self(value)),
            errors => Err(Problem::invalid(errors).into()),
        }
    }
}

/// The text of a JSON request, for handlers that parse it themselves and borrow from it.
pub(in crate::http) struct JsonText(pub(in crate::http) Bytes);

impl<S: Sync> FromRequest<S> for JsonText {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        check_content_type(request.headers())?;
        let (parts, body) = request.into_parts();
        let held = parts.extensions.get();
        let text = body::whole(body, ("the request", REQUEST_BYTES_MAX), held).await?;
        Ok(Self(without_mark(text)))
    }
}

/// The text without a byte order mark, which some editors and .NET clients write and a JSON parser may ignore (RFC 8259,
/// section 8.1).
pub(in crate::http) fn without_mark(mut text: Bytes) -> Bytes {
    if text.starts_with(b"\xef\xbb\xbf") {
        text.advance(3);
    }
    text
}

/// Refuses a body whose content type is not JSON. A missing content type means JSON.
pub(in crate::http) fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let text = value.to_str().unwrap_or("");
    let media = text.split(';').next().unwrap_or("").trim();
    let is_json = media.eq_ignore_ascii_case("application/json")
        || (media.len() > 17
            && media.as_bytes()[..12].eq_ignore_ascii_case(b"application/")
            && media.as_bytes()[media.len() - 5..].eq_ignore_ascii_case(b"+json"));
    if is_json {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::UnsupportedMediaType,
        format!(
            "this route takes application/json, not {}; with curl -d add -H 'Content-Type: application/json'",
            echo(media)
        ),
    ))
}

/// Parses `text`; an error names the invalid field.
pub(in crate::http) fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, FieldError> {
    let value = serde_json::from_slice(text)
        .or_else(|_| parse_seed(text, std::marker::PhantomData::<Object<T>>));
    value.map(|Object(value)| value)
}

/// The slow pass: parses with `seed` and tracks the path.
pub(in crate::http) fn parse_seed<'a, S: DeserializeSeed<'a>>(
    text: &'a [u8],
    seed: S,
) -> Result<S::Value, FieldError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let mut track = Track::new();
    let value = seed.deserialize(serde_path_to_error::Deserializer::new(
        &mut json, &mut track,
    ));
    let path = track.path();
    let value = value.map_err(|error| explain(&error, &path))?;
    json.end()
        .map_err(|error| FieldError::new("", format!("is not JSON: {error}")))?;
    Ok(value)
}

fn explain(error: &serde_json::Error, path: &Path) -> FieldError {
    let text = error.to_string();
    if !error.is_data() {
        return FieldError::new(pointer(path), format!("is not JSON: {text}"));
    }
    let detail = text
        .rsplit_once(" at line ")
        .map_or(&*text, |(what, _)| what);
    FieldError::new(pointer(path), detail)
}

/// Formats a path as a JSON pointer (RFC 6901).
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        let step = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { .. } | Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&step);
    }
    pointer
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(text) => json_text(text),
            Err(_) => Refusal::from(crate::engine::Error::Internal).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use api::topic::TopicSettings;
    use axum::http::HeaderValue;

    use super::*;

    fn refused(text: &str) -> (String, String) {
        let error = parse::<TopicSettings>(text.as_bytes()).unwrap_err();
        (error.pointer, error.detail)
    }

    #[test]
    fn a_wrong_field_is_found_by_its_pointer() {
        let (pointer, detail) = refused(r#"{"retention_seconds":"x"}"#);
        assert_eq!(pointer, "/retention_seconds");
        assert_eq!(
            detail,
            r#"invalid type: string "x", expected a whole number in range"#
        );
        let (pointer, detail) = refused(r#"{"retention":1}"#);
        assert_eq!(pointer, "/retention");
        assert!(detail.starts_with("unknown field `retention`, expected one of"));
        assert!(refused("{").1.starts_with("is not JSON: EOF"));
        assert!(refused("{} x").1.starts_with("is not JSON: trailing"));
        assert_eq!(refused("[]").0, "");
    }

    #[tokio::test]
    async fn a_body_may_be_absent_and_begin_with_a_mark() {
        for (text, retention) in [
            ("", None),
            ("{\"retention_seconds\":null,\"keep_consumed\":null}", None),
            ("\u{feff}{\"retention_seconds\":60}", Some(60)),
            ("\u{feff}", None),
            ("null\n", None),
        ] {
            let request = Request::new(axum::body::Body::from(text));
            let read = Json::<TopicSettings>::from_request(request, &()).await;
            assert_eq!(read.unwrap().0.retention_seconds, retention, "{text}");
        }
        for text in [" ", "\n", "\x0c", "\x0cnull", "nul", "null {}"] {
            let request = Request::new(axum::body::Body::from(text));
            let read = Json::<TopicSettings>::from_request(request, &()).await;
            assert_eq!(
                read.err().unwrap().into_response().status(),
                400,
                "{text:?}"
            );
        }
    }

    #[test]
    fn json_routes_take_json_and_what_says_nothing() {
        let with = |media: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
            check_content_type(&headers).is_ok()
        };
        assert!(check_content_type(&HeaderMap::new()).is_ok());
        assert!(with("application/json; charset=utf-8"));
        assert!(with("Application/vnd.cursus+JSON"));
        assert!(!with("application/x-www-form-urlencoded"));
        assert!(!with("text/plain"));
        assert!(!with("application/+json"));
    }
}

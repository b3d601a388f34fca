//! Reads of messages that do not consume them: one message, its body, and the messages of a topic from a position on.

use api::TopicName;
use api::limits::INLINE_BODY_BYTES_MAX;
use api::list::Page;
use api::message::Message;
use api::push::PushAttempt;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::engine::{Engine, Error};
use crate::http::answer::held::Holder;
use crate::http::answer::problem::Refusal;
use crate::http::answer::range::{self, BodyRange};
use crate::http::answer::{page, shown};
use crate::http::document::{Binary, BodyErrors, ReadErrors};
use crate::http::request::caller::{BrowseTopic, Caller, Receive, To};
use crate::http::request::condition;
use crate::http::request::digest::{self, CONTENT_DIGEST};
use crate::http::request::json::Json;
use crate::http::request::path::MessagePath;
use crate::http::request::query::BrowseQuery;

/// Get a message
///
/// Returns the message without consuming it: its leases and cursors do not change.
#[utoipa::path(
    get, path = "/v1/messages/{id}", operation_id = "get_message", tag = "Messages",
    security(("api_key" = ["receive"])),
    params(MessagePath),
    responses((status = 200, description = "The message", body = Message), ReadErrors)
)]
pub(in crate::http) async fn get_message(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Receive>,
    MessagePath(id): MessagePath,
) -> Result<Response, Refusal> {
    Ok(shown::one(&engine.message(&caller, id).await?)?)
}

/// Get the body of a message
///
/// Returns the raw bytes with the content type that they were published with. `Content-Disposition` is always
/// `attachment`, so that a browser does not run a hostile body in the origin of this service.
#[utoipa::path(
    get, path = "/v1/messages/{id}/body", operation_id = "get_message_body", tag = "Messages",
    security(("api_key" = ["receive"])),
    params(
        MessagePath,
        ("Range" = Option<String>, Header, description = "One range of bytes to return; several ranges are ignored and the whole body is returned", nullable = false, example = "bytes=0-1023"),
        ("If-Match" = Option<String>, Header, description = "ETags or `*`; without the one of the body the request fails", nullable = false),
        ("If-None-Match" = Option<String>, Header, description = "ETags or `*`; with the one of the body the response is empty (304)", nullable = false),
        ("If-Range" = Option<String>, Header, description = "An ETag; the range is ignored unless it is the ETag of the body", nullable = false)
    ),
    responses(
        (status = 200, description = "The body, with the content type that it was published with", body = inline(Binary), content_type = "*/*",
            headers(("ETag" = String, description = "The id of the message in quotes; a body never changes"), ("Accept-Ranges" = String, description = "bytes"),
                ("Content-Digest" = String, description = "SHA-256 of the body (RFC 9530); only if the body is small"))),
        (status = 206, description = "The range of the body", body = inline(Binary), content_type = "*/*",
            headers(("Content-Range" = String, description = "The returned range and the length of the body"))),
        (status = 304, description = "`If-None-Match` lists the ETag of the body"),
        BodyErrors
    )
)]
pub(in crate::http) async fn get_message_body(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Receive>,
    MessagePath(id): MessagePath,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let message = engine.stored_message(&caller, id).await?;
    let view = message.view().ok_or(Error::Internal)?;
    let (start, end) = view.body_range();
    let bytes = end - start;
    let etag = value(&format!("\"{id}\""));
    if let Some(unmet) = condition::unmet(&headers, &etag) {
        return Ok(unmet);
    }
    let is_head = method == Method::HEAD;
    // A range is one of a GET (RFC 9110, section 14.2).
    let part = if is_head {
        BodyRange::Whole
    } else {
        range_of(&headers, &etag, bytes)
    };
    let mut response = body_head(part, bytes, &etag);
    let content_type = view.meta().content_type.unwrap_or_default();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, value(content_type));
    let part = match part {
        BodyRange::Whole => 0..bytes,
        BodyRange::Bytes(first, last) => first..last + 1,
        BodyRange::Beyond => return Ok(beyond(bytes)),
    };
    // A small body is in memory, so its digest costs little. JSON responses show bodies up to the same size.
    let small = view.body().filter(|body| {
        part == (0..bytes) && body.len() <= INLINE_BODY_BYTES_MAX && !body.is_empty()
    });
    if let Some(digest) = small.and_then(digest::of) {
        response.headers_mut().insert(CONTENT_DIGEST, digest);
    }
    if is_head {
        // The body is neither read nor counted.
        return Ok(response);
    }
    let body = engine.body_part(caller.tenant(), &message, part).await?;
    *response.body_mut() = Body::from_stream(body);
    Ok(response)
}

/// Get the attempts to push a message
///
/// Returns what endpoints of push subscriptions answered, in order of time. Attempts are listed within two seconds, and
/// kept for three days.
#[utoipa::path(
    get, path = "/v1/messages/{id}/attempts", operation_id = "get_push_attempts", tag = "Push",
    security(("api_key" = ["receive"])),
    params(MessagePath),
    responses((status = 200, description = "The attempts, at most 1,000; all in one page", body = Page<PushAttempt>), ReadErrors)
)]
pub(in crate::http) async fn get_push_attempts(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Receive>,
    MessagePath(id): MessagePath,
) -> Result<Json<Page<PushAttempt>>, Refusal> {
    let items = engine.attempts(&caller, id).await?;
    Ok(Json(Page { items, next: None }))
}

/// The part of a body that the request asks for.
fn range_of(asked: &HeaderMap, etag: &HeaderValue, bytes: u64) -> BodyRange {
    match (asked.get(RANGE), asked.get(IF_RANGE)) {
        (Some(_), Some(tag)) if tag != etag => BodyRange::Whole,
        (Some(range), _) => range::parse(range.to_str().unwrap_or(""), bytes),
        (None, _) => BodyRange::Whole,
    }
}

/// The response without its body and content type.
fn body_head(part: BodyRange, bytes: u64, etag: &HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    let mut length = bytes;
    if let BodyRange::Bytes(first, last) = part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {first}-{last}/{bytes}");
        response.headers_mut().insert(CONTENT_RANGE, value(&range));
        length = last + 1 - first;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(ETAG, etag.clone());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Refuses a range outside of the body and reports the length of the body (RFC 9110, section 15.5.17).
fn beyond(bytes: u64) -> Response {
    let detail = format!("the body has {bytes} bytes");
    let mut response = Refusal::new(api::ErrorCode::RangeNotSatisfiable, detail).into_response();
    let range = value(&format!("bytes */{bytes}"));
    response.headers_mut().insert(CONTENT_RANGE, range);
    response
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text)
        .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"))
}

/// Browse the messages of a topic
///
/// Returns messages from a position on without consuming them. With `key` or `tag` a page may hold fewer messages than
/// `limit`, or none, and still have a `next`.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/messages", operation_id = "browse", tag = "Messages",
    security(("api_key" = ["receive"])),
    params(
        To<BrowseTopic, TopicName>,
        ("from" = Option<String>, Query, description = "Where to begin: `start`, a time (RFC 3339) or a message id; default `start`", pattern = r"^(start|[0-9a-hjkmnp-tv-z]{20}|[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?Z)$", nullable = false, example = "start"),
        ("after" = Option<String>, Query, description = "`next` of the page before; it has precedence over `from`", pattern = r"^[0-9a-hjkmnp-tv-z]{20}(\.-?[0-9]{1,18})?$", nullable = false, example = "000000010000000002s3"),
        ("limit" = Option<u32>, Query, description = "Most messages to return, 1 to 1,000; default 100", minimum = 1, maximum = 1000, nullable = false),
        ("key" = Option<String>, Query, description = "Return only messages with this key", min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$", nullable = false),
        ("tag" = Option<String>, Query, description = "Return only messages with this tag", min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$", nullable = false)
    ),
    responses((status = 200, description = "A page of messages", body = Page<Message>), ReadErrors)
)]
pub(in crate::http) async fn browse_messages(
    State(engine): State<Engine>,
    To(caller, topic, ..): To<BrowseTopic, TopicName>,
    uri: Uri,
    BrowseQuery(browse): BrowseQuery,
) -> Result<Response, Refusal> {
    let (messages, next) = engine.browse(caller.tenant(), &topic, browse).await?;
    let next_text = next.map(|next| next.to_string());
    let next = next_text.as_deref();
    let holder = Holder {
        budget: engine.held(),
        tenant: caller.tenant(),
    };
    let page = shown::page(&messages, next, holder)?;
    Ok(page::linked(&uri, next, page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_what_it_is_and_runs_nowhere() {
        let mut asked = HeaderMap::new();
        let etag = value("\"id\"");
        let answer = |asked: &HeaderMap| body_head(range_of(asked, &etag, 10), 10, &etag);
        let whole = answer(&asked);
        assert_eq!(whole.status(), 200);
        assert_eq!(whole.headers()[CONTENT_DISPOSITION], "attachment");
        assert_eq!(whole.headers()[CONTENT_LENGTH], "10");
        asked.insert(RANGE, HeaderValue::from_static("bytes=8-"));
        let part = answer(&asked);
        assert_eq!(part.status(), 206);
        assert_eq!(part.headers()[CONTENT_RANGE], "bytes 8-9/10");
        assert_eq!(part.headers()[CONTENT_LENGTH], "2");
        asked.insert(IF_RANGE, HeaderValue::from_static("\"other\""));
        assert_eq!(answer(&asked).status(), 200);
        assert_eq!(beyond(10).headers()[CONTENT_RANGE], "bytes */10");
    }
}

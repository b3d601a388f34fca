//! Looking at messages without consuming them: one, its body, and a topic from a place on.

use api::list::Page;
use api::message::Message;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use super::caller::Caller;
use super::document::{Binary, BodyErrors, ReadErrors};
use super::json::answer;
use super::path::{MessagePath, TopicPath};
use super::problem::Refusal;
use super::query::Browse;
use super::range::{self, Part};
use super::shown;
use crate::engine::{BodyStream, Engine, Error, From as Place, StoredMessage, Tenant};

/// Pages that one filtered browse looks through; `next` leads on from there.
const PAGES_MAX: usize = 10;

/// Get a message
///
/// Does not consume it.
#[utoipa::path(
    get, path = "/v1/messages/{id}", operation_id = "get_message", tag = "Messages",
    params(("id" = api::MessageId, Path, description = "Id of the message")),
    responses((status = 200, description = "The message", body = Message), ReadErrors)
)]
pub(super) async fn get_message(
    State(engine): State<Engine>,
    Caller(tenant): Caller,
    MessagePath(id): MessagePath,
) -> Result<Response, Refusal> {
    Ok(answer(shown::one(&engine.message(tenant, id).await?)?))
}

/// Get the body of a message
///
/// Its raw bytes with its content type, as an attachment, so that a hostile body cannot run in the origin of the service.
#[utoipa::path(
    get, path = "/v1/messages/{id}/body", operation_id = "get_message_body", tag = "Messages",
    params(
        ("id" = api::MessageId, Path, description = "Id of the message"),
        ("Range" = Option<String>, Header, description = "One range of bytes", nullable = false, example = "bytes=0-1023"),
        ("If-Range" = Option<String>, Header, description = "The ETag that the range is of", nullable = false)
    ),
    responses(
        (status = 200, description = "The body, with the content type it was published with", body = inline(Binary), content_type = "*/*",
            headers(("ETag" = String, description = "The id: a body never changes"), ("Accept-Ranges" = String, description = "bytes"))),
        (status = 206, description = "The range of the body", body = inline(Binary), content_type = "*/*",
            headers(("Content-Range" = String, description = "Which bytes of how many"))),
        BodyErrors
    )
)]
pub(super) async fn get_message_body(
    State(engine): State<Engine>,
    Caller(tenant): Caller,
    MessagePath(id): MessagePath,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let body = engine.message_body(tenant, id).await?;
    body_response(body, &format!("\"{id}\""), &headers)
}

fn body_response(body: BodyStream, etag: &str, asked: &HeaderMap) -> Result<Response, Refusal> {
    let part = match (asked.get(RANGE), asked.get(IF_RANGE)) {
        (Some(_), Some(tag)) if tag != etag => Part::Whole,
        (Some(range), _) => range::part(range.to_str().unwrap_or(""), body.bytes),
        (None, _) => Part::Whole,
    };
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let (from, to) = match part {
        Part::Whole => (0, body.bytes),
        Part::Bytes(first, last) => {
            let range = format!("bytes {first}-{last}/{}", body.bytes);
            headers.insert(CONTENT_RANGE, value(&range));
            (first, last + 1)
        }
        Part::Beyond => {
            let detail = format!("the body has {} bytes", body.bytes);
            return Err(Refusal::new(api::ErrorCode::RangeNotSatisfiable, detail));
        }
    };
    headers.insert(CONTENT_TYPE, value(&body.content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(to - from));
    headers.insert(ETAG, value(etag));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if part != Part::Whole {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    *response.body_mut() = Body::from_stream(cut(body.stream, from, to));
    Ok(response)
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text)
        .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"))
}

/// The bytes `from` to `to` of a stream, `to` not included; what follows is not read.
fn cut(
    stream: BoxStream<'static, Result<Bytes, Error>>,
    from: u64,
    to: u64,
) -> BoxStream<'static, Result<Bytes, Error>> {
    let mut at = 0_u64;
    let within = move |bytes: Bytes| {
        let start = at;
        at += bytes.len() as u64;
        let inside = |edge: u64| {
            let offset = edge.clamp(start, start + bytes.len() as u64) - start;
            usize::try_from(offset).unwrap_or(bytes.len())
        };
        bytes.slice(inside(from)..inside(to))
    };
    let mut sent = 0_u64;
    stream
        .map_ok(within)
        .take_while(move |piece| {
            // The piece that reaches the end was the last one; polling further would fetch for nothing.
            let wanted = sent < to - from;
            sent += piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
            std::future::ready(wanted)
        })
        .boxed()
}

/// Browse the messages of a topic
///
/// Consumes nothing. With `key` or `tag` a page may hold fewer messages than `limit`, or none, and still have a `next`.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/messages", operation_id = "browse_messages", tag = "Messages",
    params(
        ("topic" = api::TopicName, Path, description = "Name of the topic"),
        ("from" = Option<String>, Query, description = "Where to begin: `start` (the default), a time (RFC 3339) or a message id", pattern = r"^(start|[0-9a-hjkmnp-tv-z]{20}|[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?Z)$", nullable = false, example = "start"),
        ("after" = Option<api::MessageId>, Query, description = "`next` of the page before; goes not with `from`", nullable = false),
        ("limit" = Option<u32>, Query, description = "Most messages to return", minimum = 1, maximum = 1000, nullable = false),
        ("key" = Option<String>, Query, description = "Only messages with this key", min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$", nullable = false),
        ("tag" = Option<String>, Query, description = "Only messages with this tag", min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$", nullable = false)
    ),
    responses((status = 200, description = "A page of messages", body = Page<Message>), ReadErrors)
)]
pub(super) async fn browse_messages(
    State(engine): State<Engine>,
    Caller(tenant): Caller,
    TopicPath(topic): TopicPath,
    browse: Browse,
) -> Result<Response, Refusal> {
    let (messages, next) = page(&engine, tenant, &topic, browse).await?;
    Ok(answer(shown::page(&messages, next.as_deref())?))
}

/// A page after the filter. The engine's pages are not filtered, so several of them may make one, within a bound.
async fn page(
    engine: &Engine,
    tenant: Tenant,
    topic: &api::TopicName,
    browse: Browse,
) -> Result<(Vec<StoredMessage>, Option<String>), Error> {
    let mut from = browse.from;
    let mut found = Vec::new();
    for _ in 0..PAGES_MAX {
        let (messages, next) = engine.browse(tenant, topic, from, browse.limit).await?;
        let room = browse.limit as usize - found.len();
        let mut matching = messages.into_iter().filter(|m| matches(m, &browse));
        found.extend(matching.by_ref().take(room));
        if matching.next().is_some() {
            let last = found.last().map(|message| message.id().to_string());
            return Ok((found, last));
        }
        let Some(after) = next.as_deref().and_then(|next| next.parse().ok()) else {
            return Ok((found, next));
        };
        from = Place::After(after);
        if found.len() == browse.limit as usize {
            return Ok((found, next));
        }
    }
    let next = match from {
        Place::After(id) => Some(id.to_string()),
        Place::Start | Place::Time(_) | Place::Message(_) => None,
    };
    Ok((found, next))
}

fn matches(message: &StoredMessage, browse: &Browse) -> bool {
    if browse.key.is_none() && browse.tag.is_none() {
        return true;
    }
    let meta = message.view().map(|view| view.meta()).unwrap_or_default();
    let is = |wanted: &Option<String>, is| wanted.is_none() || wanted.as_deref() == is;
    is(&browse.key, meta.key) && is(&browse.tag, meta.tag)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn a_range_is_cut_out_of_the_stream() {
        for (from, to, expected) in [
            (0, 10, "0123456789"),
            (2, 7, "23456"),
            (4, 5, "4"),
            (0, 0, ""),
        ] {
            let pieces =
                ["012", "3456", "789"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
            let cut = cut(stream::iter(pieces).boxed(), from, to);
            let bytes: Vec<Bytes> = cut.try_collect().await.unwrap();
            assert_eq!(bytes.concat(), expected.as_bytes());
        }
    }

    #[test]
    fn a_body_says_what_it_is_and_runs_nowhere() {
        let body = || BodyStream {
            content_type: "text/html".to_owned(),
            bytes: 10,
            stream: stream::empty().boxed(),
        };
        let mut asked = HeaderMap::new();
        let whole = body_response(body(), "\"id\"", &asked).unwrap();
        assert_eq!(whole.status(), 200);
        assert_eq!(whole.headers()[CONTENT_DISPOSITION], "attachment");
        assert_eq!(whole.headers()[CONTENT_LENGTH], "10");
        asked.insert(RANGE, HeaderValue::from_static("bytes=8-"));
        let part = body_response(body(), "\"id\"", &asked).unwrap();
        assert_eq!(part.status(), 206);
        assert_eq!(part.headers()[CONTENT_RANGE], "bytes 8-9/10");
        asked.insert(IF_RANGE, HeaderValue::from_static("\"other\""));
        assert_eq!(
            body_response(body(), "\"id\"", &asked).unwrap().status(),
            200
        );
    }
}

//! `POST /v1/topics/{topic}/messages` and `…/messages/batch`. A raw body up to the hot limit is held in memory; a
//! longer one streams to object storage. The response is the same.

use api::TopicName;
use api::limits::BATCH_BYTES_MAX;
use api::message::{PublishBatch, PublishResults, Published};
use axum::extract::{Request, State};
use sha2::{Digest, Sha256};

use crate::engine::{Drafts, Engine, Error, IdempotencyKey, Metered, PublishRoute, Streamed};
use crate::http::answer::problem::Refusal;
use crate::http::document::{Binary, PublishErrors};
use crate::http::request::batch::Results;
use crate::http::request::body::{self, Raw};
use crate::http::request::caller::{Admitted, Publish, To};
use crate::http::request::deadline::ShortBody;
use crate::http::request::held::Held;
use crate::http::request::json::{Json, check_content_type, without_mark};
use crate::http::request::{draft, options, trace};

/// Publish one message
///
/// The request body becomes the body of the message, whatever its content type, up to 100 MiB. Headers
/// `Cursus-Attr-<name>` are its attributes: at most 32, with names of 1 to 128 characters (lower-cased) and 16 KiB
/// together. Headers `ce-<name>` of a CloudEvent become attributes, too, named with their prefix. Other unknown
/// `Cursus-*` headers are refused.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/messages", operation_id = "publish", tag = "Messages",
    security(("api_key" = ["publish"])),
    params(
        To<Publish, TopicName>,
        ("Cursus-Tag" = Option<String>, Header, description = "Tag of the message: a label to filter by", min_length = 1, max_length = 128, nullable = false, pattern = r"^[!-~]([ -~]*[!-~])?$"),
        ("Cursus-Key" = Option<String>, Header, description = "Key of the message: an id of your own to find it by", min_length = 1, max_length = 128, nullable = false, pattern = r"^[!-~]([ -~]*[!-~])?$"),
        ("Idempotency-Key" = Option<String>, Header, description = "A string in quotes. A repeated request with the same key and body within the topic's deduplication window publishes nothing and returns the first response; another body is refused (422)", min_length = 1, max_length = 257, nullable = false, pattern = r#"^("[ !#-\[\]-~]{1,255}"|[!#-~]{1,255})$"#),
        ("traceparent" = Option<String>, Header, description = "Trace context of the producer (W3C), stored with the message; ignored if malformed", nullable = false),
        ("tracestate" = Option<String>, Header, description = "Vendor-specific part of the trace context, stored with it; ignored beyond 1,024 characters", nullable = false),
        ("Content-Digest" = Option<String>, Header, description = "`sha-256=:…:` or `sha-512=:…:` (RFC 9530) of the body as sent, content coding included: the publish is refused if the body has another digest. Every route checks it, and `Repr-Digest`", nullable = false)
    ),
    request_body(
        description = "The message body, of any content type",
        content((inline(Binary) = "application/octet-stream"), (String = "text/plain"))
    ),
    responses((status = 200, description = "The message is stored durably", headers(("Cursus-Units" = u64, description = "Metering units of the request")), body = Published), PublishErrors)
)]
pub(in crate::http) async fn publish_message(
    State(engine): State<Engine>,
    To(caller, topic, ..): To<Publish, TopicName>,
    request: Request,
) -> Result<Metered<Json<Published>>, Refusal> {
    let tenant = caller.tenant();
    let (drafts, key, short) = match read(&engine, &caller, &topic, request).await? {
        ReadPublish::Held(drafts, key, short) => (drafts, key, short),
        ReadPublish::Streamed(published) => return Ok(published.map(Json)),
    };
    let publish = engine.publish(tenant, &topic, drafts, key);
    let Metered { answer, units } = match short {
        None => publish.await?,
        // On the heap: most requests do not need this future, and would carry it.
        Some(short) => Box::pin(short.bound(publish)).await?,
    };
    let published = answer.into_iter().next().unwrap_or(Err(Error::Internal))?;
    let answer = Json(published);
    Ok(Metered { answer, units })
}

/// A raw publish after its body was read.
enum ReadPublish {
    /// The body is in memory. While the publish waits for its turn, it holds nothing else of the request, so that warm
    /// memory is reused. [`ShortBody`] is the deadline of a body without a length that turned out to be short.
    Held(Drafts, Option<IdempotencyKey>, Option<ShortBody>),
    /// The body was streamed to object storage, and the message is published.
    Streamed(Metered<Published>),
}

async fn read(
    engine: &Engine,
    caller: &Admitted,
    topic: &TopicName,
    request: Request,
) -> Result<ReadPublish, Refusal> {
    let (parts, body) = request.into_parts();
    let options = options::of_message(&parts.headers)?;
    let held = parts.extensions.get::<Held>();
    let body = match body::raw(body, engine.hot_limit_bytes(), held).await? {
        Raw::Held(body) => body,
        Raw::Streamed(body) => {
            let streamed = Streamed {
                meta: options.meta(),
                key: options.key.clone(),
                capacity: caller.capacity,
            };
            // On the heap: requests with a short body do not need this future, and would carry it.
            let published = Box::pin(engine.publish_stream(caller.tenant(), topic, streamed, body));
            return Ok(ReadPublish::Streamed(published.await?));
        }
    };
    let mut drafts = draft::of_message(&options.meta(), &body);
    drafts.capacity = caller.capacity;
    let key = options
        .key
        .map(|key| idempotency_key(PublishRoute::Single, key, &body));
    drop(body);
    if let Some(held) = held {
        held.release();
    }
    Ok(ReadPublish::Held(
        drafts,
        key,
        parts.extensions.get().copied(),
    ))
}

/// Publish a batch of messages
///
/// Publishes 1 to 100 messages: at most 10 MiB of JSON, at most 1 MiB per body. Each message succeeds or fails by
/// itself. The request fails as a whole only if none of its messages is valid.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/messages/batch", operation_id = "publish_batch", tag = "Messages",
    security(("api_key" = ["publish"])),
    params(
        To<Publish, TopicName>,
        ("Idempotency-Key" = Option<String>, Header, description = "A string in quotes. A repeated request with the same key and body within the topic's deduplication window publishes nothing and returns the first response; another body is refused (422)", min_length = 1, max_length = 257, nullable = false, pattern = r#"^("[ !#-\[\]-~]{1,255}"|[!#-~]{1,255})$"#),
        ("traceparent" = Option<String>, Header, description = "Trace context of the producer (W3C), stored with each message; ignored if malformed", nullable = false),
        ("tracestate" = Option<String>, Header, description = "Vendor-specific part of the trace context, stored with it; ignored beyond 1,024 characters", nullable = false)
    ),
    request_body = PublishBatch,
    responses((status = 200, description = "One result per message, in order", headers(("Cursus-Units" = u64, description = "Metering units of the request: those of the messages that it stored")), body = PublishResults), PublishErrors)
)]
pub(in crate::http) async fn publish_batch(
    State(engine): State<Engine>,
    To(caller, topic, ..): To<Publish, TopicName>,
    request: Request,
) -> Result<Metered<Json<Results<Published>>>, Refusal> {
    let (parts, body) = request.into_parts();
    let key = options::of_batch(&parts.headers)?;
    let trace = trace::of(&parts.headers);
    check_content_type(&parts.headers)?;
    let held: Option<Held> = parts.extensions.get().cloned();
    let text = body::whole(body, ("the batch", BATCH_BYTES_MAX), held.as_ref()).await?;
    let text = without_mark(text);
    let mut drafts = draft::of_batch(&text, trace.as_ref())?;
    drafts.capacity = caller.capacity;
    let key = key.map(|key| idempotency_key(PublishRoute::Batch, key, &text));
    drop((parts, text));
    if let Some(held) = held {
        held.release();
    }
    let results = engine.publish(caller.tenant(), &topic, drafts, key).await?;
    Ok(results.map(|results| Json(results.into())))
}

fn idempotency_key(route: PublishRoute, key: String, body: &[u8]) -> IdempotencyKey {
    IdempotencyKey {
        route,
        key,
        fingerprint: Sha256::digest(body).into(),
    }
}

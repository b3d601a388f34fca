//! `POST /v1/topics/{topic}/messages` and `…/messages/batch`. A raw body is held in memory up to the hot limit and streams
//! to object storage beyond it; both ways return the same response.

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
use crate::http::request::json::{Json, check_content_type};
use crate::http::request::{draft, options, trace};

/// Publish one message
///
/// The request body is the message body, whatever its content type, up to 100 MiB. Attributes stand in headers
/// `Cursus-Attr-<name>`: at most 32, names of 1 to 128 characters (lower-cased), 16 KiB together; `ce-*` headers of a
/// CloudEvent are kept as attributes under their whole name. Other `Cursus-*` headers are refused.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/messages", operation_id = "publish_message", tag = "Publish",
    security(("api_key" = ["publish"])),
    params(
        To<Publish, TopicName>,
        ("Cursus-Tag" = Option<String>, Header, description = "A label to filter by", min_length = 1, max_length = 128, nullable = false, pattern = r"^[!-~]([ -~]*[!-~])?$"),
        ("Cursus-Key" = Option<String>, Header, description = "A business key to find the message by", min_length = 1, max_length = 128, nullable = false, pattern = r"^[!-~]([ -~]*[!-~])?$"),
        ("Idempotency-Key" = Option<String>, Header, description = "A string in quotes; within the topic's deduplication window the same key and body return the first response again", min_length = 1, max_length = 257, nullable = false, pattern = r#"^("[ !#-\[\]-~]{1,255}"|[!#-~]{1,255})$"#),
        ("traceparent" = Option<String>, Header, description = "Trace context of the producer (W3C), kept with the message; dropped when malformed", nullable = false),
        ("tracestate" = Option<String>, Header, description = "What its tracers add to that; kept up to 1,024 characters", nullable = false),
        ("Content-Digest" = Option<String>, Header, description = "`sha-256=:…:` (RFC 9530): the message is stored only when its body has this digest", nullable = false)
    ),
    request_body(
        description = "The message body; of any content type",
        content((inline(Binary) = "application/octet-stream"), (String = "text/plain"))
    ),
    responses((status = 200, description = "The message is stored durably", headers(("Cursus-Units" = u64, description = "Metering units of the call")), body = Published), PublishErrors)
)]
pub(in crate::http) async fn publish_message(
    State(engine): State<Engine>,
    To(caller, topic, ..): To<Publish, TopicName>,
    request: Request,
) -> Result<Metered<Json<Published>>, Refusal> {
    let tenant = caller.tenant();
    let (drafts, key, short) = match read(&engine, &caller, &topic, request).await? {
        Given::Held(drafts, key, short) => (drafts, key, short),
        Given::Streamed(published) => return Ok(published.map(Json)),
    };
    let publish = engine.publish(tenant, &topic, drafts, key);
    let Metered { answer, units } = match short {
        None => publish.await?,
        // On the heap: the future of this rare case must not be carried by every request.
        Some(short) => Box::pin(short.bound(publish)).await?,
    };
    let published = answer.into_iter().next().unwrap_or(Err(Error::Internal))?;
    let answer = Json(published);
    Ok(Metered { answer, units })
}

/// A raw publish whose body is read.
enum Given {
    /// A publish that waits for its turn holds nothing of the request, whose memory serves the next one while it is warm. The
    /// publish has its own deadline when only the transfer showed that the body is short.
    Held(Drafts, Option<IdempotencyKey>, Option<ShortBody>),
    /// The body went to object storage as it came, and the message is published.
    Streamed(Metered<Published>),
}

async fn read(
    engine: &Engine,
    caller: &Admitted,
    topic: &TopicName,
    request: Request,
) -> Result<Given, Refusal> {
    let (parts, body) = request.into_parts();
    let options = options::of_message(&parts.headers)?;
    let held = match body::raw(body, engine.hot_limit_bytes()).await? {
        Raw::Held(held) => held,
        Raw::Streamed(body) => {
            let body = match options.digest {
                Some(digest) => digest.checked(body),
                None => body,
            };
            let given = Streamed {
                meta: options.meta(),
                key: options.key.clone(),
                capacity: caller.capacity,
            };
            // On the heap: the future of the rare, large body must not be carried by every request.
            let published = Box::pin(engine.publish_stream(caller.tenant(), topic, given, body));
            return Ok(Given::Streamed(published.await?));
        }
    };
    if let Some(digest) = options.digest {
        digest.check(&held)?;
    }
    let mut drafts = draft::of_message(&options.meta(), &held);
    drafts.capacity = caller.capacity;
    let key = options
        .key
        .map(|key| idempotency_key(PublishRoute::Single, key, &held));
    Ok(Given::Held(drafts, key, parts.extensions.get().copied()))
}

/// Publish a batch of messages
///
/// 1 to 100 messages, at most 10 MiB of JSON, at most 1 MiB a body. Each message succeeds or fails by itself; the request
/// fails as a whole only when none of them can be tried.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/messages/batch", operation_id = "publish_batch", tag = "Publish",
    security(("api_key" = ["publish"])),
    params(
        To<Publish, TopicName>,
        ("Idempotency-Key" = Option<String>, Header, description = "A string in quotes; within the topic's deduplication window the same key and body return the first response again", min_length = 1, max_length = 257, nullable = false, pattern = r#"^("[ !#-\[\]-~]{1,255}"|[!#-~]{1,255})$"#),
        ("traceparent" = Option<String>, Header, description = "Trace context of the producer (W3C), kept with each message; dropped when malformed", nullable = false),
        ("tracestate" = Option<String>, Header, description = "What its tracers add to that; kept up to 1,024 characters", nullable = false)
    ),
    request_body = PublishBatch,
    responses((status = 200, description = "One result per message, in order", headers(("Cursus-Units" = u64, description = "Metering units of the call: of the messages that it stored")), body = PublishResults), PublishErrors)
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
    let text = body::whole(body, "the batch", BATCH_BYTES_MAX).await?;
    let mut drafts = draft::of_batch(&text, trace.as_ref())?;
    drafts.capacity = caller.capacity;
    let key = key.map(|key| idempotency_key(PublishRoute::Batch, key, &text));
    drop((parts, text));
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

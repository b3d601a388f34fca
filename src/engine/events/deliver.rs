//! Delivery: sends the events that wait for a sink, in their order, and deletes them once the sink has accepted them.
//! Called by the duty `events`. A delivery claims its sink, so no other delivery sends the same events at the same
//! time, and a slow or unreachable sink delays no other sink. A failed delivery is tried again without end, after
//! pauses that grow to an hour. No transaction is open while events are sent. When a node dies after sending and before
//! deleting, the events are sent again with the same ids.

use std::time::{Duration, Instant};

use api::TopicName;
use api::limits::EVENT_BATCH_MAX;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::access::Tenant;
use crate::engine::duty::DutyError;
use crate::engine::error::Error;
use crate::engine::events::{Target, batch_id};
use crate::engine::limit::Limit;
use crate::engine::log::payload::{Meta, Records};
use crate::engine::publish::draft::{Draft, Drafts};
use crate::engine::push::answer::{self, Verdict};
use crate::engine::push::sign::{Signed, Signer};
use crate::outbound::{self, HeaderMap, HeaderValue, Post, Reply};
use crate::repeat::doubled;
use crate::store::event_outbox::{self, Waiting};
use crate::store::event_sink::{self, Claimed, Failed};
use crate::store::{self, Store};

/// A claim on a sink expires this long after it was last renewed. Longer than a request may take.
const HOLD: Duration = Duration::from_secs(60);
/// When the node stops, a running request gets this time for its response. Without it another node would send the same
/// events again.
const LAST_WITHIN: Duration = Duration::from_secs(3);
/// A delivery ends after this time, so that deliveries to other sinks can run.
const TIME: Duration = Duration::from_secs(30);
/// Time for a request. Standard Webhooks asks senders to wait 15 to 30 seconds.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Pause before the second attempt. Each further pause is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// Longest pause, also when a sink asks for a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// Content type of an event.
const EVENT: &str = "application/cloudevents+json";
/// Content type of several events in a list.
const BATCH: &str = "application/cloudevents-batch+json";
/// Events that wait are counted up to this number.
const WAITING_COUNTED_MAX: i64 = 100_000;

/// The delivery of the events that wait for one sink.
#[derive(Debug)]
pub struct SinkRun {
    engine: Engine,
    sink: Claimed,
    /// The topic of the sink, if it is not a URL.
    topic: Option<TopicName>,
}

/// Why a sink did not accept events.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DeliveryFailure {
    /// The text that is shown to the tenant.
    text: String,
    /// The sink has asked for this pause before the next attempt.
    pause: Option<Duration>,
    /// The sink wants no more events.
    is_gone: bool,
}

/// Claims up to `limit` sinks that are due.
///
/// # Errors
/// When the database is unavailable.
pub async fn claim(engine: &Engine, limit: usize) -> Result<Vec<SinkRun>, DutyError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut session = engine.store().session().await?;
    let claimed = event_sink::claim(&mut session, limit, HOLD, engine.clock().now()).await?;
    let delivery = |sink: Claimed| {
        let topic = sink.topic.as_ref().map(|name| name.parse()).transpose();
        let corrupt = |_| store::Error::Corrupt {
            table: "topic",
            column: "name",
            row: sink.sink_id.to_string(),
        };
        Ok(SinkRun {
            topic: topic.map_err(corrupt)?,
            engine: engine.clone(),
            sink,
        })
    };
    claimed.into_iter().map(delivery).collect()
}

/// The number of events that wait for all sinks together, counted up to 100,000.
///
/// # Errors
/// When the database is unavailable.
pub async fn waiting(store: &Store) -> Result<i64, DutyError> {
    let mut session = store.session().await?;
    Ok(event_outbox::waiting_in_all(&mut session, WAITING_COUNTED_MAX).await?)
}

impl SinkRun {
    /// Delivers until no event waits, an attempt fails, the time is over, or `stop` is cancelled.
    pub async fn run(self, stop: &CancellationToken) {
        if let Err(error) = self.deliver(stop).await {
            // The claim expires.
            let sink = self.sink.sink_id;
            tracing::warn!(%error, sink, "the state of an event sink could not be kept");
        }
    }

    /// Sends events in order and stores the outcome. An attempt that fails ends it.
    async fn deliver(&self, stop: &CancellationToken) -> Result<(), store::Error> {
        let (began, mut attempts) = (Instant::now(), self.sink.attempts);
        let at_once = match (&self.topic, self.sink.batch) {
            (None, false) => 1,
            (Some(_), _) | (None, true) => EVENT_BATCH_MAX as usize,
        };
        let is_over = || stop.is_cancelled() || began.elapsed() > TIME;
        loop {
            let mut session = self.engine.store().session().await?;
            let limit = i64::from(EVENT_BATCH_MAX);
            let waiting = event_outbox::first(&mut session, self.sink.sink_id, limit).await?;
            drop(session);
            for events in waiting.chunks(at_once) {
                if is_over() {
                    break;
                }
                let Some(sent) = within(stop, self.send(events)).await else {
                    break;
                };
                match sent {
                    Ok(()) if self.delivered(events).await? => attempts = 0,
                    Ok(()) => return Ok(()),
                    Err(failure) => return self.failed(&failure, attempts).await,
                }
            }
            if waiting.is_empty() || is_over() {
                break;
            }
        }
        let mut session = self.engine.store().session().await?;
        event_sink::release(&mut session, &self.sink, self.engine.clock().now()).await
    }

    fn target(&self) -> Target {
        let target = if self.topic.is_some() { "topic" } else { "url" };
        Target { target }
    }

    /// Deletes events that were accepted and renews the claim. False when another delivery has claimed the sink.
    async fn delivered(&self, events: &[Waiting]) -> Result<bool, store::Error> {
        let metrics = &self.engine.metrics().events;
        let delivered = metrics.delivered.get_or_create(&self.target()).clone();
        delivered.inc_by(events.len() as u64);
        let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
        let now = self.engine.clock().now();
        let mut tx = self.engine.store().tx("events_delivered").await?;
        let is_ours = event_sink::delivered(&mut tx, &self.sink, HOLD, now).await?;
        event_outbox::delete(&mut tx, self.sink.sink_id, &seqs).await?;
        tx.commit().await?;
        Ok(is_ours)
    }

    /// Stores a failure and when to try again, and ends the claim.
    async fn failed(&self, failure: &DeliveryFailure, attempts: i32) -> Result<(), store::Error> {
        let metrics = &self.engine.metrics().events;
        metrics.failed.get_or_create(&self.target()).inc();
        let jitter = rand::random_range(0.8..1.2);
        let failed = Failed {
            failure: &failure.text,
            pause: pause(attempts, failure.pause, jitter),
            disable: failure.is_gone,
        };
        let mut session = self.engine.store().session().await?;
        event_sink::failed(&mut session, &self.sink, failed, self.engine.clock().now()).await
    }

    async fn send(&self, events: &[Waiting]) -> Result<(), DeliveryFailure> {
        match (&self.topic, &self.sink.url) {
            (Some(topic), _) => self.publish(topic, events).await,
            (None, Some(url)) => self.post(url, events).await,
            (None, None) => Err(DeliveryFailure::of("the sink has no target")),
        }
    }

    /// Publishes to the topic like any publish of the tenant: it counts against the tenant's quota and is part of its
    /// usage.
    async fn publish(&self, topic: &TopicName, events: &[Waiting]) -> Result<(), DeliveryFailure> {
        let tenant = Tenant(self.sink.tenant_id);
        let drafts = drafts(events);
        let published = Box::pin(self.engine.publish(tenant, topic, drafts, None)).await;
        let results = published.map_err(|error| not_published(&error))?.answer;
        let failed = results.into_iter().find_map(Result::err);
        failed.map_or(Ok(()), |error| Err(not_published(&error)))
    }

    /// Sends one request to the URL: one event, or a list when the sink takes batches.
    async fn post(&self, url: &str, events: &[Waiting]) -> Result<(), DeliveryFailure> {
        let (content_type, id, body) = match events {
            [event] if !self.sink.batch => (EVENT, event.event_id.clone(), event.event.clone()),
            events => (BATCH, batch_id(events), list(events)),
        };
        let clock = self.engine.clock();
        let at = clock.estimate();
        let timestamp = at.unix_timestamp().to_string();
        let signed = Signed {
            id: &id,
            timestamp: &timestamp,
            body: body.as_bytes(),
        };
        let key = self.sink.secret.iter();
        let signer = key.fold(Signer::default(), |signer, key| {
            signer.with_secret(&key.0, None)
        });
        let signature = signer.signature(signed, at);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", content_type),
            ("webhook-id", &id),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &signature),
        ] {
            let refused =
                |_| DeliveryFailure::of(format!("not sent: the header {name} cannot be sent"));
            headers.insert(name, HeaderValue::from_str(value).map_err(refused)?);
        }
        let outbound = self.engine.outbound();
        let refused = |detail| no_response(&outbound::Error::Refused(detail));
        let post = Post {
            url: outbound.check(url).map_err(refused)?,
            headers,
            body: body.into(),
            timeout: TIMEOUT,
        };
        accepted(&outbound.deliver(post).await, at)
    }
}

impl DeliveryFailure {
    fn of(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            pause: None,
            is_gone: false,
        }
    }
}

/// The result of `work`; `None` when it has not ended `LAST_WITHIN` after the stop.
async fn within<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    let too_late = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_WITHIN).await;
    };
    tokio::select! {
        done = work => Some(done),
        () = too_late => None,
    }
}

/// Fails unless the response means that the sink has accepted all events.
fn accepted(
    response: &Result<Reply, outbound::Error>,
    at: OffsetDateTime,
) -> Result<(), DeliveryFailure> {
    let reply = response.as_ref().map_err(no_response)?;
    let verdict = answer::verdict(reply, at);
    if verdict.is_accepted() {
        return Ok(());
    }
    let pause = match verdict {
        Verdict::Again { pause } => pause,
        Verdict::Done | Verdict::Later | Verdict::Gone => None,
    };
    Err(DeliveryFailure {
        text: answer::in_short(response),
        pause,
        is_gone: verdict == Verdict::Gone,
    })
}

fn no_response(error: &outbound::Error) -> DeliveryFailure {
    tracing::debug!(
        error = error as &dyn std::error::Error,
        "events were not taken"
    );
    if let outbound::Error::Refused(detail) = error {
        return DeliveryFailure::of(format!("not sent: {detail}"));
    }
    DeliveryFailure::of(error.to_string())
}

/// The failure of a publish to the topic. A quota asks for a pause.
fn not_published(error: &Error) -> DeliveryFailure {
    let mut pause = None;
    if let Error::Limited(Limit::Quota(violation) | Limit::Guarantee(violation)) = error {
        pause = Some(Duration::from_secs(violation.again_seconds.into()));
    }
    let mut text = format!("the topic did not take it: {error}");
    text.truncate(text.floor_char_boundary(200));
    DeliveryFailure {
        pause,
        ..DeliveryFailure::of(text)
    }
}

/// Pause before the next attempt, after a failure that followed `attempts` other failures.
fn pause(attempts: i32, asked: Option<Duration>, jitter: f64) -> Duration {
    doubled(PAUSE_MIN, attempts.max(0).unsigned_abs(), PAUSE_MAX)
        .mul_f64(jitter)
        .max(asked.unwrap_or_default())
        .min(PAUSE_MAX)
}

/// Events as a JSON list.
fn list(events: &[Waiting]) -> String {
    let texts: Vec<&str> = events.iter().map(|event| &*event.event).collect();
    format!("[{}]", texts.join(","))
}

/// Events as messages. The body is the complete event, and the attributes are those of the HTTP binding of CloudEvents.
fn drafts(events: &[Waiting]) -> Drafts {
    let mut records = Records::default();
    let mut items = Vec::with_capacity(events.len());
    for event in events {
        let value: Value = serde_json::from_str(&event.event).unwrap_or_default();
        let names = ["id", "source", "specversion", "subject", "time", "type"];
        let named = names.map(|name| (format!("ce-{name}"), value[name].as_str()));
        let attributes = named
            .iter()
            .filter_map(|(name, value)| Some((&**name, (*value)?)))
            .collect();
        let meta = Meta {
            content_type: Some(EVENT),
            attributes,
            ..Meta::default()
        };
        records.push(&meta, event.event.as_bytes());
        items.push(Draft::Valid(Some(event.event_id.clone())));
    }
    Drafts {
        records,
        items,
        ..Drafts::default()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::outbound::HeaderName;

    const RETRY_AFTER: HeaderName = HeaderName::from_static("retry-after");

    fn seconds(pause: Duration) -> u64 {
        pause.as_secs()
    }

    #[test]
    fn pauses_grow_to_an_hour_and_are_as_long_as_asked_for() {
        let after = |attempts| seconds(pause(attempts, None, 1.0));
        assert_eq!([0, 1, 2, 9].map(after), [5, 10, 20, 2_560]);
        assert_eq!([10, 31, i32::MAX, -1].map(after), [3_600, 3_600, 3_600, 5]);
        let asked = |asked| seconds(pause(0, Some(Duration::from_secs(asked)), 1.0));
        assert_eq!([1, 90, u64::MAX].map(asked), [5, 90, 3_600]);
        assert_eq!(pause(3, None, 0.8), Duration::from_secs(32));
    }

    #[test]
    fn only_success_is_taken_and_410_is_the_end() {
        let of = |status| {
            let after = (RETRY_AFTER, HeaderValue::from_static("7"));
            let response = Reply {
                status,
                headers: HeaderMap::from_iter([after]),
                body: Bytes::new(),
            };
            accepted(&Ok(response), OffsetDateTime::UNIX_EPOCH)
        };
        assert!(of(200).is_ok() && of(204).is_ok());
        for status in [100, 301, 302, 304, 400, 404, 429, 500] {
            let failure = of(status).unwrap_err();
            assert!(!failure.is_gone && failure.text.contains(&status.to_string()));
            assert_eq!(failure.pause, Some(Duration::from_secs(7)));
        }
        assert!(of(410).unwrap_err().is_gone);
    }
}

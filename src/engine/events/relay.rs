//! The relay: publishes the events that wait for a sink, in their order, to its topic: that of the tenant, or the one from
//! which they are pushed to its URL (`transport`). An event is deleted once it is delivered: published to the topic of a
//! tenant, or settled by the subscription of the sink. Called by the duty `events`.
//!
//! A relay claims its sink, so no other one publishes the same events at the same time. A publish that failed is tried
//! again without end, after pauses that grow to an hour. No transaction is open while events are published. When a node
//! dies after that, they are published again with the same ids, by which the topic knows them.

use std::time::{Duration, Instant};

use api::TopicName;
use api::limits::EVENT_BATCH_MAX;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::access::Tenant;
use crate::engine::duty::DutyError;
use crate::engine::error::Error;
use crate::engine::events::{AT_TOPIC, AT_URL, transport};
use crate::engine::limit::Limit;
use crate::engine::log::payload::{Meta, Records};
use crate::engine::publish::draft::{Draft, Drafts};
use crate::engine::push::in_order::pause;
use crate::store::event_outbox::{self, Waiting};
use crate::store::event_relay::{self, Claimed, Failed, Unsettled};
use crate::store::{self, Offset, Store, event_sink};

/// A claim on a sink expires this long after it was last renewed. Longer than a publish may take.
const HOLD: Duration = Duration::from_secs(60);
/// When the node stops, a running publish gets this time.
const LAST_WITHIN: Duration = Duration::from_secs(3);
/// A relay ends after this time, so that those of other sinks can run.
const TIME: Duration = Duration::from_secs(30);
/// Events of a sink that are published and not settled, at most. The others wait in the outbox, where they are counted.
const AHEAD: i64 = 1_000;
/// Sinks whose progress is read by one statement.
const SINKS: i64 = 1_000;
/// Content type of an event.
const EVENT: &str = "application/cloudevents+json";
/// Events that wait are counted up to this number.
const WAITING_COUNTED_MAX: i64 = 100_000;

/// The relay of the events that wait for one sink.
#[derive(Debug)]
pub struct SinkRun {
    engine: Engine,
    sink: Claimed,
    /// The tenant that publishes.
    tenant: Tenant,
    topic: TopicName,
}

/// Why events were not published.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RelayFailure {
    /// The text that is shown to the tenant.
    text: String,
    /// The topic has asked for this pause before the next attempt.
    pause: Option<Duration>,
}

/// Claims up to `limit` sinks that are due.
///
/// # Errors
/// When the database is unavailable.
pub async fn claim(engine: &Engine, limit: usize) -> Result<Vec<SinkRun>, DutyError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut session = engine.store().session().await?;
    let now = engine.clock().now();
    let claimed = event_relay::claim(&mut session, AHEAD, limit, HOLD, now).await?;
    let relay = |sink: Claimed| {
        let corrupt = |_| store::Error::Corrupt {
            table: "topic",
            column: "name",
            row: sink.sink_id.to_string(),
        };
        let (tenant, name) = match &sink.topic {
            Some(topic) => (Tenant(sink.tenant_id), topic.clone()),
            None => (transport::OWNER, transport::name(sink.sink_id)),
        };
        Ok(SinkRun {
            engine: engine.clone(),
            tenant,
            topic: name.parse().map_err(corrupt)?,
            sink,
        })
    };
    claimed.into_iter().map(relay).collect()
}

/// Deletes the events that the subscriptions of sinks have settled, and disables the sinks whose URLs are gone. Returns
/// how many events were delivered.
///
/// # Errors
/// When the database is unavailable.
pub async fn settle(engine: &Engine) -> Result<u64, DutyError> {
    let mut session = engine.store().session().await?;
    event_relay::disable(&mut session).await?;
    let (mut after, mut delivered) = (0, 0);
    loop {
        let sinks = event_relay::unsettled(&mut session, after, SINKS).await?;
        let Some(last) = sinks.last() else { break };
        after = last.sink_id;
        delivered += settle_some(engine, &mut session, &sinks).await?;
    }
    let metrics = &engine.metrics().events;
    metrics.delivered.get_or_create(&AT_URL).inc_by(delivered);
    Ok(delivered)
}

async fn settle_some(
    engine: &Engine,
    session: &mut store::Session,
    sinks: &[Unsettled],
) -> Result<u64, store::Error> {
    let lanes: Vec<_> = sinks.iter().map(|sink| sink.lane_id).collect();
    let subscriptions: Vec<_> = sinks.iter().map(|sink| sink.subscription_id).collect();
    let floors = store::cursor::floors(session, &lanes, &subscriptions).await?;
    let mut delivered = 0;
    for sink in sinks {
        let mut floors = floors.iter();
        let floor = floors.find(|floor| floor.subscription_id == sink.subscription_id);
        if let Some(floor) = floor.filter(|floor| floor.floor > sink.first) {
            let now = engine.clock().now();
            delivered += event_outbox::settled(session, sink.sink_id, *floor, now).await?;
        }
    }
    Ok(delivered)
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
    /// Publishes until no event waits, an attempt fails, the time is over, or `stop` is cancelled.
    pub async fn run(self, stop: &CancellationToken) {
        if let Err(error) = self.relay(stop).await {
            // The claim expires.
            let sink = self.sink.sink_id;
            tracing::warn!(%error, sink, "the state of an event sink could not be kept");
        }
    }

    /// Publishes events in order and stores the outcome. An attempt that fails ends it.
    async fn relay(&self, stop: &CancellationToken) -> Result<(), Error> {
        let began = Instant::now();
        self.ensure_transport().await?;
        while !(stop.is_cancelled() || began.elapsed() > TIME) {
            let mut session = self.engine.store().session().await?;
            let (sink, limit) = (self.sink.sink_id, i64::from(EVENT_BATCH_MAX));
            let events = event_outbox::first(&mut session, sink, AHEAD, limit).await?;
            drop(session);
            if events.is_empty() {
                break;
            }
            let Some(published) = within(stop, self.publish(&events)).await else {
                break;
            };
            match published {
                Ok(offsets) if self.published(&events, &offsets).await? => {}
                Ok(_) => return Ok(()),
                Err(failure) => return self.failed(&failure).await,
            }
        }
        let mut session = self.engine.store().session().await?;
        let now = self.engine.clock().now();
        Ok(event_relay::release(&mut session, &self.sink, now).await?)
    }

    /// Gives a sink with a URL its topic and subscription if it has none: a node of an earlier version has put it.
    async fn ensure_transport(&self) -> Result<(), Error> {
        if self.sink.topic.is_some() || self.sink.subscription_id.is_some() {
            return Ok(());
        }
        let now = self.engine.clock().now();
        let mut tx = self.engine.store().tx("push_event_sink").await?;
        let (tenant, name) = (self.sink.tenant_id, &self.sink.name);
        let Some(sink) = event_sink::lock(&mut tx, tenant, name).await? else {
            return Ok(());
        };
        let row = event_sink::by_name(&mut tx, tenant, name, 0).await?;
        let secret = event_sink::secret(&mut tx, sink.sink_id).await?;
        let url = row.as_ref().and_then(|row| Some((row, row.url.as_ref()?)));
        let (Some((row, url)), Some(secret)) = (url, secret) else {
            return Ok(());
        };
        let to = transport::Url {
            url,
            is_batch: row.batch,
            secret: &secret,
        };
        transport::put(&mut tx, sink, to, now).await?;
        tx.commit().await?;
        self.engine.sink_changed();
        Ok(())
    }

    /// Records that events were published and renews the claim. False when another relay has claimed the sink, or it was
    /// changed.
    async fn published(&self, events: &[Waiting], offsets: &[Offset]) -> Result<bool, Error> {
        let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
        let (sink, now) = (self.sink.sink_id, self.engine.clock().now());
        let mut tx = self.engine.store().tx("events_published").await?;
        let is_ours = event_relay::published(&mut tx, &self.sink, HOLD, now).await?;
        if self.sink.topic.is_some() {
            event_outbox::delete(&mut tx, sink, &seqs).await?;
        } else if is_ours {
            event_outbox::published(&mut tx, sink, &seqs, offsets).await?;
        }
        tx.commit().await?;
        if self.sink.topic.is_some() {
            let delivered = &self.engine.metrics().events.delivered;
            let delivered = delivered.get_or_create(&AT_TOPIC).clone();
            delivered.inc_by(events.len() as u64);
        }
        Ok(is_ours)
    }

    /// Stores a failure and when to try again, and ends the claim.
    async fn failed(&self, failure: &RelayFailure) -> Result<(), Error> {
        if self.sink.topic.is_some() {
            let failed = &self.engine.metrics().events.failed;
            failed.get_or_create(&AT_TOPIC).inc();
        }
        let jitter = rand::random_range(0.8..1.2);
        let failed = Failed {
            failure: &failure.text,
            pause: pause(self.sink.attempts.unsigned_abs(), failure.pause, jitter),
        };
        let mut session = self.engine.store().session().await?;
        let now = self.engine.clock().now();
        Ok(event_relay::failed(&mut session, &self.sink, failed, now).await?)
    }

    /// Publishes like any publish of the tenant: to a topic of its own it counts against its quota and is part of its
    /// usage. Returns the offsets.
    async fn publish(&self, events: &[Waiting]) -> Result<Vec<Offset>, RelayFailure> {
        let publish = self
            .engine
            .publish(self.tenant, &self.topic, drafts(events), None);
        let published = Box::pin(publish).await;
        let results = published.map_err(|error| not_published(&error))?.answer;
        let offsets = results.into_iter().map(|result| match result {
            Ok(published) => Ok(Offset::new(published.id.offset)),
            Err(error) => Err(not_published(&error)),
        });
        offsets.collect()
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

/// The failure of a publish. A quota asks for a pause.
fn not_published(error: &Error) -> RelayFailure {
    let mut pause = None;
    if let Error::Limited(Limit::Quota(violation) | Limit::Guarantee(violation)) = error {
        pause = Some(Duration::from_secs(violation.again_seconds.into()));
    }
    let mut text = format!("the topic did not take it: {error}");
    text.truncate(text.floor_char_boundary(200));
    RelayFailure { text, pause }
}

/// Events as messages. The body is the complete event, and the attributes are those of the HTTP binding of CloudEvents.
fn drafts(events: &[Waiting]) -> Drafts {
    let mut records = Records::default();
    let mut items = Vec::with_capacity(events.len());
    for event in events {
        let value: Value = serde_json::from_str(&event.event).unwrap_or_default();
        let names = ["source", "specversion", "subject", "time", "type"];
        let named = names.map(|name| (format!("ce-{name}"), value[name].as_str()));
        let named = named
            .iter()
            .filter_map(|(name, value)| Some((&**name, (*value)?)));
        let attributes = [("ce-id", &*event.event_id)].into_iter().chain(named);
        let meta = Meta {
            content_type: Some(EVENT),
            attributes: attributes.collect(),
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

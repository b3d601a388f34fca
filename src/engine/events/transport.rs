//! The way of events to the URL of a sink: a topic with one lane and a push subscription on it, both of the system tenant,
//! so that no tenant reaches them, no quota counts them and nothing is billed. They are made and deleted with the sink in
//! one transaction. The room `push` delivers what the relay publishes there, in order (`push::in_order`).

use api::SubscriptionName;
use api::limits::{DEDUP_WINDOW_SECONDS, RETENTION_SECONDS};
use api::push::{PushFormat, PushSettings};
use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::access::Tenant;
use crate::engine::error::Error;
use crate::engine::resources;
use crate::store::event_sink::{self, Pushed, SigningKey};
use crate::store::push_endpoint::{self, NewEndpoint, Settings};
use crate::store::subscription::SubscriptionRow;
use crate::store::topic::TopicRow;
use crate::store::{self, Session, SubscriptionId, TenantId};

/// The tenant that owns all of it.
pub(super) const OWNER: Tenant = Tenant(TenantId::SYSTEM);

/// Where the events of a sink go to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Url<'a> {
    pub(super) url: &'a str,
    /// Whether one request may carry several events.
    pub(super) is_batch: bool,
    /// Signs requests.
    pub(super) secret: &'a SigningKey,
}

/// The name of the topic and of the subscription of a sink.
pub(super) fn name(sink: i64) -> String {
    format!("sink-{sink}")
}

/// Gives a locked sink its subscription unless it has one, and the endpoint these settings. An endpoint that was disabled
/// or pauses is tried again at once.
pub(super) async fn put(
    tx: &mut Session,
    sink: Pushed,
    to: Url<'_>,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    let subscription = match sink.subscription_id {
        Some(subscription) => subscription,
        None => begin(tx, sink.sink_id, now).await?,
    };
    let settings = PushSettings {
        url: Some(to.url.to_owned()),
        format: to.is_batch.then_some(PushFormat::JsonBatch),
        ..PushSettings::default()
    };
    let settings = Settings {
        settings: serde_json::to_string(&settings).map_err(|_| Error::Internal)?,
        credential: None,
        secret: to.secret.clone(),
        granted_per_minute: None,
        disabled_at: None,
    };
    let endpoint = NewEndpoint {
        subscription,
        tenant: OWNER.0,
        settings: &settings,
        overlap_seconds: 0,
    };
    Ok(push_endpoint::put(tx, &endpoint, now).await?)
}

/// Creates the topic and the subscription of a sink. The lane gets no meter.
async fn begin(
    tx: &mut Session,
    sink: i64,
    now: Option<OffsetDateTime>,
) -> Result<SubscriptionId, Error> {
    let name = name(sink);
    let exists = || Error::Conflict(format!("the subscription {name} of the system exists"));
    let topic = TopicRow {
        retention_seconds: RETENTION_SECONDS.end().cast_signed(),
        dedup_window_seconds: DEDUP_WINDOW_SECONDS.end().cast_signed(),
        ..TopicRow::new(OWNER.0, &name)
    };
    let topic = store::topic::insert(tx, now, &topic).await?;
    let topic = topic.ok_or_else(exists)?.topic_id;
    let lane = store::lane::insert(tx, OWNER.0, topic, 0).await?;
    store::topic::add_lane(tx, topic, lane).await?;
    let subscription = SubscriptionRow::new(OWNER.0, topic, &name, &name);
    let subscription = store::subscription::insert(tx, now, &subscription).await?;
    let subscription = subscription.ok_or_else(exists)?;
    store::cursor::begin(tx, subscription, topic, true).await?;
    event_sink::attach(tx, sink, subscription).await?;
    Ok(subscription)
}

/// Deletes the subscription and the topic of a sink that does not refer to them any more.
pub(super) async fn end(tx: &mut Session, subscription: SubscriptionId) -> Result<(), Error> {
    let rows = store::subscription::by_ids(tx, &[subscription]).await?;
    for row in rows {
        resources::end_subscription(tx, &row).await?;
        store::lane::close(tx, row.topic_id).await?;
        store::topic::delete(tx, row.topic_id).await?;
    }
    Ok(())
}

impl Engine {
    /// Has this node take over that the endpoint of a sink has changed. Other nodes see it by the version of the catalog.
    pub(super) fn sink_changed(&self) {
        self.catalog().invalidate();
        self.push().assign_now();
    }

    /// The same when the subscription of a sink was deleted.
    pub(super) fn sink_ended(&self, sink: i64) {
        if let Ok(name) = name(sink).parse::<SubscriptionName>() {
            self.catalog().forget(OWNER, &name);
        }
        self.sink_changed();
    }
}

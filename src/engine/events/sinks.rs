//! Event sinks: put, read, list and delete. A caller that may manage a topic and read all usage of the tenant may send
//! the tenant's events to that topic. A sink with a URL, or with events of all tenants, needs the scope `admin` for all
//! names: requests to a URL are sent from inside the operator's network, and events of all tenants are for the operator
//! alone.

use api::event::{
    EventFailure, EventGranularity, EventKind, EventSink, EventSinkSettings, EventTenants,
};
use api::limits::{EVENT_SINKS_PER_TENANT_MAX, EVENTS_HELD_MAX, PAGE};
use api::list::Page;
use api::{EventSinkName, FieldError, Permission};
use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::access::audit::{self, Change, Nothing};
use crate::engine::access::{Access, Tenant};
use crate::engine::error::Error;
use crate::engine::events::transport;
use crate::engine::push::{sign, status};
use crate::outbound::Outbound;
use crate::store::event_sink::{NewSink, Pushed, Put, SigningKey, SinkPage, SinkRow};
use crate::store::{self, Session, SubscriptionId};

/// Waiting events are counted up to this number, a little above the number that may wait.
const WAITING_SHOWN_MAX: i64 = EVENTS_HELD_MAX as i64 + 1_000;

impl Engine {
    /// Creates a sink, or gives it these settings and enables it again. Returns true when it is new.
    ///
    /// # Errors
    /// When the URL is not private, the caller may not use a setting, the topic does not exist, the tenant has too many
    /// sinks, or the database is unavailable.
    pub async fn put_event_sink(
        &self,
        by: &Access,
        name: &EventSinkName,
        settings: &EventSinkSettings,
    ) -> Result<(EventSink, bool), Error> {
        check(self.outbound(), settings)?;
        may_put(by, settings)?;
        let (tenant, now) = (by.tenant(), self.clock().now());
        let mut tx = self.store().tx("put_event_sink").await?;
        // The lock of the tenant lets one transaction at a time count its sinks.
        let owner = store::tenant::name(&mut tx, tenant.0).await?;
        store::tenant::lock(&mut tx, &owner).await?;
        let topic = match &settings.topic {
            Some(topic) => {
                let row = store::topic::lock(&mut tx, tenant.0, topic.as_str()).await?;
                Some(
                    row.ok_or_else(|| Error::not_found("topic", topic))?
                        .topic_id,
                )
            }
            None => None,
        };
        let kinds: Vec<&str> = settings.kinds().iter().map(|kind| kind.as_str()).collect();
        let secret = SigningKey(sign::new_secret().to_vec());
        let old = store::event_sink::lock(&mut tx, tenant.0, name.as_str()).await?;
        let new = NewSink {
            tenant: tenant.0,
            name: name.as_str(),
            topic,
            url: settings.url.as_deref(),
            secret: &secret,
            kinds: &kinds,
            granularity: settings.granularity.unwrap_or_default().as_str(),
            all_tenants: settings.tenants == Some(EventTenants::All),
            batch: settings.batch.unwrap_or_default(),
        };
        let put = store::event_sink::put(&mut tx, &new, now).await?;
        if put.created
            && store::event_sink::count(&mut tx, tenant.0).await?
                > i64::from(EVENT_SINKS_PER_TENANT_MAX)
        {
            let detail = format!("there are {EVENT_SINKS_PER_TENANT_MAX} event sinks already");
            return Err(Error::Conflict(detail));
        }
        let had = old.and_then(|old| old.subscription_id);
        put_transport(&mut tx, had, &new, &put, now).await?;
        let mut sink = sink_of(&mut tx, tenant, name).await?;
        sink.secret = put.has_secret.then(|| sign::shown(&secret.0));
        let change = Change {
            tenant: Some(tenant),
            action: "event_sink.put",
            target: name.as_str(),
            detail: settings,
        };
        audit::record(&mut tx, by, change, now).await?;
        tx.commit().await?;
        match (new.url, had) {
            (Some(_), _) => self.sink_changed(),
            (None, Some(_)) => self.sink_ended(put.sink_id),
            (None, None) => {}
        }
        Ok((sink, put.created))
    }

    /// One sink and its state.
    ///
    /// # Errors
    /// When it does not exist, or the database is unavailable.
    pub async fn event_sink(
        &self,
        tenant: Tenant,
        name: &EventSinkName,
    ) -> Result<EventSink, Error> {
        sink_of(&mut self.store().session().await?, tenant, name).await
    }

    /// A page of the sinks that the caller may manage, by name.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn event_sinks(
        &self,
        by: &Access,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<EventSink>, Error> {
        let limit = limit.clamp(*PAGE.start(), *PAGE.end());
        let mut session = self.store().session().await?;
        let page = SinkPage {
            after: after.unwrap_or(""),
            limit: i64::from(limit) + 1,
            waiting_max: WAITING_SHOWN_MAX,
        };
        let (tenant, like) = (by.tenant().0, by.like(&[Permission::Manage]));
        let rows = store::event_sink::list(&mut session, tenant, &like, page).await?;
        let items = rows.into_iter().map(shown).collect::<Result<Vec<_>, _>>()?;
        Ok(crate::engine::page::page(items, limit, |sink| {
            sink.name.to_string()
        }))
    }

    /// Deletes a sink with the events that wait for it.
    ///
    /// # Errors
    /// When it does not exist, or the database is unavailable.
    pub async fn delete_event_sink(&self, by: &Access, name: &EventSinkName) -> Result<(), Error> {
        let tenant = by.tenant();
        let mut tx = self.store().tx("delete_event_sink").await?;
        let sink = store::event_sink::lock(&mut tx, tenant.0, name.as_str()).await?;
        let sink = sink.ok_or_else(|| Error::not_found("event sink", name))?;
        store::event_sink::delete(&mut tx, sink.sink_id).await?;
        if let Some(subscription) = sink.subscription_id {
            transport::end(&mut tx, subscription).await?;
            store::installation::bump_catalog(&mut tx).await?;
        }
        let change = Change {
            tenant: Some(tenant),
            action: "event_sink.delete",
            target: name.as_str(),
            detail: &Nothing {},
        };
        audit::record(&mut tx, by, change, self.clock().now()).await?;
        tx.commit().await?;
        if sink.subscription_id.is_some() {
            self.sink_ended(sink.sink_id);
        }
        Ok(())
    }
}

/// Makes, changes or deletes what pushes the events of a sink to its URL. What is deleted has not delivered some events:
/// they wait for the topic then.
async fn put_transport(
    tx: &mut Session,
    had: Option<SubscriptionId>,
    new: &NewSink<'_>,
    put: &Put,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    match (new.url.zip(put.secret.as_ref()), had) {
        (Some((url, secret)), subscription_id) => {
            let sink = Pushed {
                sink_id: put.sink_id,
                subscription_id,
            };
            let to = transport::Url {
                url,
                is_batch: new.batch,
                secret,
            };
            transport::put(tx, sink, to, now).await?;
        }
        (None, Some(subscription)) => {
            store::event_outbox::unpublish(tx, put.sink_id).await?;
            transport::end(tx, subscription).await?;
        }
        (None, None) => return Ok(()),
    }
    store::installation::bump_catalog(tx).await?;
    Ok(())
}

/// Checks the URL.
fn check(outbound: &Outbound, settings: &EventSinkSettings) -> Result<(), Error> {
    let checked = settings
        .url
        .as_ref()
        .map_or(Ok(()), |url| outbound.check(url).map(drop));
    checked.map_err(|detail| Error::Invalid(vec![FieldError::new("/url", detail)]))
}

/// Fails unless the caller may create a sink with these settings.
fn may_put(by: &Access, settings: &EventSinkSettings) -> Result<(), Error> {
    by.check_all(Permission::Usage)?;
    if let Some(topic) = &settings.topic {
        by.check(&[Permission::Manage], Some(topic.as_str()))?;
    }
    if settings.url.is_some() || settings.tenants == Some(EventTenants::All) {
        by.check_all(Permission::Admin)?;
    }
    Ok(())
}

async fn sink_of(
    session: &mut Session,
    tenant: Tenant,
    name: &EventSinkName,
) -> Result<EventSink, Error> {
    let (tenant, text) = (tenant.0, name.as_str());
    let row = store::event_sink::by_name(session, tenant, text, WAITING_SHOWN_MAX).await?;
    shown(row.ok_or_else(|| Error::not_found("event sink", name))?)
}

/// A sink as the API shows it, without its secret.
fn shown(row: SinkRow) -> Result<EventSink, Error> {
    let corrupt = |column| store::Error::Corrupt {
        table: "event_sink",
        column,
        row: row.sink_id.to_string(),
    };
    let topic = row.topic.as_ref().map(|name| name.parse()).transpose();
    let kinds: Option<Vec<_>> = row.kinds.iter().map(|kind| EventKind::of(kind)).collect();
    let granularity = [EventGranularity::Hour, EventGranularity::Minute]
        .into_iter()
        .find(|granularity| granularity.as_str() == row.granularity);
    let tenants = if row.all_tenants {
        EventTenants::All
    } else {
        EventTenants::Own
    };
    let state = State::of(&row);
    Ok(EventSink {
        name: row.name.parse().map_err(|_| corrupt("name"))?,
        settings: EventSinkSettings {
            topic: topic.map_err(|_| corrupt("topic_id"))?,
            events: Some(kinds.ok_or_else(|| corrupt("kinds"))?),
            granularity: Some(granularity.ok_or_else(|| corrupt("granularity"))?),
            tenants: Some(tenants),
            batch: row.url.is_some().then_some(row.batch),
            url: row.url,
        },
        secret: None,
        waiting: u32::try_from(row.waiting).unwrap_or(u32::MAX),
        usage_until: row.next_window.map(Into::into),
        delivered_at: row.delivered_at.map(Into::into),
        last_failure: state.last_failure,
        failed_attempts: state.failed_attempts,
        next_attempt_at: state.next_attempt_at.map(Into::into),
        disabled_at: state.disabled_at.map(Into::into),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
    })
}

/// How the delivery of a sink goes: the relay, and the endpoint if it has a URL.
struct State {
    last_failure: Option<EventFailure>,
    failed_attempts: u32,
    next_attempt_at: Option<OffsetDateTime>,
    disabled_at: Option<OffsetDateTime>,
}

impl State {
    fn of(row: &SinkRow) -> Self {
        let failure = row.failed_at.zip(row.failure.clone());
        let of_relay = failure.map(|(at, detail)| EventFailure {
            at: at.into(),
            detail,
        });
        let stats = row.endpoint.stats.as_deref().map(status::parsed);
        let of_endpoint = stats.and_then(|stats| stats.last_failure);
        let of_endpoint = of_endpoint.map(|failure| EventFailure {
            at: failure.at,
            detail: failure.detail,
        });
        let failures = of_relay.into_iter().chain(of_endpoint);
        let attempts = row.attempts + row.endpoint.failed_attempts.unwrap_or(0);
        let disabled_at = row.disabled_at.or(row.endpoint.gone_at);
        let is_failing = attempts > 0 && disabled_at.is_none();
        let next = Some(row.next_attempt_at).max(row.endpoint.not_before);
        Self {
            last_failure: failures.max_by_key(|failure| failure.at),
            failed_attempts: attempts.unsigned_abs(),
            next_attempt_at: next.filter(|_| is_failing),
            disabled_at,
        }
    }
}

//! Subscriptions: put, read, list, delete, and their backlog. A deletion keeps the order of locks: leases before
//! cursors. A claim that runs at the same time may insert more leases, so they are deleted once more afterwards.

use api::fairness::Fairness;
use api::limits::PAGE;
use api::list::Page;
use api::push::{PushSettings, PushStatus};
use api::subscription::{StartPosition, Subscription, SubscriptionSettings, SubscriptionStats};
use api::{FieldError, Permission, SubscriptionName};
use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::access::audit::{self, Change, Nothing};
use crate::engine::access::{Access, Tenant};
use crate::engine::error::Error;
use crate::engine::limit::Policy;
use crate::engine::order::fair;
use crate::engine::push::{self, status};
use crate::store::subscription::SubscriptionRow;
use crate::store::{self, CursorKey, Session, TopicId};

/// The dead-letter topic in the settings: `None` keeps the present one, `Some(None)` removes it.
type DeadLetters = Option<Option<TopicId>>;

/// Settings whose dead-letter topic was looked up.
#[derive(Debug, Clone, Copy)]
struct Resolved<'a> {
    settings: &'a SubscriptionSettings,
    dead_letters: DeadLetters,
}

impl Engine {
    /// Creates a subscription or changes the settings that are given. Returns true when it is new.
    ///
    /// # Errors
    /// When the caller may not manage the topics, a topic does not exist, a setting is invalid or cannot change, the
    /// tenant has too many subscriptions, or the database is unavailable.
    pub async fn put_subscription(
        &self,
        by: &Access,
        name: &SubscriptionName,
        settings: &SubscriptionSettings,
    ) -> Result<(Subscription, bool), Error> {
        may_link(by, settings)?;
        let endpoint = self.checked_push(settings.push.as_ref()).await?;
        let (tenant, now) = (by.tenant(), self.clock().now());
        let mut tx = self.store().tx("put_subscription").await?;
        let old = store::subscription::by_name(&mut tx, tenant.0, name.as_str()).await?;
        if old.is_none() {
            let topic = settings.topic.iter().map(|topic| topic.as_str());
            let dead_letters = settings.dead_letter_topic.iter().map(String::as_str);
            let topics: Vec<&str> = topic.chain(dead_letters).collect();
            store::topic::lock_all(&mut tx, tenant.0, &topics).await?;
        }
        let resolved = Resolved {
            settings,
            dead_letters: self.dead_letter_topic(&mut tx, tenant, settings).await?,
        };
        let created = match old {
            Some(_) => false,
            None => {
                self.insert_subscription(&mut tx, by, name, resolved)
                    .await?
            }
        };
        let gone = || Error::Conflict(format!("subscription {name} changed at the same moment"));
        let mut changed = false;
        if !created {
            // The subscription existed, or another transaction has just created it and the insert has waited for that.
            let old = store::subscription::lock(&mut tx, tenant.0, name.as_str())
                .await?
                .ok_or_else(gone)?;
            changed = self.update_subscription(&mut tx, old, resolved).await?;
        }
        let row = store::subscription::by_name(&mut tx, tenant.0, name.as_str()).await?;
        let (row, pushed) = self
            .put_endpoint(&mut tx, row.ok_or_else(gone)?, endpoint)
            .await?;
        if changed || created || pushed.changed {
            let change = Change {
                tenant: Some(tenant),
                action: "subscription.put",
                target: name.as_str(),
                detail: &*push::settings::recorded(settings),
            };
            audit::record(&mut tx, by, change, now).await?;
        }
        let is_catalog_old = changed || pushed.changed;
        if is_catalog_old {
            store::installation::bump_catalog(&mut tx).await?;
        }
        if changed {
            list_last_attempts(&mut tx, &row).await?;
        }
        tx.commit().await?;
        if is_catalog_old {
            self.catalog().invalidate();
        }
        if pushed.changed {
            self.push().assign_now();
        }
        let mut shown = self.shown_subscription(row)?;
        if let Some(push) = &mut shown.push {
            push.secret = pushed.made_secret;
        }
        Ok((shown, created))
    }

    /// Writes the settings of the endpoint, if there are any. Returns the row as it is then.
    async fn put_endpoint(
        &self,
        tx: &mut Session,
        row: SubscriptionRow,
        endpoint: Option<push::settings::Checked<'_>>,
    ) -> Result<(SubscriptionRow, push::settings::Put), Error> {
        let Some(endpoint) = endpoint else {
            return Ok((row, push::settings::Put::default()));
        };
        let now = self.clock().now();
        let put = push::settings::put(tx, &row, endpoint, now).await?;
        if !put.changed {
            return Ok((row, put));
        }
        // The time of the last change is also that of the endpoint's settings.
        store::subscription::update(tx, now, &row).await?;
        let name = row.name.as_str();
        let row = store::subscription::by_name(tx, row.tenant_id, name).await?;
        Ok((row.ok_or(Error::Internal)?, put))
    }

    /// The id of the dead-letter topic in the settings. Locks the topic.
    async fn dead_letter_topic(
        &self,
        tx: &mut Session,
        tenant: Tenant,
        settings: &SubscriptionSettings,
    ) -> Result<DeadLetters, Error> {
        let Some(name) = &settings.dead_letter_topic else {
            return Ok(None);
        };
        if name.is_empty() {
            return Ok(Some(None));
        }
        if settings
            .topic
            .as_ref()
            .is_some_and(|topic| topic.as_str() == name)
        {
            let detail = "must be another topic than the one that is read";
            return Err(Error::Invalid(vec![FieldError::new(
                "/dead_letter_topic",
                detail,
            )]));
        }
        let topic = store::topic::lock(tx, tenant.0, name).await?;
        topic
            .map(|topic| Some(Some(topic.topic_id)))
            .ok_or_else(|| Error::not_found("topic", name))
    }

    /// Inserts the row and its cursors. Returns false when another transaction has created a subscription of this name.
    async fn insert_subscription(
        &self,
        tx: &mut Session,
        by: &Access,
        name: &SubscriptionName,
        resolved: Resolved<'_>,
    ) -> Result<bool, Error> {
        let settings = resolved.settings;
        let tenant = by.tenant();
        let Some(topic) = &settings.topic else {
            let detail = "is needed to create a subscription";
            return Err(Error::Invalid(vec![FieldError::new("/topic", detail)]));
        };
        let row = store::topic::lock(tx, tenant.0, topic.as_str())
            .await?
            .ok_or_else(|| Error::not_found("topic", topic))?;
        store::lane::lock(tx, row.topic_id).await?;
        let defaults = SubscriptionRow::new(tenant.0, row.topic_id, &row.name, name.as_str());
        let new = merged(defaults, resolved);
        let inserted = store::subscription::insert(tx, self.clock().now(), &new).await?;
        let Some(id) = inserted else {
            return Ok(false);
        };
        self.quotas()
            .check_count(tx, tenant, Policy::Subscriptions)
            .await?;
        let from_start = settings.from == Some(StartPosition::Start);
        store::cursor::begin(tx, id, row.topic_id, from_start).await?;
        Ok(true)
    }

    /// Changes the settings that are given. Returns whether anything changed.
    async fn update_subscription(
        &self,
        tx: &mut Session,
        old: SubscriptionRow,
        resolved: Resolved<'_>,
    ) -> Result<bool, Error> {
        let Resolved {
            settings,
            dead_letters,
        } = resolved;
        if settings
            .topic
            .as_ref()
            .is_some_and(|topic| topic.as_str() != old.topic_name)
        {
            return Err(Error::AlreadyExists(format!(
                "subscription {} reads topic {}, which cannot change; delete it first",
                old.name, old.topic_name
            )));
        }
        if dead_letters == Some(Some(old.topic_id)) {
            let detail = "must be another topic than the one that is read";
            return Err(Error::Invalid(vec![FieldError::new(
                "/dead_letter_topic",
                detail,
            )]));
        }
        let new = merged(old.clone(), resolved);
        if new == old {
            return Ok(false);
        }
        store::subscription::update(tx, self.clock().now(), &new).await?;
        Ok(true)
    }

    /// One subscription.
    ///
    /// # Errors
    /// When it does not exist, or the database is unavailable.
    pub async fn subscription(
        &self,
        tenant: Tenant,
        name: &SubscriptionName,
    ) -> Result<Subscription, Error> {
        let mut session = self.store().session().await?;
        let row = store::subscription::by_name(&mut session, tenant.0, name.as_str()).await?;
        self.shown_subscription(row.ok_or_else(|| Error::not_found("subscription", name))?)
    }

    /// A subscription as the API shows it.
    pub(super) fn shown_subscription(&self, row: SubscriptionRow) -> Result<Subscription, Error> {
        subscription(row, self.clock().estimate())
    }

    /// A page of the subscriptions that the caller may manage, by name.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn subscriptions(
        &self,
        by: &Access,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Subscription>, Error> {
        let limit = limit.clamp(*PAGE.start(), *PAGE.end());
        let mut session = self.store().session().await?;
        let after = after.unwrap_or("");
        let (tenant, like) = (by.tenant().0, by.like(&[Permission::Manage]));
        let more = i64::from(limit) + 1;
        let rows = store::subscription::list(&mut session, tenant, &like, after, more).await?;
        let items = rows
            .into_iter()
            .map(|row| self.shown_subscription(row))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(crate::engine::page::page(items, limit, |subscription| {
            subscription.name.to_string()
        }))
    }

    /// Deletes a subscription with its leases.
    ///
    /// # Errors
    /// When it does not exist, or the database is unavailable.
    pub async fn delete_subscription(
        &self,
        by: &Access,
        name: &SubscriptionName,
    ) -> Result<(), Error> {
        let tenant = by.tenant();
        let mut tx = self.store().tx("delete_subscription").await?;
        let row = store::subscription::by_name(&mut tx, tenant.0, name.as_str())
            .await?
            .ok_or_else(|| Error::not_found("subscription", name))?;
        end(&mut tx, &row).await?;
        let change = Change {
            tenant: Some(tenant),
            action: "subscription.delete",
            target: name.as_str(),
            detail: &Nothing {},
        };
        audit::record(&mut tx, by, change, self.clock().now()).await?;
        store::installation::bump_catalog(&mut tx).await?;
        tx.commit().await?;
        self.catalog().forget(tenant, name);
        if let Err(error) = self.end_late_leases(&row).await {
            tracing::warn!(%error, "leases of a deleted subscription stay until retention takes them");
        }
        Ok(())
    }

    /// Deletes the leases that running claims and redeliveries have inserted. New claims cannot begin, because the
    /// cursors are gone. These are transactions of their own, because leases are locked before cursors.
    async fn end_late_leases(&self, row: &SubscriptionRow) -> Result<(), Error> {
        let mut session = self.store().session().await?;
        while store::lease::end(&mut session, row.subscription_id, row.topic_id).await? > 0 {}
        Ok(())
    }

    /// Backlog of a subscription: messages that are ready, in flight and delayed.
    ///
    /// # Errors
    /// When it does not exist, or the database is unavailable.
    pub async fn subscription_stats(
        &self,
        tenant: Tenant,
        name: &SubscriptionName,
    ) -> Result<SubscriptionStats, Error> {
        let subscriber = self
            .catalog()
            .subscriber(self.store(), tenant, name)
            .await?;
        let mut session = self.store().session().await?;
        let now = self.clock().now();
        let max_attempts = subscriber.settings().attempts_max();
        let (id, topic) = (subscriber.id, subscriber.topic_id);
        let fill = store::cursor::fill(&mut session, now, id, topic, max_attempts).await?;
        let fairness = fair::stats(&mut session, &subscriber, now).await?;
        let endpoint = store::push_driver::state(&mut session, subscriber.id).await?;
        let (ready, in_flight) = (
            (fill.fresh + fill.due).unsigned_abs(),
            fill.in_flight.unsigned_abs(),
        );
        Ok(SubscriptionStats {
            ready,
            in_flight,
            delayed: fill.delayed.unsigned_abs(),
            backlog: ready + in_flight,
            oldest_ready_age_seconds: fill.oldest_age_seconds.unwrap_or(0.0).max(0.0),
            fairness,
            push: endpoint.map(status::stats),
        })
    }
}

/// Deletes a subscription with its leases and cursors.
pub(in crate::engine) async fn end(
    tx: &mut Session,
    row: &SubscriptionRow,
) -> Result<(), store::Error> {
    let (id, topic) = (row.subscription_id, row.topic_id);
    store::subscription::delete(tx, id).await?;
    // Order of locks: leases, then cursors.
    store::lease::end(tx, id, topic).await?;
    store::cursor::end(tx, id, topic).await?;
    store::fairness::end(tx, id, topic).await?;
    store::lost_lease::end(tx, id, topic).await
}

/// Lists the leases that have no attempt left under changed settings, so that they are found when nobody receives.
async fn list_last_attempts(tx: &mut Session, row: &SubscriptionRow) -> Result<(), Error> {
    let Some(max_attempts) = row.attempts_max() else {
        return Ok(());
    };
    for lane in store::lane::of_topic(tx, row.topic_id).await? {
        let subscription = row.subscription_id;
        let key = CursorKey { lane, subscription };
        store::last_attempt::insert_all(tx, key, max_attempts).await?;
    }
    Ok(())
}

/// Fails unless the caller may manage the topics that a subscription reads and dead-letters to. Otherwise a caller with
/// a scope for the name of the subscription alone could read any topic by it.
fn may_link(by: &Access, settings: &SubscriptionSettings) -> Result<(), Error> {
    let dead_letters = settings.dead_letter_topic.iter().map(String::as_str);
    let topics = settings.topic.iter().map(|topic| topic.as_str());
    for topic in topics.chain(dead_letters).filter(|name| !name.is_empty()) {
        by.check(&[Permission::Manage], Some(topic))?;
    }
    Ok(())
}

/// The row with the settings that are given; the other columns stay.
fn merged(mut row: SubscriptionRow, resolved: Resolved<'_>) -> SubscriptionRow {
    let Resolved {
        settings,
        dead_letters,
    } = resolved;
    if let Some(seconds) = settings.visibility_timeout_seconds {
        row.visibility_seconds = seconds.cast_signed();
    }
    if let Some(attempts) = settings.max_attempts {
        row.max_attempts = attempts.cast_signed();
    }
    if let Some(topic) = dead_letters {
        row.dead_letter_topic_id = topic;
    }
    if let Some(messages) = settings.max_in_flight {
        row.max_in_flight = messages.cast_signed();
    }
    if let Some(fairness) = &settings.fairness {
        (row.fairness_names, row.fairness_weights) = columns(fairness).unzip();
    }
    row
}

/// The columns of fairness, null when it is off. Weights of 1 are stored too, because settings are shown as they were given.
fn columns(fairness: &Fairness) -> Option<(Vec<String>, Vec<i16>)> {
    if fairness.enabled == Some(false) {
        return None;
    }
    let columns = fairness
        .weights
        .iter()
        .map(|(name, weight)| (name.clone(), i16::try_from(*weight).unwrap_or(i16::MAX)))
        .unzip();
    Some(columns)
}

/// Fairness from its columns.
fn fairness(row: &SubscriptionRow) -> Option<Fairness> {
    let names = row.fairness_names.as_ref()?.iter().cloned();
    let weights = row
        .fairness_weights
        .iter()
        .flatten()
        .map(|weight| u32::from(weight.unsigned_abs()));
    Some(Fairness {
        weights: names.zip(weights).collect(),
        enabled: None,
    })
}

/// The settings and the state of the endpoint at a time, as the API shows them.
fn endpoint(
    row: &SubscriptionRow,
    at: OffsetDateTime,
) -> Result<(Option<PushSettings>, Option<PushStatus>), Error> {
    let Some(settings) = &row.push else {
        return Ok((None, None));
    };
    let settings = serde_json::from_str(settings).map_err(|_| store::Error::Corrupt {
        table: "push_endpoint",
        column: "settings",
        row: row.subscription_id.to_string(),
    })?;
    let state = &row.push_state;
    let status = PushStatus {
        paused_at: state.paused_at.map(Into::into),
        disabled_at: state.disabled_at.map(Into::into),
        disabled_reason: state.disabled_reason.clone(),
        old_secret_until: state
            .old_secret_until
            .filter(|until| *until > at)
            .map(Into::into),
        granted_per_minute: state.granted_per_minute.map(i32::unsigned_abs),
    };
    Ok((Some(settings), Some(status)))
}

/// A subscription at a time as the API shows it.
fn subscription(row: SubscriptionRow, at: OffsetDateTime) -> Result<Subscription, Error> {
    let corrupt = |_| store::Error::Corrupt {
        table: "subscription",
        column: "name",
        row: row.subscription_id.to_string(),
    };
    let (push, push_status) = endpoint(&row, at)?;
    Ok(Subscription {
        name: row.name.clone().try_into().map_err(corrupt)?,
        topic: row.topic_name.clone().try_into().map_err(corrupt)?,
        visibility_timeout_seconds: row.visibility_seconds.unsigned_abs(),
        max_attempts: row.max_attempts.unsigned_abs(),
        dead_letter_topic: row
            .dead_letter_topic_name
            .clone()
            .map(TryInto::try_into)
            .transpose()
            .map_err(corrupt)?,
        max_in_flight: row.max_in_flight.unsigned_abs(),
        fairness: fairness(&row),
        push,
        push_status,
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
    })
}

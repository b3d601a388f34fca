//! Table `subscription`. Every look-up starts from the tenant (I7). A change of settings locks the row and writes all
//! settings together; the engine decides what a change means.

use api::limits::{ATTEMPTS_DEFAULT, IN_FLIGHT_DEFAULT, VISIBILITY_SECONDS_DEFAULT};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Postgres, Row};
use time::OffsetDateTime;

use super::{Error, LaneId, Session, SubscriptionId, TenantId, TopicId};

/// A row, with the names of its topics, and its endpoint.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SubscriptionRow {
    /// Internal number.
    pub subscription_id: SubscriptionId,
    /// The tenant that it belongs to.
    pub tenant_id: TenantId,
    /// The topic that it reads.
    pub topic_id: TopicId,
    /// Name of that topic.
    pub topic_name: String,
    /// Name within the tenant.
    pub name: String,
    /// Visibility timeout: seconds for which a lease hides its messages.
    pub visibility_seconds: i32,
    /// Attempts before a message is dead-lettered.
    pub max_attempts: i16,
    /// The topic that dead letters are published to; `None`: there is none.
    pub dead_letter_topic_id: Option<TopicId>,
    /// Name of that topic.
    pub dead_letter_topic_name: Option<String>,
    /// Most messages that may be leased at once.
    pub max_in_flight: i32,
    /// Fairness keys that have a weight of their own; `None`: the subscription is not fair.
    pub fairness_names: Option<Vec<String>>,
    /// Their weights, in the same order.
    pub fairness_weights: Option<Vec<i16>>,
    /// Settings of the endpoint that messages are delivered to, JSON; `None`: they are received.
    pub push: Option<String>,
    /// State of that endpoint.
    #[sqlx(flatten)]
    pub push_state: PushState,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// Time of the last change.
    pub updated_at: OffsetDateTime,
}

/// The state of the endpoint of a subscription. Everything is `None` when it has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct PushState {
    /// When it was paused.
    pub paused_at: Option<OffsetDateTime>,
    /// When it was disabled.
    pub disabled_at: Option<OffsetDateTime>,
    /// Why it was disabled.
    pub disabled_reason: Option<String>,
    /// Until when the former secret signs.
    pub old_secret_until: Option<OffsetDateTime>,
    /// Requests a minute that it has consented to.
    pub granted_per_minute: Option<i32>,
}

impl SubscriptionRow {
    /// A subscription that is not stored yet, with the default of each setting. [`insert`] gives it a number and times.
    #[must_use]
    pub fn new(tenant_id: TenantId, topic_id: TopicId, topic_name: &str, name: &str) -> Self {
        Self {
            subscription_id: SubscriptionId::UNASSIGNED,
            tenant_id,
            topic_id,
            topic_name: topic_name.to_owned(),
            name: name.to_owned(),
            visibility_seconds: VISIBILITY_SECONDS_DEFAULT.cast_signed(),
            max_attempts: ATTEMPTS_DEFAULT.cast_signed(),
            dead_letter_topic_id: None,
            dead_letter_topic_name: None,
            max_in_flight: IN_FLIGHT_DEFAULT.cast_signed(),
            fairness_names: None,
            fairness_weights: None,
            push: None,
            push_state: PushState::default(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// Whether messages are delivered to an endpoint.
    #[must_use]
    pub fn is_push(&self) -> bool {
        self.push.is_some()
    }

    /// Attempts after which its messages are dead letters; `None`: never, because it has no topic for them.
    #[must_use]
    pub fn attempts_max(&self) -> Option<i32> {
        let has_topic = self.dead_letter_topic_id.is_some();
        has_topic.then(|| i32::from(self.max_attempts))
    }

    /// A row for unit tests.
    #[cfg(test)]
    pub fn sample() -> Self {
        Self {
            subscription_id: SubscriptionId::new(1),
            ..Self::new(TenantId::new(1), TopicId::new(1), "t", "s")
        }
    }
}

/// Binds `$1` to `$6`: all settings, in the order in which [`insert`] and [`update`] name them.
fn with_settings<'q>(sql: &'static str, row: &SubscriptionRow) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(sql)
        .bind(row.visibility_seconds)
        .bind(row.max_attempts)
        .bind(row.dead_letter_topic_id)
        .bind(row.max_in_flight)
        .bind(row.fairness_names.clone())
        .bind(row.fairness_weights.clone())
}

/// Creates a subscription and returns its number; `None`: one of this name exists.
///
/// # Errors
/// When the database call fails.
pub async fn insert(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    new: &SubscriptionRow,
) -> Result<Option<SubscriptionId>, Error> {
    let sql = "-- subscription.insert
         INSERT INTO subscription (visibility_seconds, max_attempts, dead_letter_topic_id, max_in_flight, fairness_names,
                                   fairness_weights, tenant_id, topic_id, name, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($10, now()), coalesce($10, now()))
         ON CONFLICT (tenant_id, name) DO NOTHING
         RETURNING subscription_id";
    let inserted = with_settings(sql, new)
        .bind(new.tenant_id)
        .bind(new.topic_id)
        .bind(new.name.clone())
        .bind(now)
        .fetch_optional(session.run("subscription.insert"))
        .await?;
    Ok(inserted.map(|row| row.try_get(0)).transpose()?)
}

/// Writes all settings of a subscription that the caller has locked.
///
/// # Errors
/// When the database call fails.
pub async fn update(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    row: &SubscriptionRow,
) -> Result<(), Error> {
    let sql = "-- subscription.update
         UPDATE subscription SET visibility_seconds = $1, max_attempts = $2, dead_letter_topic_id = $3, max_in_flight = $4,
             fairness_names = $5, fairness_weights = $6, updated_at = coalesce($8, now())
         WHERE subscription_id = $7";
    with_settings(sql, row)
        .bind(row.subscription_id)
        .bind(now)
        .execute(session.run("subscription.update"))
        .await?;
    Ok(())
}

/// A statement that reads whole rows: its name, and which rows.
macro_rules! rows {
    ($name:literal, $which:literal) => {
        concat!(
            $name,
            "SELECT s.*, t.name AS topic_name, d.name AS dead_letter_topic_name, p.settings AS push, p.paused_at,
                p.disabled_at, p.disabled_reason, p.old_secret_until, p.granted_per_minute
             FROM subscription s JOIN topic t USING (topic_id) LEFT JOIN topic d ON d.topic_id = s.dead_letter_topic_id
                LEFT JOIN push_endpoint p USING (subscription_id) ",
            $which
        )
    };
}

/// Locks a subscription against other changes of its settings and against deletion.
///
/// # Errors
/// When the database call fails.
pub async fn lock(
    session: &mut Session,
    tenant: TenantId,
    name: &str,
) -> Result<Option<SubscriptionRow>, Error> {
    Ok(sqlx::query_as(rows!(
        "-- subscription.lock\n",
        "WHERE s.tenant_id = $1 AND s.name = $2 FOR NO KEY UPDATE OF s"
    ))
    .bind(tenant)
    .bind(name)
    .fetch_optional(session.run("subscription.lock"))
    .await?)
}

/// Finds a subscription by name.
///
/// # Errors
/// When the database call fails.
pub async fn by_name(
    session: &mut Session,
    tenant: TenantId,
    name: &str,
) -> Result<Option<SubscriptionRow>, Error> {
    Ok(sqlx::query_as(rows!(
        "-- subscription.by_name\n",
        "WHERE s.tenant_id = $1 AND s.name = $2"
    ))
    .bind(tenant)
    .bind(name)
    .fetch_optional(session.run("subscription.by_name"))
    .await?)
}

/// Finds subscriptions by number. The caller got the numbers from leases.
///
/// # Errors
/// When the database call fails.
pub async fn by_ids(
    session: &mut Session,
    subscriptions: &[SubscriptionId],
) -> Result<Vec<SubscriptionRow>, Error> {
    Ok(sqlx::query_as(rows!(
        "-- subscription.by_ids\n",
        "WHERE s.subscription_id = ANY ($1)"
    ))
    .bind(subscriptions)
    .fetch_all(session.run("subscription.by_ids"))
    .await?)
}

/// Subscriptions of a tenant whose names match one of the patterns, in order of name, from the one after a name on.
///
/// # Errors
/// When the database call fails.
pub async fn list(
    session: &mut Session,
    tenant: TenantId,
    like: &[String],
    after: &str,
    limit: i64,
) -> Result<Vec<SubscriptionRow>, Error> {
    Ok(sqlx::query_as(rows!(
        "-- subscription.list\n",
        "WHERE s.tenant_id = $1 AND s.name > $2 AND s.name LIKE ANY ($4) ORDER BY s.name LIMIT $3"
    ))
    .bind(tenant)
    .bind(after)
    .bind(limit)
    .bind(like)
    .fetch_all(session.run("subscription.list"))
    .await?)
}

/// Names of subscriptions of a tenant.
///
/// # Errors
/// When the database call fails.
pub async fn names(
    session: &mut Session,
    tenant: TenantId,
    subscriptions: &[SubscriptionId],
) -> Result<Vec<(SubscriptionId, String)>, Error> {
    Ok(sqlx::query_as(
        "-- subscription.names
         SELECT subscription_id, name FROM subscription WHERE tenant_id = $1 AND subscription_id = ANY ($2)",
    )
    .bind(tenant)
    .bind(subscriptions)
    .fetch_all(session.run("subscription.names"))
    .await?)
}

/// The lanes that a subscription reads.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SubscriptionLanes {
    /// Name of the subscription.
    pub name: String,
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// The lanes.
    pub lanes: Vec<LaneId>,
}

/// Subscriptions of a tenant in order of name, from the one after a name on, at most `limit`, each with the lanes that
/// it reads.
///
/// # Errors
/// When the database call fails.
pub async fn lanes(
    session: &mut Session,
    tenant: TenantId,
    after: &str,
    limit: i64,
) -> Result<Vec<SubscriptionLanes>, Error> {
    Ok(sqlx::query_as(
        "-- subscription.lanes
         SELECT s.name, s.subscription_id, t.lanes FROM subscription s JOIN topic t USING (topic_id)
         WHERE s.tenant_id = $1 AND s.name > $2 ORDER BY s.name LIMIT $3",
    )
    .bind(tenant)
    .bind(after)
    .bind(limit)
    .fetch_all(session.run("subscription.lanes"))
    .await?)
}

/// Returns which of these subscriptions exist. The caller got the numbers from look-ups by tenant.
///
/// # Errors
/// When the database call fails.
pub async fn existing(
    session: &mut Session,
    subscriptions: &[SubscriptionId],
) -> Result<Vec<SubscriptionId>, Error> {
    Ok(sqlx::query_scalar(
        "-- subscription.existing
         SELECT subscription_id FROM subscription WHERE subscription_id = ANY ($1)",
    )
    .bind(subscriptions)
    .fetch_all(session.run("subscription.existing"))
    .await?)
}

/// Names of the subscriptions that read a topic or have it as their dead-letter topic, at most ten.
///
/// # Errors
/// When the database call fails.
pub async fn that_need(session: &mut Session, topic: TopicId) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar(
        "-- subscription.that_need
         SELECT name FROM subscription WHERE topic_id = $1
         UNION SELECT name FROM subscription WHERE dead_letter_topic_id = $1
         ORDER BY name LIMIT 10",
    )
    .bind(topic)
    .fetch_all(session.run("subscription.that_need"))
    .await?)
}

/// Whether a topic is read by a subscription whose name matches one of the patterns.
///
/// # Errors
/// When the database call fails.
pub async fn is_read_by(
    session: &mut Session,
    topic: TopicId,
    like: &[String],
) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "-- subscription.is_read_by
         SELECT EXISTS (SELECT FROM subscription WHERE topic_id = $1 AND name LIKE ANY ($2))",
    )
    .bind(topic)
    .bind(like)
    .fetch_one(session.run("subscription.is_read_by"))
    .await?)
}

/// Deletes a subscription. The caller deletes its cursors and leases.
///
/// # Errors
/// When the database call fails.
pub async fn delete(session: &mut Session, subscription: SubscriptionId) -> Result<(), Error> {
    sqlx::query(
        "-- subscription.delete
         DELETE FROM subscription WHERE subscription_id = $1",
    )
    .bind(subscription)
    .execute(session.run("subscription.delete"))
    .await?;
    Ok(())
}

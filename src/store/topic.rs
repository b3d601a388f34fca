//! Table `topic`. Every look-up starts from the tenant (I7). A change of settings locks the row and writes all settings
//! together; the engine decides what a change means.

use api::limits::{DEDUP_WINDOW_SECONDS_DEFAULT, RETENTION_SECONDS_DEFAULT};
use time::OffsetDateTime;

use super::{Error, LaneId, Session, SubscriptionId, TenantId, TopicId};

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct TopicRow {
    /// Internal number.
    pub topic_id: TopicId,
    /// The tenant that it belongs to.
    pub tenant_id: TenantId,
    /// Name within the tenant.
    pub name: String,
    /// Its lanes in order of number.
    pub lanes: Vec<LaneId>,
    /// Retention: seconds for which a message is kept at most.
    pub retention_seconds: i32,
    /// Whether consumed messages are kept until their retention ends.
    pub keep_consumed: bool,
    /// Length of the deduplication window in seconds.
    pub dedup_window_seconds: i32,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// Time of the last change.
    pub updated_at: OffsetDateTime,
}

impl TopicRow {
    /// A topic that is not stored yet, with the default of each setting. [`insert`] gives it a number and times,
    /// [`add_lane`] its lanes.
    #[must_use]
    pub fn new(tenant_id: TenantId, name: &str) -> Self {
        Self {
            topic_id: TopicId::UNASSIGNED,
            tenant_id,
            name: name.to_owned(),
            lanes: Vec::new(),
            retention_seconds: RETENTION_SECONDS_DEFAULT.cast_signed(),
            keep_consumed: false,
            dedup_window_seconds: DEDUP_WINDOW_SECONDS_DEFAULT.cast_signed(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        }
    }
}

/// Creates a topic; `None`: one of this name exists.
///
/// # Errors
/// When the database call fails.
pub async fn insert(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    new: &TopicRow,
) -> Result<Option<TopicRow>, Error> {
    Ok(sqlx::query_as(
        "-- topic.insert
         INSERT INTO topic (tenant_id, name, created_at, updated_at, retention_seconds, keep_consumed, dedup_window_seconds)
         VALUES ($1, $2, coalesce($3, now()), coalesce($3, now()), $4, $5, $6)
         ON CONFLICT (tenant_id, name) DO NOTHING
         RETURNING *",
    )
    .bind(new.tenant_id)
    .bind(&new.name)
    .bind(now)
    .bind(new.retention_seconds)
    .bind(new.keep_consumed)
    .bind(new.dedup_window_seconds)
    .fetch_optional(session.run("topic.insert"))
    .await?)
}

/// Writes all settings of a topic that the caller has locked.
///
/// # Errors
/// When the database call fails.
pub async fn update(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    row: &TopicRow,
) -> Result<TopicRow, Error> {
    Ok(sqlx::query_as(
        "-- topic.update
         UPDATE topic SET updated_at = coalesce($2, now()), retention_seconds = $3, keep_consumed = $4,
             dedup_window_seconds = $5
         WHERE topic_id = $1
         RETURNING *",
    )
    .bind(row.topic_id)
    .bind(now)
    .bind(row.retention_seconds)
    .bind(row.keep_consumed)
    .bind(row.dedup_window_seconds)
    .fetch_one(session.run("topic.update"))
    .await?)
}

/// Finds a topic by name.
///
/// # Errors
/// When the database call fails.
pub async fn by_name(
    session: &mut Session,
    tenant: TenantId,
    name: &str,
) -> Result<Option<TopicRow>, Error> {
    Ok(sqlx::query_as(
        "-- topic.by_name
         SELECT * FROM topic WHERE tenant_id = $1 AND name = $2",
    )
    .bind(tenant)
    .bind(name)
    .fetch_optional(session.run("topic.by_name"))
    .await?)
}

/// Finds a topic by number.
///
/// # Errors
/// When the database call fails.
pub async fn by_id(
    session: &mut Session,
    tenant: TenantId,
    topic: TopicId,
) -> Result<Option<TopicRow>, Error> {
    Ok(sqlx::query_as(
        "-- topic.by_id
         SELECT * FROM topic WHERE topic_id = $2 AND tenant_id = $1",
    )
    .bind(tenant)
    .bind(topic)
    .fetch_optional(session.run("topic.by_id"))
    .await?)
}

/// Adds a lane to the list of a topic, unless the list has it.
///
/// # Errors
/// When the database call fails.
pub async fn add_lane(session: &mut Session, topic: TopicId, lane: LaneId) -> Result<(), Error> {
    sqlx::query(
        "-- topic.add_lane
         UPDATE topic SET lanes = lanes || $2 WHERE topic_id = $1 AND $2 <> ALL (lanes)",
    )
    .bind(topic)
    .bind(lane)
    .execute(session.run("topic.add_lane"))
    .await?;
    Ok(())
}

/// The lanes of a topic.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct TopicLanes {
    /// Name of the topic.
    pub name: String,
    /// Its lanes.
    pub lanes: Vec<LaneId>,
}

/// The lanes of a tenant's topics in order of the topic's name, from the one after a name on, at most `limit` topics.
///
/// # Errors
/// When the database call fails.
pub async fn lanes(
    session: &mut Session,
    tenant: TenantId,
    after: &str,
    limit: i64,
) -> Result<Vec<TopicLanes>, Error> {
    Ok(sqlx::query_as(
        "-- topic.lanes
         SELECT name, lanes FROM topic WHERE tenant_id = $1 AND name > $2 ORDER BY name LIMIT $3",
    )
    .bind(tenant)
    .bind(after)
    .bind(limit)
    .fetch_all(session.run("topic.lanes"))
    .await?)
}

/// The settings of a topic that retention depends on.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Rules {
    /// The topic.
    pub topic_id: TopicId,
    /// Retention: seconds for which a message is kept at most.
    pub retention_seconds: i32,
    /// Whether consumed messages are kept until their retention ends.
    pub keep_consumed: bool,
    /// The subscriptions that read it.
    pub subscriptions: Vec<SubscriptionId>,
}

/// Reads the settings that retention depends on. The caller got the numbers from lanes. A deleted topic is left out. The
/// system's topics keep what is not consumed.
///
/// # Errors
/// When the database call fails.
pub async fn rules(session: &mut Session, topics: &[TopicId]) -> Result<Vec<Rules>, Error> {
    Ok(sqlx::query_as(
        "-- topic.rules
         SELECT t.topic_id, CASE WHEN t.tenant_id = $2 THEN 2147483647 ELSE t.retention_seconds END AS retention_seconds,
                t.keep_consumed,
                ARRAY(SELECT s.subscription_id FROM subscription s WHERE s.topic_id = t.topic_id) AS subscriptions
         FROM topic t WHERE t.topic_id = ANY ($1)",
    )
    .bind(topics)
    .bind(TenantId::SYSTEM)
    .fetch_all(session.run("topic.rules"))
    .await?)
}

/// Topics of a tenant whose names match one of the patterns, in order of name, from the one after a name on.
///
/// # Errors
/// When the database call fails.
pub async fn list(
    session: &mut Session,
    tenant: TenantId,
    like: &[String],
    after: &str,
    limit: i64,
) -> Result<Vec<TopicRow>, Error> {
    Ok(sqlx::query_as(
        "-- topic.list
         SELECT * FROM topic WHERE tenant_id = $1 AND name > $2 AND name LIKE ANY ($4) ORDER BY name LIMIT $3",
    )
    .bind(tenant)
    .bind(after)
    .bind(limit)
    .bind(like)
    .fetch_all(session.run("topic.list"))
    .await?)
}

/// Locks a topic, so that no subscription starts to read it or to use it as its dead-letter topic.
///
/// # Errors
/// When the database call fails.
pub async fn lock(
    session: &mut Session,
    tenant: TenantId,
    name: &str,
) -> Result<Option<TopicRow>, Error> {
    Ok(sqlx::query_as(
        "-- topic.lock
         SELECT * FROM topic WHERE tenant_id = $1 AND name = $2 FOR UPDATE",
    )
    .bind(tenant)
    .bind(name)
    .fetch_optional(session.run("topic.lock"))
    .await?)
}

/// Locks several topics in order of their numbers, so that two such transactions never deadlock.
///
/// # Errors
/// When the database call fails.
pub async fn lock_all(
    session: &mut Session,
    tenant: TenantId,
    names: &[&str],
) -> Result<(), Error> {
    sqlx::query(
        "-- topic.lock_all
         SELECT FROM topic WHERE tenant_id = $1 AND name = ANY ($2) ORDER BY topic_id FOR UPDATE",
    )
    .bind(tenant)
    .bind(names)
    .execute(session.run("topic.lock_all"))
    .await?;
    Ok(())
}

/// Deletes a topic. The caller closes its lanes.
///
/// # Errors
/// When a subscription needs it, or the database call fails.
pub async fn delete(session: &mut Session, topic: TopicId) -> Result<(), Error> {
    sqlx::query(
        "-- topic.delete
         DELETE FROM topic WHERE topic_id = $1",
    )
    .bind(topic)
    .execute(session.run("topic.delete"))
    .await?;
    Ok(())
}

//! Table `topic`. Every look-up starts from the tenant (I7).

use time::OffsetDateTime;

use super::{Error, Session};

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct TopicRow {
    /// Internal number.
    pub topic_id: i64,
    /// Owner.
    pub tenant_id: i64,
    /// Name within the tenant.
    pub name: String,
    /// Its lanes in order of number.
    pub lanes: Vec<i64>,
    /// Seconds a message is kept at most.
    pub retention_seconds: i32,
    /// Whether consumed messages are kept.
    pub keep_consumed: bool,
    /// Seconds of the deduplication window.
    pub dedup_window_seconds: i32,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// Time of the last change.
    pub updated_at: OffsetDateTime,
}

/// Settings to write; `None` keeps what is there, or takes the default given beside it.
#[derive(Debug, Clone, Copy)]
pub struct NewTopic<'a> {
    /// Owner.
    pub tenant: i64,
    /// Name.
    pub name: &'a str,
    /// Retention, and its default.
    pub retention_seconds: (Option<i32>, i32),
    /// Whether consumed messages are kept.
    pub keep_consumed: Option<bool>,
    /// Deduplication window, and its default.
    pub dedup_window_seconds: (Option<i32>, i32),
}

/// Creates a topic; `None` when one of this name exists.
///
/// # Errors
/// When the database does not answer.
pub async fn insert(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    new: &NewTopic<'_>,
) -> Result<Option<TopicRow>, Error> {
    Ok(sqlx::query_as(
        "-- topic.insert
         INSERT INTO topic (tenant_id, name, retention_seconds, keep_consumed, dedup_window_seconds, created_at, updated_at)
         VALUES ($1, $2, coalesce($3, $4), coalesce($5, false), coalesce($6, $7), coalesce($8, now()), coalesce($8, now()))
         ON CONFLICT (tenant_id, name) DO NOTHING
         RETURNING *",
    )
    .bind(new.tenant)
    .bind(new.name)
    .bind(new.retention_seconds.0)
    .bind(new.retention_seconds.1)
    .bind(new.keep_consumed)
    .bind(new.dedup_window_seconds.0)
    .bind(new.dedup_window_seconds.1)
    .bind(now)
    .fetch_optional(session.run("topic.insert"))
    .await?)
}

/// Changes the settings that are given; `None` when that changes nothing, or there is no such topic.
///
/// # Errors
/// When the database does not answer.
pub async fn update(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    new: &NewTopic<'_>,
) -> Result<Option<TopicRow>, Error> {
    Ok(sqlx::query_as(
        "-- topic.update
         UPDATE topic SET retention_seconds = coalesce($3, retention_seconds), keep_consumed = coalesce($4, keep_consumed),
             dedup_window_seconds = coalesce($5, dedup_window_seconds), updated_at = coalesce($6, now())
         WHERE tenant_id = $1 AND name = $2
           AND (retention_seconds, keep_consumed, dedup_window_seconds) IS DISTINCT FROM
               (coalesce($3, retention_seconds), coalesce($4, keep_consumed), coalesce($5, dedup_window_seconds))
         RETURNING *",
    )
    .bind(new.tenant)
    .bind(new.name)
    .bind(new.retention_seconds.0)
    .bind(new.keep_consumed)
    .bind(new.dedup_window_seconds.0)
    .bind(now)
    .fetch_optional(session.run("topic.update"))
    .await?)
}

/// Finds a topic by name.
///
/// # Errors
/// When the database does not answer.
pub async fn by_name(
    session: &mut Session,
    tenant: i64,
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
/// When the database does not answer.
pub async fn by_id(
    session: &mut Session,
    tenant: i64,
    topic: i64,
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

/// Adds a lane to the list of a topic, unless it is there.
///
/// # Errors
/// When the database does not answer.
pub async fn add_lane(session: &mut Session, topic: i64, lane: i64) -> Result<(), Error> {
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

/// Topics of a tenant after a name, in order of name, of those whose names are like one of the patterns.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    session: &mut Session,
    (tenant, like): (i64, &[String]),
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

/// Locks a topic, so that nobody subscribes to it or takes it for dead letters meanwhile.
///
/// # Errors
/// When the database does not answer.
pub async fn lock(
    session: &mut Session,
    tenant: i64,
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

/// Locks several topics in order of their numbers: two that lock the same ones never wait for each other in a circle.
///
/// # Errors
/// When the database does not answer.
pub async fn lock_all(session: &mut Session, tenant: i64, names: &[&str]) -> Result<(), Error> {
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

/// Deletes a topic; its lanes are closed by the caller.
///
/// # Errors
/// When the database does not answer, or a subscription needs it.
pub async fn delete(session: &mut Session, topic: i64) -> Result<(), Error> {
    sqlx::query(
        "-- topic.delete
         DELETE FROM topic WHERE topic_id = $1",
    )
    .bind(topic)
    .execute(session.run("topic.delete"))
    .await?;
    Ok(())
}

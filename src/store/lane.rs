//! Table `lane`: the lanes of topics, which clients never see. Publishes lock rows; only retention and deletion update
//! them. The list `topic.lanes` repeats the lanes of a topic in the home group: a lane is inserted here first and
//! listed there after.

use time::OffsetDateTime;

use super::{Error, LaneId, Offset, Session, TenantId, TopicId};

/// Adds lane `number` to a topic of a tenant.
///
/// # Errors
/// When the database call fails or the lane exists.
pub async fn insert(
    session: &mut Session,
    tenant: TenantId,
    topic: TopicId,
    number: i32,
) -> Result<LaneId, Error> {
    Ok(sqlx::query_scalar(
        "-- lane.insert
         INSERT INTO lane (tenant_id, topic_id, number, start_offset) VALUES ($1, $2, $3, 0) RETURNING lane_id",
    )
    .bind(tenant)
    .bind(topic)
    .bind(number)
    .fetch_one(session.run("lane.insert"))
    .await?)
}

/// The lanes of a topic, in order of number.
///
/// # Errors
/// When the database call fails.
pub async fn of_topic(session: &mut Session, topic: TopicId) -> Result<Vec<LaneId>, Error> {
    Ok(sqlx::query_scalar(
        "-- lane.of_topic
         SELECT lane_id FROM lane WHERE topic_id = $1 AND NOT closed ORDER BY number",
    )
    .bind(topic)
    .fetch_all(session.run("lane.of_topic"))
    .await?)
}

/// Locks the lanes of a topic against publishes until the transaction ends.
///
/// # Errors
/// When the database call fails.
pub async fn lock(session: &mut Session, topic: TopicId) -> Result<(), Error> {
    sqlx::query(
        "-- lane.lock
         SELECT FROM lane WHERE topic_id = $1 ORDER BY lane_id FOR UPDATE",
    )
    .bind(topic)
    .execute(session.run("lane.lock"))
    .await?;
    Ok(())
}

/// Which of these lanes another transaction has locked.
///
/// # Errors
/// When the database call fails.
pub async fn held(session: &mut Session, lanes: &[LaneId]) -> Result<Vec<LaneId>, Error> {
    Ok(sqlx::query_scalar(
        "-- lane.held
         WITH free AS MATERIALIZED (
             SELECT lane_id FROM lane WHERE lane_id = ANY ($1) ORDER BY lane_id FOR UPDATE SKIP LOCKED
         )
         SELECT l.lane_id FROM lane l
         WHERE l.lane_id = ANY ($1) AND NOT EXISTS (SELECT FROM free f WHERE f.lane_id = l.lane_id)",
    )
    .bind(lanes)
    .fetch_all(session.run("lane.held"))
    .await?)
}

/// Closes a topic's lanes: publishes are refused from now on, and retention deletes the lanes.
///
/// # Errors
/// When the database call fails.
pub async fn close(session: &mut Session, topic: TopicId) -> Result<(), Error> {
    sqlx::query(
        "-- lane.close
         UPDATE lane SET closed = true WHERE topic_id = $1",
    )
    .bind(topic)
    .execute(session.run("lane.close"))
    .await?;
    Ok(())
}

/// The first offset of a lane that is not deleted.
///
/// # Errors
/// When the database call fails.
pub async fn start(session: &mut Session, lane: LaneId) -> Result<Option<Offset>, Error> {
    Ok(sqlx::query_scalar(
        "-- lane.start
         SELECT start_offset FROM lane WHERE lane_id = $1",
    )
    .bind(lane)
    .fetch_optional(session.run("lane.start"))
    .await?)
}

/// The topic of a lane; `None`: the lane does not exist, or belongs to another tenant.
///
/// # Errors
/// When the database call fails.
pub async fn topic(
    session: &mut Session,
    tenant: TenantId,
    lane: LaneId,
) -> Result<Option<TopicId>, Error> {
    Ok(sqlx::query_scalar(
        "-- lane.topic
         SELECT topic_id FROM lane WHERE lane_id = $2 AND tenant_id = $1",
    )
    .bind(tenant)
    .bind(lane)
    .fetch_optional(session.run("lane.topic"))
    .await?)
}

/// The extent of a topic.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct TopicFill {
    /// Sum of the lanes' ends.
    pub published: i64,
    /// Sum of the distances from the lanes' starts to their ends: the messages that are stored.
    pub kept: i64,
    /// Time of the oldest block.
    pub oldest: Option<OffsetDateTime>,
}

/// The extent of a topic: two index look-ups per lane.
///
/// # Errors
/// When the database call fails.
pub async fn fill(session: &mut Session, topic: TopicId) -> Result<TopicFill, Error> {
    Ok(sqlx::query_as(
        "-- lane.fill
         SELECT coalesce(sum(e.next_offset), 0)::bigint AS published,
                coalesce(sum(e.next_offset - coalesce(s.first_offset, e.next_offset)), 0)::bigint AS kept,
                min(s.published_at) AS oldest
         FROM lane l
         CROSS JOIN LATERAL (
             SELECT coalesce((SELECT b.first_offset + b.count FROM block b WHERE b.lane_id = l.lane_id
                              ORDER BY b.first_offset DESC LIMIT 1), l.start_offset) AS next_offset
         ) e
         LEFT JOIN LATERAL (
             SELECT b.first_offset, b.published_at FROM block b
             WHERE b.lane_id = l.lane_id AND b.first_offset >= l.start_offset ORDER BY b.first_offset LIMIT 1
         ) s ON true
         WHERE l.topic_id = $1",
    )
    .bind(topic)
    .fetch_one(session.run("lane.fill"))
    .await?)
}

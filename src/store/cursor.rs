//! Table `cursor`: how far a subscription has read each lane. Claims move cursors inside the turn. The statements here
//! create and delete them. Subscriptions with an order of their own are served off the turn: they lock and move cursors
//! here.

use time::OffsetDateTime;

use super::{CursorKey, Error, LaneId, Offset, Session, SubscriptionId, TopicId};

/// Creates a cursor in every lane of a topic, at its end or at its oldest block. The caller holds the locks of the
/// lanes, so that no publish runs in between.
///
/// # Errors
/// When the database call fails.
pub async fn begin(
    session: &mut Session,
    subscription: SubscriptionId,
    topic: TopicId,
    from_start: bool,
) -> Result<(), Error> {
    sqlx::query(
        "-- cursor.begin
         INSERT INTO cursor (lane_id, subscription_id, version, next_offset)
         SELECT l.lane_id, $1, 0,
                CASE WHEN $3
                     THEN coalesce((SELECT b.first_offset FROM block b WHERE b.lane_id = l.lane_id AND b.first_offset >= l.start_offset
                                    ORDER BY b.first_offset LIMIT 1), l.start_offset)
                     ELSE coalesce((SELECT b.first_offset + b.count FROM block b WHERE b.lane_id = l.lane_id
                                    ORDER BY b.first_offset DESC LIMIT 1), l.start_offset) END
         FROM lane l WHERE l.topic_id = $2",
    )
    .bind(subscription)
    .bind(topic)
    .bind(from_start)
    .execute(session.run("cursor.begin"))
    .await?;
    Ok(())
}

/// A subscription and how far it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Floor {
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// All messages below it are settled.
    pub floor: Offset,
}

/// How far subscriptions are done, each in the lane at the same position.
///
/// # Errors
/// When the database call fails.
pub async fn floors(
    session: &mut Session,
    lanes: &[LaneId],
    subscriptions: &[SubscriptionId],
) -> Result<Vec<Floor>, Error> {
    Ok(sqlx::query_as(
        "-- cursor.floors
         SELECT k.subscription_id, least(u.next_offset, d.lowest) AS floor
         FROM unnest($1::bigint[], $2::bigint[]) AS k (lane_id, subscription_id)
         CROSS JOIN LATERAL (SELECT x.next_offset FROM cursor x
             WHERE x.lane_id = k.lane_id AND x.subscription_id = k.subscription_id ORDER BY x.version DESC LIMIT 1) u
         CROSS JOIN LATERAL (
             -- the lowest bit that is set
             SELECT min(l.base + position('1' IN reverse(l.pending::bit(64)::text)) - 1) AS lowest FROM lease l
             WHERE l.lane_id = k.lane_id AND l.subscription_id = k.subscription_id) d",
    )
    .bind(lanes)
    .bind(subscriptions)
    .fetch_all(session.run("cursor.floors"))
    .await?)
}

/// How far a subscription has read a lane.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct CursorRow {
    /// Raised with every move.
    pub version: i64,
    /// The next offset.
    pub next_offset: Offset,
}

/// Locks a cursor and waits for other holders; `None`: the subscription or the topic is deleted.
///
/// # Errors
/// When the database call fails.
pub async fn lock(session: &mut Session, key: CursorKey) -> Result<Option<CursorRow>, Error> {
    Ok(sqlx::query_as(
        "-- cursor.lock
         SELECT version, next_offset FROM cursor WHERE lane_id = $1 AND subscription_id = $2
         ORDER BY version DESC LIMIT 1 FOR UPDATE",
    )
    .bind(key.lane)
    .bind(key.subscription)
    .fetch_optional(session.run("cursor.lock"))
    .await?)
}

/// Moves a locked cursor forward; returns the number of rows moved.
///
/// # Errors
/// When the database call fails.
pub async fn advance(
    session: &mut Session,
    key: CursorKey,
    from: CursorRow,
    until: Offset,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "-- cursor.advance
         UPDATE cursor SET next_offset = $5, version = version + 1
         WHERE lane_id = $1 AND subscription_id = $2 AND version = $3 AND next_offset = $4 AND next_offset < $5",
    )
    .bind(key.lane)
    .bind(key.subscription)
    .bind(from.version)
    .bind(from.next_offset)
    .bind(until)
    .execute(session.run("cursor.advance"))
    .await?;
    Ok(done.rows_affected())
}

/// Deletes all cursors of a subscription.
///
/// # Errors
/// When the database call fails.
pub async fn end(
    session: &mut Session,
    subscription: SubscriptionId,
    topic: TopicId,
) -> Result<(), Error> {
    sqlx::query(
        "-- cursor.end
         DELETE FROM cursor WHERE subscription_id = $1 AND lane_id IN (SELECT lane_id FROM lane WHERE topic_id = $2)",
    )
    .bind(subscription)
    .bind(topic)
    .execute(session.run("cursor.end"))
    .await?;
    Ok(())
}

/// The backlog of a subscription, in messages.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct SubscriptionFill {
    /// Messages ahead of the cursors.
    pub fresh: i64,
    /// Messages in leases past their deadline.
    pub due: i64,
    /// Messages hidden by leases.
    pub in_flight: i64,
    /// Messages returned with a delay that is not over.
    pub delayed: i64,
    /// Seconds since the publish of the oldest ready message.
    pub oldest_age_seconds: Option<f64>,
}

/// The backlog of a subscription: three index look-ups per lane and one scan of its leases. The cost does not depend on
/// the backlog. Leases past their deadline with `max_attempts` are not in it: they are dead letters.
///
/// # Errors
/// When the database call fails.
pub async fn fill(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    subscription: SubscriptionId,
    topic: TopicId,
    max_attempts: Option<i32>,
) -> Result<SubscriptionFill, Error> {
    Ok(sqlx::query_as(
        "-- cursor.fill
         SELECT coalesce(sum(f.fresh), 0)::bigint AS fresh,
                coalesce(sum(d.due), 0)::bigint AS due,
                coalesce(sum(d.in_flight), 0)::bigint AS in_flight,
                coalesce(sum(d.delayed), 0)::bigint AS delayed,
                extract(epoch FROM coalesce($3, now()) - min(least(f.oldest, d.oldest)))::float8 AS oldest_age_seconds
         FROM lane l
         LEFT JOIN LATERAL (
             SELECT greatest(e.next_offset - u.next_offset, 0) AS fresh,
                    CASE WHEN e.next_offset > u.next_offset THEN
                        (SELECT b.published_at FROM block b WHERE b.lane_id = l.lane_id AND b.first_offset <= u.next_offset
                         ORDER BY b.first_offset DESC LIMIT 1) END AS oldest
             FROM (SELECT x.next_offset FROM cursor x WHERE x.lane_id = l.lane_id AND x.subscription_id = $1
                   ORDER BY x.version DESC LIMIT 1) u
             CROSS JOIN LATERAL (SELECT b.first_offset + b.count AS next_offset FROM block b WHERE b.lane_id = l.lane_id
                   ORDER BY b.first_offset DESC LIMIT 1) e
         ) f ON true
         LEFT JOIN LATERAL (
             SELECT sum(bit_count(y.pending::bit(64))) FILTER (WHERE y.deadline <= coalesce($3, now()) AND (y.attempt >= $4) IS NOT TRUE) AS due,
                    sum(bit_count(y.pending::bit(64))) FILTER (WHERE y.deadline > coalesce($3, now()) AND NOT y.delayed) AS in_flight,
                    sum(bit_count(y.pending::bit(64))) FILTER (WHERE y.deadline > coalesce($3, now()) AND y.delayed) AS delayed,
                    (SELECT b.published_at FROM block b
                     WHERE b.lane_id = l.lane_id
                       AND b.first_offset <= min(y.base)
                           FILTER (WHERE y.deadline <= coalesce($3, now()) AND (y.attempt >= $4) IS NOT TRUE)
                     ORDER BY b.first_offset DESC LIMIT 1) AS oldest
             FROM lease y WHERE y.lane_id = l.lane_id AND y.subscription_id = $1
         ) d ON true
         WHERE l.topic_id = $2",
    )
    .bind(subscription)
    .bind(topic)
    .bind(now)
    .bind(max_attempts)
    .fetch_one(session.run("cursor.fill"))
    .await?)
}

/// Of pairs of a lane and a subscription that reads it, the subscriptions for which the lane has messages that were not
/// handed out yet.
///
/// # Errors
/// When the database call fails.
pub async fn behind(
    session: &mut Session,
    lanes: &[LaneId],
    subscriptions: &[SubscriptionId],
) -> Result<Vec<SubscriptionId>, Error> {
    Ok(sqlx::query_scalar(
        "-- cursor.behind
         SELECT k.subscription_id FROM unnest($1::bigint[], $2::bigint[]) AS k (lane_id, subscription_id)
         CROSS JOIN LATERAL (SELECT x.next_offset FROM cursor x
             WHERE x.lane_id = k.lane_id AND x.subscription_id = k.subscription_id ORDER BY x.version DESC LIMIT 1) u
         CROSS JOIN LATERAL (SELECT b.first_offset + b.count AS next_offset FROM block b
             WHERE b.lane_id = k.lane_id ORDER BY b.first_offset DESC LIMIT 1) e
         WHERE e.next_offset > u.next_offset",
    )
    .bind(lanes)
    .bind(subscriptions)
    .fetch_all(session.run("cursor.behind"))
    .await?)
}

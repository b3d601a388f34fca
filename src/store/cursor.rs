//! Table `cursor`: how far a subscription has read each lane. Claims move it inside the turn; here it begins and ends, and
//! the claims of fair subscriptions, which are off the turn, lock and move it.

use super::{Error, Session};

/// Begins reading every lane of a topic: at its end, or at its oldest block. The caller holds the locks of the lanes, so
/// that no publish slips between.
///
/// # Errors
/// When the database does not answer.
pub async fn begin(
    session: &mut Session,
    subscription: i64,
    topic: i64,
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

/// How far a subscription has read a lane.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct CursorRow {
    /// Raised with every move.
    pub version: i64,
    /// The next offset.
    pub next_offset: i64,
}

/// Locks a cursor, waiting for who has it; `None`: the subscription or the topic is deleted.
///
/// # Errors
/// When the database does not answer.
pub async fn lock(
    session: &mut Session,
    lane: i64,
    subscription: i64,
) -> Result<Option<CursorRow>, Error> {
    Ok(sqlx::query_as(
        "-- cursor.lock
         SELECT version, next_offset FROM cursor WHERE lane_id = $1 AND subscription_id = $2
         ORDER BY version DESC LIMIT 1 FOR UPDATE",
    )
    .bind(lane)
    .bind(subscription)
    .fetch_optional(session.run("cursor.lock"))
    .await?)
}

/// Moves a locked cursor forward; answers the rows moved.
///
/// # Errors
/// When the database does not answer.
pub async fn advance(
    session: &mut Session,
    (lane, subscription): (i64, i64),
    from: CursorRow,
    until: i64,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "-- cursor.advance
         UPDATE cursor SET next_offset = $5, version = version + 1
         WHERE lane_id = $1 AND subscription_id = $2 AND version = $3 AND next_offset = $4 AND next_offset < $5",
    )
    .bind(lane)
    .bind(subscription)
    .bind(from.version)
    .bind(from.next_offset)
    .bind(until)
    .execute(session.run("cursor.advance"))
    .await?;
    Ok(done.rows_affected())
}

/// Ends all reading of a subscription.
///
/// # Errors
/// When the database does not answer.
pub async fn end(session: &mut Session, subscription: i64, topic: i64) -> Result<(), Error> {
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

//! Table `lane`: hidden slices of topics. Its rows are locked by publishes and updated only by retention and deletion.

use super::{Error, Session};

/// Adds lane `number` to a topic.
///
/// # Errors
/// When the database does not answer or the lane exists.
pub async fn insert(session: &mut Session, topic: i64, number: i32) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- lane.insert
         INSERT INTO lane (topic_id, number, start_offset) VALUES ($1, $2, 0) RETURNING lane_id",
    )
    .bind(topic)
    .bind(number)
    .fetch_one(session.run("lane.insert"))
    .await?)
}

/// The lanes of a topic, in order of number.
///
/// # Errors
/// When the database does not answer.
pub async fn of_topic(session: &mut Session, topic: i64) -> Result<Vec<i64>, Error> {
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
/// When the database does not answer.
pub async fn lock(session: &mut Session, topic: i64) -> Result<(), Error> {
    sqlx::query(
        "-- lane.lock
         SELECT FROM lane WHERE topic_id = $1 ORDER BY lane_id FOR UPDATE",
    )
    .bind(topic)
    .execute(session.run("lane.lock"))
    .await?;
    Ok(())
}

/// Refuses publishes to a topic's lanes from now on; retention clears them away.
///
/// # Errors
/// When the database does not answer.
pub async fn close(session: &mut Session, topic: i64) -> Result<(), Error> {
    sqlx::query(
        "-- lane.close
         UPDATE lane SET closed = true WHERE topic_id = $1",
    )
    .bind(topic)
    .execute(session.run("lane.close"))
    .await?;
    Ok(())
}

/// The offset that a lane begins with: everything below is deleted.
///
/// # Errors
/// When the database does not answer.
pub async fn start(session: &mut Session, lane: i64) -> Result<Option<i64>, Error> {
    Ok(sqlx::query_scalar(
        "-- lane.start
         SELECT start_offset FROM lane WHERE lane_id = $1",
    )
    .bind(lane)
    .fetch_optional(session.run("lane.start"))
    .await?)
}

//! Table `cursor`: how far a subscription has read each lane. Claims move it inside the turn; here it begins and ends.

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

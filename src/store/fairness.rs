//! Table `fairness`: the fair order of a lane and subscription. The holder of the lock on the pair's cursor reads and
//! writes it; stats read it without a lock. The waiting leases themselves are in `lease`.

use time::OffsetDateTime;

use super::{CursorKey, Error, LaneId, Offset, Session, SubscriptionId, TopicId};

/// A row. All lists have the same length: one element per customer.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct FairnessRow {
    /// Slots: numbers that tell the customers of the pair apart.
    pub slots: Vec<i16>,
    /// Fairness keys.
    pub names: Vec<Option<String>>,
    /// How far each customer is ahead of the virtual time.
    pub leads: Vec<i64>,
    /// Offset from which on the first waiting lease is searched.
    pub heads: Vec<Offset>,
    /// Upper bound of the waiting messages.
    pub waiting: Vec<i64>,
    /// Upper bound of the waiting leases.
    pub runs: Vec<i64>,
    /// Messages handed out so far.
    pub handed_out: Vec<i64>,
    /// Last time that a message was handed out.
    pub served_at: Vec<OffsetDateTime>,
}

/// What a lane holds for a subscription.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Ahead {
    /// The lane.
    pub lane_id: LaneId,
    /// The first offset that is not read yet; `None`: there is no cursor, because the subscription is deleted.
    pub next_offset: Option<Offset>,
    /// The end of the log of the lane.
    pub until: Offset,
    /// Whether messages wait behind the cursor.
    pub is_waiting: bool,
}

/// What these lanes hold for a subscription: three index look-ups per lane.
///
/// # Errors
/// When the database call fails.
pub async fn ahead(
    session: &mut Session,
    subscription: SubscriptionId,
    lanes: &[LaneId],
) -> Result<Vec<Ahead>, Error> {
    Ok(sqlx::query_as(
        "-- fairness.ahead
         SELECT k.lane_id, u.next_offset, coalesce(e.until, 0) AS until, coalesce(0 < ANY (f.waiting), false) AS is_waiting
         FROM unnest($2::bigint[]) WITH ORDINALITY AS k (lane_id, ordinal)
         LEFT JOIN LATERAL (
             SELECT x.next_offset FROM cursor x
             WHERE x.lane_id = k.lane_id AND x.subscription_id = $1 ORDER BY x.version DESC LIMIT 1
         ) u ON true
         LEFT JOIN LATERAL (
             SELECT b.first_offset + b.count AS until FROM block b
             WHERE b.lane_id = k.lane_id ORDER BY b.first_offset DESC LIMIT 1
         ) e ON true
         LEFT JOIN LATERAL (
             SELECT y.waiting FROM fairness y
             WHERE y.lane_id = k.lane_id AND y.subscription_id = $1 ORDER BY y.version DESC LIMIT 1
         ) f ON true
         ORDER BY k.ordinal",
    )
    .bind(subscription)
    .bind(lanes)
    .fetch_all(session.run("fairness.ahead"))
    .await?)
}

/// The fair order of a lane and subscription, and its version.
///
/// # Errors
/// When the database call fails.
pub async fn get(
    session: &mut Session,
    key: CursorKey,
) -> Result<Option<(i64, FairnessRow)>, Error> {
    #[derive(sqlx::FromRow)]
    struct Versioned {
        version: i64,
        #[sqlx(flatten)]
        row: FairnessRow,
    }
    let found: Option<Versioned> = sqlx::query_as(
        "-- fairness.get
         SELECT * FROM fairness WHERE lane_id = $1 AND subscription_id = $2 ORDER BY version DESC LIMIT 1",
    )
    .bind(key.lane)
    .bind(key.subscription)
    .fetch_optional(session.run("fairness.get"))
    .await?;
    Ok(found.map(|found| (found.version, found.row)))
}

/// The fair orders of a subscription in these lanes.
///
/// # Errors
/// When the database call fails.
pub async fn list(
    session: &mut Session,
    subscription: SubscriptionId,
    lanes: &[LaneId],
) -> Result<Vec<FairnessRow>, Error> {
    Ok(sqlx::query_as(
        "-- fairness.list
         SELECT f.* FROM unnest($2::bigint[]) AS k (lane_id)
         CROSS JOIN LATERAL (
             SELECT * FROM fairness x
             WHERE x.lane_id = k.lane_id AND x.subscription_id = $1 ORDER BY x.version DESC LIMIT 1
         ) f",
    )
    .bind(subscription)
    .bind(lanes)
    .fetch_all(session.run("fairness.list"))
    .await?)
}

/// Inserts the fair order, or replaces the version that was read; returns the number of rows written.
///
/// # Errors
/// When the database call fails.
pub async fn put(
    session: &mut Session,
    key: CursorKey,
    version: Option<i64>,
    row: &FairnessRow,
) -> Result<u64, Error> {
    let sql = match version {
        Some(_) => {
            "-- fairness.put
             UPDATE fairness SET version = version + 1, slots = $4, names = $5, leads = $6, heads = $7, waiting = $8,
                 runs = $9, handed_out = $10, served_at = $11
             WHERE lane_id = $1 AND subscription_id = $2 AND version = $3"
        }
        None => {
            "-- fairness.put
             INSERT INTO fairness (lane_id, subscription_id, version, slots, names, leads, heads, waiting, runs, handed_out,
                                   served_at)
             VALUES ($1, $2, coalesce($3, 0), $4, $5, $6, $7, $8, $9, $10, $11)"
        }
    };
    let done = sqlx::query(sql)
        .bind(key.lane)
        .bind(key.subscription)
        .bind(version)
        .bind(&row.slots)
        .bind(&row.names)
        .bind(&row.leads)
        .bind(&row.heads)
        .bind(&row.waiting)
        .bind(&row.runs)
        .bind(&row.handed_out)
        .bind(&row.served_at)
        .execute(session.run("fairness.put"))
        .await?;
    Ok(done.rows_affected())
}

/// Deletes the fair orders of a subscription. Its cursors are locked or gone.
///
/// # Errors
/// When the database call fails.
pub async fn end(
    session: &mut Session,
    subscription: SubscriptionId,
    topic: TopicId,
) -> Result<(), Error> {
    sqlx::query(
        "-- fairness.end
         DELETE FROM fairness WHERE subscription_id = $1 AND lane_id IN (SELECT lane_id FROM lane WHERE topic_id = $2)",
    )
    .bind(subscription)
    .bind(topic)
    .execute(session.run("fairness.end"))
    .await?;
    Ok(())
}

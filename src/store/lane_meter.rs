//! Table `lane_meter`: how far the blocks of each lane are counted, and the bytes that a lane stores (I8). The
//! transaction that creates a lane inserts its row. The row is locked before blocks of its lane are counted, deleted or
//! moved. The statement that records a count also returns it, and the caller adds it to `usage` in the same
//! transaction. Every statement after the lock takes the time that the lock returned.
//!
//! Byte-seconds of storage accumulate in the row during an hour. The first transaction that locks the row in a later
//! hour posts them.

use time::OffsetDateTime;

use super::{Error, LaneId, Offset, Session, TenantId};

/// Inserts the meter of a new lane of a topic of this name, in the transaction that creates the lane. An existing meter
/// stays as it is.
///
/// # Errors
/// When the database call fails.
pub async fn begin(
    session: &mut Session,
    lane: LaneId,
    topic: &str,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- lane_meter.begin
         INSERT INTO lane_meter (lane_id, tenant_id, topic, began_offset, metered_offset, sampled_at, posted_at)
         SELECT l.lane_id, l.tenant_id, $2, l.start_offset, l.start_offset, n.at, n.at
         FROM (SELECT coalesce($3, clock_timestamp()) AS at) n CROSS JOIN lane l
         WHERE l.lane_id = $1
         ON CONFLICT (lane_id) DO NOTHING",
    )
    .bind(lane)
    .bind(topic)
    .bind(now)
    .execute(session.run("lane_meter.begin"))
    .await?;
    Ok(())
}

/// A lane, as returned by the scan for due lanes.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct LaneToMeter {
    /// The lane.
    pub lane_id: LaneId,
    /// Whether it has blocks that are not counted, or byte-seconds that are due to be posted.
    pub is_due: bool,
}

/// Lanes in order of id from the one after `after` on, each with whether it is due: one index look-up in `block` per
/// lane. Byte-seconds are due if they were last posted before `posted_before`.
///
/// # Errors
/// When the database call fails.
pub async fn round(
    session: &mut Session,
    after: LaneId,
    limit: i64,
    posted_before: OffsetDateTime,
) -> Result<Vec<LaneToMeter>, Error> {
    Ok(sqlx::query_as(
        "-- lane_meter.round
         SELECT l.lane_id,
                EXISTS (SELECT FROM block k WHERE k.lane_id = l.lane_id
                           AND k.first_offset >= greatest(m.metered_offset, l.start_offset))
                OR (m.posted_at < $3 AND (m.hot_bytes + m.object_bytes > 0
                                          OR m.hot_byte_seconds + m.object_byte_seconds > 0)) AS is_due
         FROM (SELECT lane_id, start_offset FROM lane WHERE lane_id > $1 ORDER BY lane_id LIMIT $2) l
         JOIN lane_meter m ON m.lane_id = l.lane_id
         ORDER BY l.lane_id",
    )
    .bind(after)
    .bind(limit)
    .bind(posted_before)
    .fetch_all(session.run("lane_meter.round"))
    .await?)
}

/// A locked row.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Locked {
    /// The lane.
    pub lane_id: LaneId,
    /// The first offset that is not counted.
    pub metered_offset: Offset,
    /// Byte-seconds are added up to this time.
    pub sampled_at: OffsetDateTime,
    /// When byte-seconds were last posted.
    pub posted_at: OffsetDateTime,
    /// The database's time.
    pub at: OffsetDateTime,
}

/// Locks the rows of lanes, in order of lane.
///
/// # Errors
/// When the database call fails.
pub async fn lock(
    session: &mut Session,
    lanes: &[LaneId],
    now: Option<OffsetDateTime>,
) -> Result<Vec<Locked>, Error> {
    Ok(sqlx::query_as(
        "-- lane_meter.lock
         SELECT lane_id, metered_offset, sampled_at, posted_at, coalesce($2, clock_timestamp()) AS at
         FROM lane_meter WHERE lane_id = ANY ($1) ORDER BY lane_id FOR UPDATE",
    )
    .bind(lanes)
    .bind(now)
    .fetch_all(session.run("lane_meter.lock"))
    .await?)
}

/// Byte-seconds of the lanes of a topic in an hour.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Stored {
    /// The tenant that is charged.
    pub tenant_id: TenantId,
    /// Start of the hour.
    pub at: OffsetDateTime,
    /// `stored_hot` or `stored_object`.
    pub meter: String,
    /// Name of the topic.
    pub topic: String,
    /// Byte-seconds, a decimal number.
    pub over_time: String,
}

/// Takes the byte-seconds of locked lanes up to `at` out of their rows, split by hour. The caller adds them to `usage`
/// in the same transaction.
///
/// # Errors
/// When the database call fails.
pub async fn post(
    session: &mut Session,
    lanes: &[LaneId],
    at: OffsetDateTime,
) -> Result<Vec<Stored>, Error> {
    Ok(sqlx::query_as(
        "-- lane_meter.post
         WITH lane AS MATERIALIZED (
             SELECT m.* FROM lane_meter m WHERE m.lane_id = ANY ($1)
         ), posted AS (
             UPDATE lane_meter m
             SET hot_byte_seconds = 0, object_byte_seconds = 0, sampled_at = greatest(l.sampled_at, $2), posted_at = $2
             FROM lane l WHERE m.lane_id = l.lane_id
         ), piece AS (
             SELECT l.tenant_id, l.topic, h.at, l.hot_bytes * s.seconds + g.is_first * l.hot_byte_seconds AS hot,
                    l.object_bytes * s.seconds + g.is_first * l.object_byte_seconds AS object
             FROM lane l
             CROSS JOIN LATERAL generate_series(date_trunc('hour', l.sampled_at), greatest($2, l.sampled_at),
                                                interval '1 hour') AS h (at)
             CROSS JOIN LATERAL (SELECT (h.at = date_trunc('hour', l.sampled_at))::integer AS is_first) g
             CROSS JOIN LATERAL (
                 SELECT greatest(extract(epoch FROM least(h.at + interval '1 hour', $2) - greatest(h.at, l.sampled_at)), 0)
                     AS seconds
             ) s
         )
         SELECT p.tenant_id, p.at, t.meter, p.topic, sum(t.byte_seconds)::text AS over_time
         FROM piece p
         CROSS JOIN LATERAL (VALUES ('stored_hot', p.hot), ('stored_object', p.object)) AS t (meter, byte_seconds)
         WHERE t.byte_seconds > 0
         GROUP BY p.tenant_id, p.at, t.meter, p.topic",
    )
    .bind(lanes)
    .bind(at)
    .fetch_all(session.run("lane_meter.post"))
    .await?)
}

/// The count of one lane, by minute and meter.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Counted {
    /// The lane.
    pub lane_id: LaneId,
    /// The tenant that is charged.
    pub tenant_id: TenantId,
    /// Start of the minute of publication.
    pub at: OffsetDateTime,
    /// `publish` or `dead_letter`.
    pub meter: String,
    /// Name of the topic.
    pub topic: String,
    /// Blocks.
    pub blocks: i64,
    /// Messages.
    pub messages: i64,
    /// Metering units.
    pub units: i64,
    /// Of these, units above the guarantee.
    pub elastic_units: i64,
    /// Bytes of the messages.
    pub bytes: i64,
}

/// Counts the blocks of locked lanes that are not counted yet and begin below `until`, at most `limit` of each lane.
/// The caller adds the counts to `usage` in the same transaction. Offsets are assigned in the order of commit (I4), so
/// a snapshot of a lane has no gap, and publishes need no lock.
///
/// # Errors
/// When the database call fails.
pub async fn count(
    session: &mut Session,
    lanes: &[LaneId],
    until: &[Offset],
    limit: i64,
    at: OffsetDateTime,
) -> Result<Vec<Counted>, Error> {
    Ok(sqlx::query_as(
        "-- lane_meter.count
         WITH fresh AS MATERIALIZED (
             SELECT m.lane_id, m.tenant_id, m.topic, date_trunc('minute', k.published_at) AS at,
                    -- A dead-lettered message costs no units, but its bytes count.
                    CASE WHEN k.units = 0 AND k.message_bytes > 0 THEN 'dead_letter' ELSE 'publish' END AS meter,
                    k.first_offset + k.count AS next_offset, k.count, k.units, k.elastic_units, k.message_bytes, k.bytes,
                    k.slot IS NOT NULL AS is_hot
             FROM unnest($1::bigint[], $2::bigint[]) AS w (lane_id, until)
             JOIN lane_meter m ON m.lane_id = w.lane_id
             CROSS JOIN LATERAL (
                 SELECT x.* FROM block x
                 WHERE x.lane_id = m.lane_id AND x.first_offset >= m.metered_offset AND x.first_offset < w.until
                 ORDER BY x.first_offset LIMIT $3
             ) k
         ), lane AS (
             SELECT f.lane_id, max(f.next_offset) AS next_offset, sum(f.count) AS messages,
                    sum(f.units) AS units, coalesce(sum(f.bytes) FILTER (WHERE f.is_hot), 0) AS hot,
                    coalesce(sum(f.bytes) FILTER (WHERE NOT f.is_hot), 0) AS object
             FROM fresh f GROUP BY f.lane_id
         ), moved AS (
             UPDATE lane_meter m
             SET metered_offset = l.next_offset, messages_total = m.messages_total + l.messages,
                 units_total = m.units_total + l.units,
                 hot_byte_seconds = m.hot_byte_seconds + m.hot_bytes * greatest(extract(epoch FROM $4 - m.sampled_at), 0),
                 object_byte_seconds = m.object_byte_seconds
                     + m.object_bytes * greatest(extract(epoch FROM $4 - m.sampled_at), 0),
                 hot_bytes = m.hot_bytes + l.hot, object_bytes = m.object_bytes + l.object,
                 sampled_at = greatest(m.sampled_at, $4)
             FROM lane l WHERE m.lane_id = l.lane_id
         )
         SELECT f.lane_id, f.tenant_id, f.at, f.meter, f.topic, count(*) AS blocks, sum(f.count)::bigint AS messages,
                sum(f.units)::bigint AS units, sum(f.elastic_units)::bigint AS elastic_units,
                sum(f.message_bytes)::bigint AS bytes
         FROM fresh f GROUP BY f.lane_id, f.tenant_id, f.at, f.meter, f.topic",
    )
    .bind(lanes)
    .bind(until)
    .bind(limit)
    .bind(at)
    .fetch_all(session.run("lane_meter.count"))
    .await?)
}

/// The totals of a lane since its first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Totals {
    /// The tenant that is charged.
    pub tenant_id: TenantId,
    /// Messages.
    pub messages_total: i64,
    /// Metering units.
    pub units_total: i64,
}

/// Deletes the meter of a deleted lane, after its byte-seconds were posted. The caller adds the returned totals to
/// `tenant_meter` in the same transaction.
///
/// # Errors
/// When the database call fails.
pub async fn end(session: &mut Session, lane: LaneId) -> Result<Option<Totals>, Error> {
    Ok(sqlx::query_as(
        "-- lane_meter.end
         DELETE FROM lane_meter WHERE lane_id = $1 RETURNING tenant_id, messages_total, units_total",
    )
    .bind(lane)
    .fetch_optional(session.run("lane_meter.end"))
    .await?)
}

//! Tables `usage_minute`, `usage_hour`, `usage_day`, `usage_flush` and `metering`: the usage of tenants. Each quantity
//! is in exactly one of the first three, so their sum is right at any moment. One statement of a roll-up takes rows
//! from the finer table and adds them to the coarser one.

use time::OffsetDateTime;
use uuid::Uuid;

use super::lane_meter::{Counted, Stored};
use super::{Error, Session, TenantId};

/// The count of a node since its last flush, for one meter, topic and subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flushed {
    /// The tenant that is charged.
    pub tenant: TenantId,
    /// The meter.
    pub meter: &'static str,
    /// Name of the topic, or empty.
    pub topic: String,
    /// Name of the subscription, or empty.
    pub subscription: String,
    /// Metering units.
    pub units: i64,
    /// Of these, units above the guarantee (elastic).
    pub elastic_units: i64,
    /// Messages.
    pub messages: i64,
    /// Bytes.
    pub bytes: i64,
}

/// Adds the counts of a node. A retry has no effect: a sequence number that is not above the node's last one adds
/// nothing.
///
/// # Errors
/// When the database call fails. The caller retries with the same sequence number.
pub async fn flush(
    session: &mut Session,
    node: Uuid,
    sequence: i64,
    rows: &[Flushed],
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    let number = |of: fn(&Flushed) -> i64| rows.iter().map(of).collect::<Vec<_>>();
    sqlx::query(
        "-- usage.flush
         WITH fresh AS (
             INSERT INTO usage_flush AS f (node_id, sequence, flushed_at) VALUES ($1, $2, coalesce($3, now()))
             ON CONFLICT (node_id) DO UPDATE SET sequence = excluded.sequence, flushed_at = excluded.flushed_at
             WHERE f.sequence < excluded.sequence
             RETURNING date_trunc('minute', flushed_at) AS at
         )
         INSERT INTO usage_minute AS u
             (tenant_id, at, meter, topic, subscription, units, elastic_units, messages, bytes)
         SELECT r.tenant_id, f.at, r.meter, r.topic, r.subscription, sum(r.units), sum(r.elastic_units), sum(r.messages),
                sum(r.bytes)
         FROM fresh f
         CROSS JOIN unnest($4::bigint[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[],
                           $11::bigint[])
             AS r (tenant_id, meter, topic, subscription, units, elastic_units, messages, bytes)
         GROUP BY r.tenant_id, f.at, r.meter, r.topic, r.subscription
         ORDER BY r.tenant_id, r.meter COLLATE \"C\", r.topic COLLATE \"C\", r.subscription COLLATE \"C\"
         ON CONFLICT (tenant_id, at, meter, topic, subscription) DO UPDATE
         SET units = u.units + excluded.units, elastic_units = u.elastic_units + excluded.elastic_units,
             messages = u.messages + excluded.messages, bytes = u.bytes + excluded.bytes",
    )
    .bind(node)
    .bind(sequence)
    .bind(now)
    .bind(rows.iter().map(|row| row.tenant).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.meter).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &*row.topic).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &*row.subscription).collect::<Vec<_>>())
    .bind(number(|row| row.units))
    .bind(number(|row| row.elastic_units))
    .bind(number(|row| row.messages))
    .bind(number(|row| row.bytes))
    .execute(session.run("usage.flush"))
    .await?;
    Ok(())
}

/// Adds the counts of blocks, in the transaction that counts them.
///
/// # Errors
/// When the database call fails.
pub async fn add_minutes(session: &mut Session, rows: &[Counted]) -> Result<(), Error> {
    let number = |of: fn(&Counted) -> i64| rows.iter().map(of).collect::<Vec<_>>();
    sqlx::query(
        "-- usage.add_minutes
         INSERT INTO usage_minute AS u
             (tenant_id, at, meter, topic, subscription, units, elastic_units, messages, bytes)
         SELECT r.tenant_id, r.at, r.meter, r.topic, '', sum(r.units), sum(r.elastic_units), sum(r.messages), sum(r.bytes)
         FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
                     $8::bigint[])
             AS r (tenant_id, at, meter, topic, units, elastic_units, messages, bytes)
         GROUP BY r.tenant_id, r.at, r.meter, r.topic
         ORDER BY r.tenant_id, r.at, r.meter COLLATE \"C\", r.topic COLLATE \"C\"
         ON CONFLICT (tenant_id, at, meter, topic, subscription) DO UPDATE
         SET units = u.units + excluded.units, elastic_units = u.elastic_units + excluded.elastic_units,
             messages = u.messages + excluded.messages, bytes = u.bytes + excluded.bytes",
    )
    .bind(rows.iter().map(|row| row.tenant_id).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.at).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &*row.meter).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &*row.topic).collect::<Vec<_>>())
    .bind(number(|row| row.units))
    .bind(number(|row| row.elastic_units))
    .bind(number(|row| row.messages))
    .bind(number(|row| row.bytes))
    .execute(session.run("usage.add_minutes"))
    .await?;
    Ok(())
}

/// Adds byte-seconds, in the transaction that takes them out of the meters of lanes.
///
/// # Errors
/// When the database call fails.
pub async fn add_stored(session: &mut Session, rows: &[Stored]) -> Result<(), Error> {
    sqlx::query(
        "-- usage.add_stored
         INSERT INTO usage_hour AS u
             (tenant_id, at, meter, topic, subscription, units, elastic_units, messages, bytes, over_time)
         SELECT r.tenant_id, r.at, r.meter, r.topic, '', 0, 0, 0, 0, r.over_time::numeric
         FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::text[], $5::text[])
             AS r (tenant_id, at, meter, topic, over_time)
         ORDER BY r.tenant_id, r.at, r.meter COLLATE \"C\", r.topic COLLATE \"C\"
         ON CONFLICT (tenant_id, at, meter, topic, subscription) DO UPDATE
         SET over_time = u.over_time + excluded.over_time",
    )
    .bind(rows.iter().map(|row| row.tenant_id).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.at).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &*row.meter).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &*row.topic).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &*row.over_time).collect::<Vec<_>>())
    .execute(session.run("usage.add_stored"))
    .await?;
    Ok(())
}

/// The progress of metering.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Status {
    /// The database's time.
    pub at: OffsetDateTime,
    /// All messages published before this time are counted; `None`: no round has been complete yet.
    pub metered_until: Option<OffsetDateTime>,
}

/// Reads the progress of metering.
///
/// # Errors
/// When the database call fails.
pub async fn status(session: &mut Session, now: Option<OffsetDateTime>) -> Result<Status, Error> {
    Ok(sqlx::query_as(
        "-- usage.status
         SELECT coalesce($1, now()) AS at, (SELECT metered_until FROM metering) AS metered_until",
    )
    .bind(now)
    .fetch_one(session.run("usage.status"))
    .await?)
}

/// Records that all messages published before `until` are counted.
///
/// # Errors
/// When the database call fails.
pub async fn metered(session: &mut Session, until: OffsetDateTime) -> Result<(), Error> {
    sqlx::query(
        "-- usage.metered
         INSERT INTO metering AS m (metered_until) VALUES ($1)
         ON CONFLICT (only_row) DO UPDATE SET metered_until = excluded.metered_until
         WHERE m.metered_until < excluded.metered_until",
    )
    .bind(until)
    .execute(session.run("usage.metered"))
    .await?;
    Ok(())
}

/// Moves minutes that begin before `before` to their hours, at most `limit` rows, and returns their number. If only
/// some minutes of an hour were turned into events, they stay until all of them were.
///
/// # Errors
/// When the database call fails.
pub async fn roll_minutes(
    session: &mut Session,
    before: OffsetDateTime,
    limit: i64,
) -> Result<i64, Error> {
    // A row that grew while the delete waited for its lock is deleted with its new values. A row that is inserted again
    // later starts at zero.
    Ok(sqlx::query_scalar(
        "-- usage.roll_minutes
         WITH old AS MATERIALIZED (
             SELECT m.tenant_id, m.at, m.meter, m.topic, m.subscription FROM usage_minute m
             WHERE m.at < $1
               AND NOT EXISTS (SELECT FROM event_sink s
                               WHERE date_trunc('hour', s.next_window) = date_trunc('hour', m.at)
                                 AND (s.next_window > date_trunc('hour', s.next_window) OR s.begun_seconds = 60)
                                 AND (s.all_tenants OR s.tenant_id = m.tenant_id))
             ORDER BY m.at LIMIT $2
         ), gone AS (
             DELETE FROM usage_minute m USING old o
             WHERE (m.tenant_id, m.at, m.meter, m.topic, m.subscription)
                 = (o.tenant_id, o.at, o.meter, o.topic, o.subscription)
             RETURNING m.*
         ), added AS (
             INSERT INTO usage_hour AS u
                 (tenant_id, at, meter, topic, subscription, units, elastic_units, messages, bytes, over_time)
             SELECT tenant_id, date_trunc('hour', at), meter, topic, subscription, sum(units), sum(elastic_units),
                    sum(messages), sum(bytes), 0
             FROM gone GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
             ON CONFLICT (tenant_id, at, meter, topic, subscription) DO UPDATE
             SET units = u.units + excluded.units, elastic_units = u.elastic_units + excluded.elastic_units,
                 messages = u.messages + excluded.messages, bytes = u.bytes + excluded.bytes
         )
         SELECT count(*) FROM gone",
    )
    .bind(before)
    .bind(limit)
    .fetch_one(session.run("usage.roll_minutes"))
    .await?)
}

/// Moves hours that begin before `before` to their days, at most `limit` rows, and returns their number. If only some
/// hours of a day were turned into events, they stay until all of them were.
///
/// # Errors
/// When the database call fails.
pub async fn roll_hours(
    session: &mut Session,
    before: OffsetDateTime,
    limit: i64,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- usage.roll_hours
         WITH old AS MATERIALIZED (
             SELECT h.tenant_id, h.at, h.meter, h.topic, h.subscription FROM usage_hour h
             WHERE h.at < $1
               AND NOT EXISTS (SELECT FROM event_sink s
                               WHERE date_trunc('day', s.next_window) = date_trunc('day', h.at)
                                 AND (s.next_window > date_trunc('day', s.next_window) OR s.begun_seconds < 86400)
                                 AND (s.all_tenants OR s.tenant_id = h.tenant_id))
             ORDER BY h.at LIMIT $2
         ), gone AS (
             DELETE FROM usage_hour h USING old o
             WHERE (h.tenant_id, h.at, h.meter, h.topic, h.subscription)
                 = (o.tenant_id, o.at, o.meter, o.topic, o.subscription)
             RETURNING h.*
         ), added AS (
             INSERT INTO usage_day AS u
                 (tenant_id, at, meter, topic, subscription, units, elastic_units, messages, bytes, over_time)
             SELECT tenant_id, date_trunc('day', at), meter, topic, subscription, sum(units), sum(elastic_units),
                    sum(messages), sum(bytes), sum(over_time)
             FROM gone GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
             ON CONFLICT (tenant_id, at, meter, topic, subscription) DO UPDATE
             SET units = u.units + excluded.units, elastic_units = u.elastic_units + excluded.elastic_units,
                 messages = u.messages + excluded.messages, bytes = u.bytes + excluded.bytes,
                 over_time = u.over_time + excluded.over_time
         )
         SELECT count(*) FROM gone",
    )
    .bind(before)
    .bind(limit)
    .fetch_one(session.run("usage.roll_hours"))
    .await?)
}

/// Deletes days that begin before `before`, at most `limit` rows, and returns their number.
///
/// # Errors
/// When the database call fails.
pub async fn delete_days(
    session: &mut Session,
    before: OffsetDateTime,
    limit: i64,
) -> Result<u64, Error> {
    let deleted = sqlx::query(
        "-- usage.delete_days
         DELETE FROM usage_day d
         USING (SELECT tenant_id, at, meter, topic, subscription FROM usage_day WHERE at < $1 ORDER BY at LIMIT $2) o
         WHERE (d.tenant_id, d.at, d.meter, d.topic, d.subscription)
             = (o.tenant_id, o.at, o.meter, o.topic, o.subscription)",
    )
    .bind(before)
    .bind(limit)
    .execute(session.run("usage.delete_days"))
    .await?;
    Ok(deleted.rows_affected())
}

/// Deletes the flush records of nodes that have not flushed since `before`: such nodes do not retry an old flush.
///
/// # Errors
/// When the database call fails.
pub async fn delete_flushes(session: &mut Session, before: OffsetDateTime) -> Result<(), Error> {
    sqlx::query(
        "-- usage.delete_flushes
         DELETE FROM usage_flush WHERE flushed_at < $1",
    )
    .bind(before)
    .execute(session.run("usage.delete_flushes"))
    .await?;
    Ok(())
}

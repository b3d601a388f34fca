//! Reads `usage_minute`, `usage_hour` and `usage_day` as one list. Each row has the running totals of its month: price
//! tiers fill up over a month, so the cost of a row depends on the usage before it. Meters of one group
//! (`Meter::group`) share their running totals. Other statements here return the times and the tenants of usage.

use api::usage::Meter;
use time::OffsetDateTime;

use super::{Error, Session, TenantId};

/// A request for a list of usage.
#[derive(Debug, Clone)]
pub struct UsageSelection<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// Lists only usage of topics whose names match one of these patterns.
    pub topics: &'a [String],
    /// Start of the running totals: the month of the first row, or that row itself if nothing has a price.
    pub since: OffsetDateTime,
    /// Start of the first window.
    pub from: OffsetDateTime,
    /// End of the last window.
    pub to: OffsetDateTime,
    /// `minute`, `hour` or `day`.
    pub granularity: &'a str,
    /// Names in the key of a row: 0 for none, 1 for the topic, 2 for the topic and the subscription.
    pub names: i32,
    /// Lists only meters that measure an amount over time.
    pub over_time_only: bool,
    /// Lists only rows after this window, meter, topic and subscription. With an empty meter it lists all rows from the
    /// window on.
    pub after: (OffsetDateTime, &'a str, &'a str, &'a str),
    /// Most rows to return.
    pub limit: i64,
}

/// A row of the list.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct UsageRow {
    /// Start of the window.
    pub start: OffsetDateTime,
    /// Name of the meter.
    pub meter: String,
    /// Name of the topic, or empty.
    pub topic: String,
    /// Name of the subscription, or empty.
    pub subscription: String,
    /// Metering units.
    pub units: i64,
    /// Metering units above the guarantee, a part of `units`.
    pub elastic_units: i64,
    /// Messages.
    pub messages: i64,
    /// Bytes.
    pub bytes: i64,
    /// Amount of a meter over time, in the unit of its price: a decimal number, rounded to nine places.
    pub amount: Option<String>,
    /// Metering units of the meter's group in the month before this row.
    pub units_before: i64,
    /// Elastic units of all meters in the month before this row.
    pub elastic_before: i64,
    /// Bytes of the meter's group in the month before this row.
    pub bytes_before: i64,
    /// Amount over time of the meter's group in the month before this row, a whole number. Its unit is byte-seconds of
    /// storage, or messages per second times seconds of guaranteed capacity.
    pub over_time_before: String,
    /// The same including this row. Both are rounded down, so no fraction is lost between two rows.
    pub over_time_after: String,
}

/// Usage of a tenant in order of window, meter, topic and subscription, from all three tables.
///
/// # Errors
/// When the database call fails.
pub async fn list(
    session: &mut Session,
    selection: &UsageSelection<'_>,
) -> Result<Vec<UsageRow>, Error> {
    let (after, meter, topic, subscription) = selection.after;
    Ok(sqlx::query_as(
        "-- usage_read.list
         SELECT p.start, p.meter, p.topic, p.subscription, p.units, p.elastic_units, p.messages, p.bytes,
                trim_scale(round(p.over_time / p.measured_per_amount, 9))::text AS amount,
                (p.units_after - p.units)::bigint AS units_before,
                (p.elastic_after - p.elastic_units)::bigint AS elastic_before,
                (p.bytes_after - p.bytes)::bigint AS bytes_before,
                trunc(p.over_time_after - p.over_time)::text AS over_time_before,
                trunc(p.over_time_after)::text AS over_time_after
         FROM (
             SELECT g.*, sum(g.units) OVER item AS units_after, sum(g.elastic_units) OVER month AS elastic_after,
                    sum(g.bytes) OVER item AS bytes_after, sum(g.over_time) OVER item AS over_time_after,
                    ($15::bigint[])[array_position($13::text[], g.meter)] AS measured_per_amount
             FROM (
                 SELECT u.start, u.meter, u.topic COLLATE \"C\" AS topic, u.subscription COLLATE \"C\" AS subscription,
                        u.mine, sum(u.units)::bigint AS units, sum(u.elastic_units)::bigint AS elastic_units,
                        sum(u.messages)::bigint AS messages, sum(u.bytes)::bigint AS bytes,
                        sum(u.over_time) AS over_time
                 FROM (
                     SELECT date_trunc($5, t.at) AS start, t.meter, CASE WHEN $6 >= 1 THEN t.topic ELSE '' END AS topic,
                            CASE WHEN $6 >= 2 THEN t.subscription ELSE '' END AS subscription,
                            t.topic LIKE ANY ($11) AS mine, t.units, t.elastic_units, t.messages, t.bytes, t.over_time
                     FROM (
                         SELECT at, meter, topic, subscription, units, elastic_units, messages, bytes, 0 AS over_time
                         FROM usage_minute WHERE tenant_id = $1 AND at >= $12 AND at < $3
                         UNION ALL
                         SELECT at, meter, topic, subscription, units, elastic_units, messages, bytes, over_time
                         FROM usage_hour
                         -- rows longer than the windows count only for the running totals before them
                         WHERE tenant_id = $1 AND at >= $12 AND at < $3 AND ($5 <> 'minute' OR at < $2)
                         UNION ALL
                         SELECT at, meter, topic, subscription, units, elastic_units, messages, bytes, over_time
                         FROM usage_day
                         WHERE tenant_id = $1 AND at >= $12 AND at < $3 AND ($5 = 'day' OR at < $2)
                     ) t
                 ) u
                 GROUP BY u.start, u.meter, u.topic, u.subscription, u.mine
             ) g
             WINDOW item AS (PARTITION BY date_trunc('month', g.start),
                                          ($14::text[])[array_position($13::text[], g.meter)] COLLATE \"C\"
                             ORDER BY g.start, g.meter, g.topic, g.subscription, g.mine ROWS UNBOUNDED PRECEDING),
                    month AS (PARTITION BY date_trunc('month', g.start)
                              ORDER BY g.start, g.meter, g.topic, g.subscription, g.mine ROWS UNBOUNDED PRECEDING)
         ) p
         WHERE p.mine AND p.start >= $2 AND (p.start, p.meter, p.topic, p.subscription) > ($4, $7, $8, $9)
           AND (p.measured_per_amount IS NOT NULL OR NOT $16)
         ORDER BY p.start, p.meter, p.topic, p.subscription LIMIT $10",
    )
    .bind(selection.tenant)
    .bind(selection.from)
    .bind(selection.to)
    .bind(after)
    .bind(selection.granularity)
    .bind(selection.names)
    .bind(meter)
    .bind(topic)
    .bind(subscription)
    .bind(selection.limit)
    .bind(selection.topics)
    .bind(selection.since)
    .bind(Meter::ALL.map(Meter::as_str))
    .bind(Meter::ALL.map(Meter::group))
    .bind(Meter::ALL.map(measured_per_amount))
    .bind(selection.over_time_only)
    .fetch_all(session.run("usage_read.list"))
    .await?)
}

/// The first usage at or after a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct FirstUse {
    /// The first minute that has usage.
    pub minute: Option<OffsetDateTime>,
    /// The first hour in `usage_hour` that has usage, from the hour of that time on.
    pub hour: Option<OffsetDateTime>,
}

/// The first usage at or after a time, of one tenant or of all.
///
/// # Errors
/// When the database call fails.
pub async fn first(
    session: &mut Session,
    tenant: Option<TenantId>,
    from: OffsetDateTime,
) -> Result<FirstUse, Error> {
    let Some(tenant) = tenant else {
        return Ok(sqlx::query_as(
            "-- usage_read.first
             SELECT (SELECT at FROM usage_minute WHERE at >= $1 ORDER BY at LIMIT 1) AS minute,
                    (SELECT at FROM usage_hour WHERE at >= date_trunc('hour', $1) ORDER BY at LIMIT 1) AS hour",
        )
        .bind(from)
        .fetch_one(session.run("usage_read.first"))
        .await?);
    };
    Ok(sqlx::query_as(
        "-- usage_read.first_of
         SELECT (SELECT at FROM usage_minute WHERE tenant_id = $1 AND at >= $2 ORDER BY at LIMIT 1) AS minute,
                (SELECT at FROM usage_hour WHERE tenant_id = $1 AND at >= date_trunc('hour', $2) ORDER BY at LIMIT 1) AS hour",
    )
    .bind(tenant)
    .bind(from)
    .fetch_one(session.run("usage_read.first_of"))
    .await?)
}

/// A time in which usage is looked for.
#[derive(Debug, Clone, Copy)]
pub struct UseRange {
    /// Its start.
    pub from: OffsetDateTime,
    /// Its end, which is not included.
    pub to: OffsetDateTime,
    /// Usage in the tables of hours and days counts from this time on.
    pub hours_from: OffsetDateTime,
}

/// Tenants that have usage in a time, in order of number, from the one after `after` on, at most `limit`.
///
/// # Errors
/// When the database call fails.
pub async fn tenants(
    session: &mut Session,
    range: UseRange,
    after: TenantId,
    limit: i64,
) -> Result<Vec<TenantId>, Error> {
    Ok(sqlx::query_scalar(
        "-- usage_read.tenants
         SELECT u.tenant_id
         FROM (SELECT tenant_id FROM usage_minute WHERE at >= $1 AND at < $2
               UNION SELECT tenant_id FROM usage_hour WHERE at >= $3 AND at < $2
               UNION SELECT tenant_id FROM usage_day WHERE at >= $3 AND at < $2) u
         WHERE u.tenant_id > $4 ORDER BY u.tenant_id LIMIT $5",
    )
    .bind(range.from)
    .bind(range.to)
    .bind(range.hours_from)
    .bind(after)
    .bind(limit)
    .fetch_all(session.run("usage_read.tenants"))
    .await?)
}

/// The measured quantity per one unit of an amount over time: for a GiB-hour, its byte-seconds.
fn measured_per_amount(meter: Meter) -> Option<i64> {
    let unit = meter.over_time()?;
    i64::try_from(unit.measured()).ok()
}

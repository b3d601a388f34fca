//! Reading `usage_minute`, `usage_hour` and `usage_day` as one, with each row's place in its month: prices have tiers that
//! fill up over a month, so what a row costs depends on what was used before it.

use api::usage::Meter;
use time::OffsetDateTime;

use super::{Error, Session};

/// Which usage to list.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Whose.
    pub tenant: i64,
    /// Only of topics whose names are like one of these patterns.
    pub topics: &'a [String],
    /// Where running totals begin: the start of the month of the first row, or that row itself when nobody needs them.
    pub since: OffsetDateTime,
    /// Start of the first window.
    pub from: OffsetDateTime,
    /// End of the last.
    pub to: OffsetDateTime,
    /// `minute`, `hour` or `day`.
    pub granularity: &'a str,
    /// How many names are told apart: 0, 1 the topic, 2 the subscription too.
    pub names: i32,
    /// Only meters of amounts over time.
    pub over_time_only: bool,
    /// Only what stands behind this window, meter, topic and subscription; with an empty meter, all from the window on.
    pub after: (OffsetDateTime, &'a str, &'a str, &'a str),
    /// Rows at most.
    pub limit: i64,
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct UsageRow {
    /// Start of the window.
    pub start: OffsetDateTime,
    /// What was used.
    pub meter: String,
    /// Name of the topic, or empty.
    pub topic: String,
    /// Name of the subscription, or empty.
    pub subscription: String,
    /// Metering units.
    pub units: i64,
    /// Of these, units above the guarantee.
    pub elastic_units: i64,
    /// Messages.
    pub messages: i64,
    /// Bytes.
    pub bytes: i64,
    /// Of a meter over time: the amount in the unit of its price, a decimal number rounded to nine places.
    pub amount: Option<String>,
    /// Units of the group of the meter before it in its month, as in what follows.
    pub units_before: i64,
    /// Elastic units of all meters before it in its month.
    pub elastic_before: i64,
    /// Bytes before it in its month.
    pub bytes_before: i64,
    /// What is measured over time before it in its month, a whole number: byte-seconds of storage, messages a second times
    /// seconds of guaranteed capacity.
    pub over_time_before: String,
    /// The same with its own. Rounded down like those before it, so that nothing is lost between two rows.
    pub over_time_after: String,
}

/// Usage of a tenant in order of window, meter, topic and subscription, whatever of it is rolled up.
///
/// # Errors
/// When the database does not answer.
pub async fn list(session: &mut Session, wanted: &Wanted<'_>) -> Result<Vec<UsageRow>, Error> {
    let (after, meter, topic, subscription) = wanted.after;
    Ok(sqlx::query_as(
        "-- usage.list
         SELECT p.start, p.meter, p.topic, p.subscription, p.units, p.elastic_units, p.messages, p.bytes,
                trim_scale(round(p.byte_seconds / p.measured_per_amount, 9))::text AS amount,
                (p.units_after - p.units)::bigint AS units_before,
                (p.elastic_after - p.elastic_units)::bigint AS elastic_before,
                (p.bytes_after - p.bytes)::bigint AS bytes_before,
                trunc(p.byte_seconds_after - p.byte_seconds)::text AS over_time_before,
                trunc(p.byte_seconds_after)::text AS over_time_after
         FROM (
             SELECT g.*, sum(g.units) OVER item AS units_after, sum(g.elastic_units) OVER month AS elastic_after,
                    sum(g.bytes) OVER item AS bytes_after, sum(g.byte_seconds) OVER item AS byte_seconds_after,
                    ($15::bigint[])[array_position($13::text[], g.meter)] AS measured_per_amount
             FROM (
                 SELECT u.start, u.meter, u.topic COLLATE \"C\" AS topic, u.subscription COLLATE \"C\" AS subscription,
                        u.mine, sum(u.units)::bigint AS units, sum(u.elastic_units)::bigint AS elastic_units,
                        sum(u.messages)::bigint AS messages, sum(u.bytes)::bigint AS bytes,
                        sum(u.byte_seconds) AS byte_seconds
                 FROM (
                     SELECT date_trunc($5, t.at) AS start, t.meter, CASE WHEN $6 >= 1 THEN t.topic ELSE '' END AS topic,
                            CASE WHEN $6 >= 2 THEN t.subscription ELSE '' END AS subscription,
                            t.topic LIKE ANY ($11) AS mine, t.units, t.elastic_units, t.messages, t.bytes, t.byte_seconds
                     FROM (
                         SELECT at, meter, topic, subscription, units, elastic_units, messages, bytes, 0 AS byte_seconds
                         FROM usage_minute WHERE tenant_id = $1 AND at >= $12 AND at < $3
                         UNION ALL
                         SELECT at, meter, topic, subscription, units, elastic_units, messages, bytes, byte_seconds
                         FROM usage_hour
                         -- of what is coarser than the windows only what comes before them
                         WHERE tenant_id = $1 AND at >= $12 AND at < $3 AND ($5 <> 'minute' OR at < $2)
                         UNION ALL
                         SELECT at, meter, topic, subscription, units, elastic_units, messages, bytes, byte_seconds
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
    .bind(wanted.tenant)
    .bind(wanted.from)
    .bind(wanted.to)
    .bind(after)
    .bind(wanted.granularity)
    .bind(wanted.names)
    .bind(meter)
    .bind(topic)
    .bind(subscription)
    .bind(wanted.limit)
    .bind(wanted.topics)
    .bind(wanted.since)
    .bind(Meter::ALL.map(Meter::as_str))
    .bind(Meter::ALL.map(Meter::group))
    .bind(Meter::ALL.map(measured_per_amount))
    .bind(wanted.over_time_only)
    .fetch_all(session.run("usage.list"))
    .await?)
}

/// What is measured of one amount of a meter over time, such as byte-seconds of a GiB-hour.
fn measured_per_amount(meter: Meter) -> Option<i64> {
    let unit = meter.over_time()?;
    i64::try_from(unit.measured()).ok()
}

//! Reading `usage_minute`, `usage_hour` and `usage_day` as one: a tenant's usage in order with each row's place in its month
//! (prices have tiers that fill up over a month, so what a row costs depends on what was used before it), and, by time alone,
//! where there is usage and of which tenants.

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
    /// Of storage, as a decimal number.
    pub gib_hours: Option<String>,
    /// Of guaranteed capacity, as a decimal number.
    pub capacity_hours: Option<String>,
    /// Units of the meter before it in its month; those of all deliveries count together, as in what follows.
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
        "-- usage_read.list
         SELECT p.start, p.meter, p.topic, p.subscription, p.units, p.elastic_units, p.messages, p.bytes,
                -- 2^30 bytes for 3,600 seconds
                CASE WHEN p.meter IN ('stored_hot', 'stored_object')
                     THEN trim_scale(round(p.over_time / 3865470566400, 9))::text END AS gib_hours,
                CASE WHEN p.meter = 'guaranteed_capacity' THEN trim_scale(round(p.over_time / 3600, 9))::text END
                    AS capacity_hours,
                (p.units_after - p.units)::bigint AS units_before,
                (p.elastic_after - p.elastic_units)::bigint AS elastic_before,
                (p.bytes_after - p.bytes)::bigint AS bytes_before,
                trunc(p.over_time_after - p.over_time)::text AS over_time_before,
                trunc(p.over_time_after)::text AS over_time_after
         FROM (
             SELECT g.*, sum(g.units) OVER item AS units_after, sum(g.elastic_units) OVER month AS elastic_after,
                    sum(g.bytes) OVER item AS bytes_after, sum(g.over_time) OVER item AS over_time_after
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
                         -- of what is coarser than the windows only what comes before them
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
                                          CASE WHEN starts_with(g.meter, 'deliver_') THEN 'deliver' ELSE g.meter END
                             ORDER BY g.start, g.meter, g.topic, g.subscription, g.mine ROWS UNBOUNDED PRECEDING),
                    month AS (PARTITION BY date_trunc('month', g.start)
                              ORDER BY g.start, g.meter, g.topic, g.subscription, g.mine ROWS UNBOUNDED PRECEDING)
         ) p
         WHERE p.mine AND p.start >= $2 AND (p.start, p.meter, p.topic, p.subscription) > ($4, $7, $8, $9)
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
    .fetch_all(session.run("usage_read.list"))
    .await?)
}

/// The first usage from a time on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct FirstUse {
    /// The first minute with usage.
    pub minute: Option<OffsetDateTime>,
    /// The first hour with usage that is not kept by the minute, from the hour of that time on.
    pub hour: Option<OffsetDateTime>,
}

/// The first usage from a time on, of a tenant or of all.
///
/// # Errors
/// When the database does not answer.
pub async fn first(
    session: &mut Session,
    tenant: Option<i64>,
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

/// Tenants after `after`, in order of number, that have usage from `from` to `to`; what is kept by the hour or day counts
/// from `hours_from` on.
///
/// # Errors
/// When the database does not answer.
pub async fn tenants(
    session: &mut Session,
    (from, to): (OffsetDateTime, OffsetDateTime),
    hours_from: OffsetDateTime,
    (after, limit): (i64, i64),
) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar(
        "-- usage_read.tenants
         SELECT u.tenant_id
         FROM (SELECT tenant_id FROM usage_minute WHERE at >= $1 AND at < $2
               UNION SELECT tenant_id FROM usage_hour WHERE at >= $3 AND at < $2
               UNION SELECT tenant_id FROM usage_day WHERE at >= $3 AND at < $2) u
         WHERE u.tenant_id > $4 ORDER BY u.tenant_id LIMIT $5",
    )
    .bind(from)
    .bind(to)
    .bind(hours_from)
    .bind(after)
    .bind(limit)
    .fetch_all(session.run("usage_read.tenants"))
    .await?)
}

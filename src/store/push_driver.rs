//! Table `push_endpoint`, the part that says which node drives an endpoint. A node drives what names it for as long as
//! it sends heartbeats, so that no row is renewed while nothing changes. The times are the database's, as those of
//! heartbeats.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Session, SubscriptionId, TenantId};

/// How many endpoints there are, and how many nodes to drive them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Counts {
    /// Endpoints that want messages.
    pub all: i64,
    /// Those of this node.
    pub mine: i64,
    /// Nodes that are alive.
    pub nodes: i64,
}

/// Counts endpoints and nodes. A node without a heartbeat within the last `alive` is none.
///
/// # Errors
/// When the database call fails.
pub async fn counts(session: &mut Session, node: Uuid, alive: Duration) -> Result<Counts, Error> {
    Ok(sqlx::query_as(
        r#"-- push_driver.counts
         SELECT count(*) AS "all", count(*) FILTER (WHERE driver = $1) AS mine,
                (SELECT count(*) FROM node WHERE seen_at > now() - $2 * interval '1 second') AS nodes
         FROM push_endpoint WHERE paused_at IS NULL AND disabled_at IS NULL"#,
    )
    .bind(node)
    .bind(alive.as_secs_f64())
    .fetch_one(session.run("push_driver.counts"))
    .await?)
}

/// Takes over up to `limit` endpoints that no living node drives, and returns their number.
///
/// # Errors
/// When the database call fails.
pub async fn claim(
    session: &mut Session,
    node: Uuid,
    limit: i64,
    alive: Duration,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "-- push_driver.claim
         UPDATE push_endpoint u SET driver = $1
         FROM (SELECT e.subscription_id FROM push_endpoint e
               WHERE e.paused_at IS NULL AND e.disabled_at IS NULL
                 AND (e.driver IS NULL OR NOT EXISTS (
                     SELECT FROM node n WHERE n.node_id = e.driver AND n.seen_at > now() - $3 * interval '1 second'))
               ORDER BY e.subscription_id LIMIT $2 FOR NO KEY UPDATE OF e SKIP LOCKED) f
         WHERE u.subscription_id = f.subscription_id",
    )
    .bind(node)
    .bind(limit)
    .bind(alive.as_secs_f64())
    .execute(session.run("push_driver.claim"))
    .await?;
    Ok(done.rows_affected())
}

/// Gives up endpoints, so that other nodes take them over: these, or all of the node.
///
/// # Errors
/// When the database call fails.
pub async fn release(
    session: &mut Session,
    node: Uuid,
    endpoints: Option<&[SubscriptionId]>,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "-- push_driver.release
         UPDATE push_endpoint SET driver = NULL
         WHERE driver = $1 AND ($2::bigint[] IS NULL OR subscription_id = ANY ($2))",
    )
    .bind(node)
    .bind(endpoints)
    .execute(session.run("push_driver.release"))
    .await?;
    Ok(done.rows_affected())
}

/// An endpoint of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Driven {
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// Raised with every change.
    pub version: i64,
}

/// The endpoints that a node drives and that want messages. Those of suspended tenants do not, and neither do those of
/// their sinks.
///
/// # Errors
/// When the database call fails.
pub async fn driven(session: &mut Session, node: Uuid) -> Result<Vec<Driven>, Error> {
    Ok(sqlx::query_as(
        "-- push_driver.driven
         SELECT e.subscription_id, e.version FROM push_endpoint e JOIN tenant t USING (tenant_id)
         WHERE e.driver = $1 AND e.paused_at IS NULL AND e.disabled_at IS NULL AND t.suspended_at IS NULL
           AND NOT EXISTS (SELECT FROM event_sink k JOIN tenant o USING (tenant_id)
                           WHERE k.subscription_id = e.subscription_id AND o.suspended_at IS NOT NULL)",
    )
    .bind(node)
    .fetch_all(session.run("push_driver.driven"))
    .await?)
}

/// What a driver reports of an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// The version of the endpoint that it is about.
    pub version: i64,
    /// How deliveries go, JSON.
    pub stats: String,
    /// Since when every request failed; `None`: the last did not.
    pub failing_since: Option<OffsetDateTime>,
    /// Why it is to be disabled now; `None`: it is not.
    pub disable: Option<String>,
    /// Attempts that failed since the last that did not, of an endpoint that gets messages in order.
    pub failed_attempts: i32,
    /// No request to it begins before.
    pub next_attempt_at: Option<OffsetDateTime>,
}

/// Stores reports of endpoints that the node still drives and that have not changed: what is said of an endpoint before
/// a change must not disable it after.
///
/// # Errors
/// When the database call fails.
pub async fn report(
    session: &mut Session,
    node: Uuid,
    reports: &[Report],
    now: Option<OffsetDateTime>,
) -> Result<u64, Error> {
    let ids: Vec<SubscriptionId> = reports.iter().map(|one| one.subscription_id).collect();
    let stats: Vec<&str> = reports.iter().map(|one| one.stats.as_str()).collect();
    let since: Vec<Option<OffsetDateTime>> = reports.iter().map(|one| one.failing_since).collect();
    let disable: Vec<Option<&str>> = reports.iter().map(|one| one.disable.as_deref()).collect();
    let failed: Vec<i32> = reports.iter().map(|one| one.failed_attempts).collect();
    let next: Vec<Option<OffsetDateTime>> = reports.iter().map(|one| one.next_attempt_at).collect();
    let versions: Vec<i64> = reports.iter().map(|one| one.version).collect();
    let done = sqlx::query(
        "-- push_driver.report
         UPDATE push_endpoint u SET stats = r.stats, failing_since = r.failing_since,
                failed_attempts = r.failed_attempts, next_attempt_at = r.next_attempt_at,
                disabled_at = CASE WHEN r.disable IS NULL THEN u.disabled_at ELSE coalesce($6, now()) END,
                disabled_reason = coalesce(r.disable, u.disabled_reason)
         FROM unnest($2::bigint[], $3::text[], $4::timestamptz[], $5::text[], $7::integer[], $8::timestamptz[], $9::bigint[])
              AS r (subscription_id, stats, failing_since, disable, failed_attempts, next_attempt_at, version)
         WHERE u.subscription_id = r.subscription_id AND u.version = r.version AND u.driver = $1",
    )
    .bind(node)
    .bind(ids)
    .bind(stats)
    .bind(since)
    .bind(disable)
    .bind(now)
    .bind(failed)
    .bind(next)
    .bind(versions)
    .execute(session.run("push_driver.report"))
    .await?;
    Ok(done.rows_affected())
}

/// The state of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct StateRow {
    /// How deliveries go, JSON; `None`: no driver has reported yet.
    pub stats: Option<String>,
    /// When it was paused.
    pub paused_at: Option<OffsetDateTime>,
    /// Why it is disabled.
    pub disabled_reason: Option<String>,
    /// Since when every request failed.
    pub failing_since: Option<OffsetDateTime>,
}

/// The state of an endpoint; `None`: the subscription has none.
///
/// # Errors
/// When the database call fails.
pub async fn state(
    session: &mut Session,
    subscription: SubscriptionId,
) -> Result<Option<StateRow>, Error> {
    Ok(sqlx::query_as(
        "-- push_driver.state
         SELECT stats, paused_at, disabled_reason, failing_since FROM push_endpoint WHERE subscription_id = $1",
    )
    .bind(subscription)
    .fetch_optional(session.run("push_driver.state"))
    .await?)
}

/// An endpoint that was disabled.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Disabled {
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// Its name.
    pub subscription: String,
    /// Owner.
    pub tenant_id: TenantId,
    /// When it was disabled.
    pub disabled_at: OffsetDateTime,
    /// Why.
    pub disabled_reason: String,
}

/// Locks endpoints of tenants that were disabled and of which no event was made yet, at most `limit`.
///
/// # Errors
/// When the database call fails.
pub async fn disabled(session: &mut Session, limit: i64) -> Result<Vec<Disabled>, Error> {
    Ok(sqlx::query_as(
        "-- push_driver.disabled
         SELECT e.subscription_id, s.name AS subscription, e.tenant_id, e.disabled_at, e.disabled_reason
         FROM push_endpoint e JOIN subscription s USING (subscription_id)
         WHERE e.disabled_at IS NOT NULL AND NOT e.disabled_told AND e.tenant_id <> $2
         ORDER BY e.disabled_at LIMIT $1 FOR NO KEY UPDATE OF e SKIP LOCKED",
    )
    .bind(limit)
    .bind(TenantId::SYSTEM)
    .fetch_all(session.run("push_driver.disabled"))
    .await?)
}

/// Records that an event was made of these endpoints.
///
/// # Errors
/// When the database call fails.
pub async fn told(session: &mut Session, endpoints: &[SubscriptionId]) -> Result<(), Error> {
    sqlx::query(
        "-- push_driver.told
         UPDATE push_endpoint SET disabled_told = true WHERE subscription_id = ANY ($1)",
    )
    .bind(endpoints)
    .execute(session.run("push_driver.told"))
    .await?;
    Ok(())
}

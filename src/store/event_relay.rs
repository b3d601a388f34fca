//! Table `event_sink`, the part that says how its events are relayed from the outbox to topics. A relay claims its sink for
//! a limited time, under a number of its own. So two nodes do not publish the same events, and a node that crashes blocks a
//! sink only until that time is over.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Error, LaneId, Offset, Session, SubscriptionId, TenantId};

/// A sink that is claimed by a relay.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Claimed {
    /// Internal number.
    pub sink_id: i64,
    /// Owner.
    pub tenant_id: TenantId,
    /// Name.
    pub name: String,
    /// Name of the topic that events are published to; `None`: they are sent to a URL.
    pub topic: Option<String>,
    /// The subscription that pushes them to the URL.
    pub subscription_id: Option<SubscriptionId>,
    /// Failed attempts since the last success.
    pub attempts: i32,
    /// Number of this relay: the claim.
    pub claim: i64,
}

/// Claims due sinks, at most `limit`, that have an event that is not published yet among the `ahead` that have waited
/// longest. Sinks of suspended tenants are left out.
///
/// # Errors
/// When the database call fails.
pub async fn claim(
    session: &mut Session,
    ahead: i64,
    limit: i64,
    hold: Duration,
    now: Option<OffsetDateTime>,
) -> Result<Vec<Claimed>, Error> {
    Ok(sqlx::query_as(
        "-- event_relay.claim
         UPDATE event_sink u SET claim = u.claim + 1, claimed_until = n.at + $2 * interval '1 second'
         FROM (SELECT coalesce($3, now()) AS at) n,
              (SELECT s.sink_id, t.name AS topic
               FROM event_sink s JOIN tenant o USING (tenant_id) LEFT JOIN topic t USING (topic_id)
                    LEFT JOIN push_endpoint p USING (subscription_id)
               WHERE s.disabled_at IS NULL AND p.disabled_at IS NULL AND s.next_attempt_at <= coalesce($3, now())
                 AND (s.claimed_until IS NULL OR s.claimed_until <= coalesce($3, now()))
                 AND o.suspended_at IS NULL
                 AND EXISTS (SELECT FROM (SELECT e.published_offset FROM event_outbox e WHERE e.sink_id = s.sink_id
                                          ORDER BY e.seq LIMIT $4) a WHERE a.published_offset IS NULL)
               ORDER BY s.next_attempt_at, s.sink_id LIMIT $1 FOR NO KEY UPDATE OF s SKIP LOCKED) d
         WHERE u.sink_id = d.sink_id
         RETURNING u.sink_id, u.tenant_id, u.name, d.topic, u.subscription_id, u.attempts, u.claim",
    )
    .bind(limit)
    .bind(hold.as_secs_f64())
    .bind(now)
    .bind(ahead)
    .fetch_all(session.run("event_relay.claim"))
    .await?)
}

/// Records that a relay has published and extends its claim; `false`: the claim was lost, or the sink was changed. What
/// goes to a topic of the tenant is delivered then.
///
/// # Errors
/// When the database call fails.
pub async fn published(
    session: &mut Session,
    sink: &Claimed,
    hold: Duration,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- event_relay.published
         UPDATE event_sink SET claimed_until = coalesce($4, now()) + $3 * interval '1 second', attempts = 0,
                delivered_at = CASE WHEN topic_id IS NULL THEN delivered_at ELSE coalesce($4, now()) END
         WHERE sink_id = $1 AND claim = $2",
    )
    .bind(sink.sink_id)
    .bind(sink.claim)
    .bind(hold.as_secs_f64())
    .bind(now)
    .execute(session.run("event_relay.published"))
    .await?;
    Ok(done.rows_affected() == 1)
}

/// How a relay failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed<'a> {
    /// The reason.
    pub failure: &'a str,
    /// Delay before the next attempt.
    pub pause: Duration,
}

/// Ends a relay that failed.
///
/// # Errors
/// When the database call fails.
pub async fn failed(
    session: &mut Session,
    sink: &Claimed,
    failed: Failed<'_>,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- event_relay.failed
         UPDATE event_sink SET claimed_until = NULL, attempts = attempts + 1, failed_at = coalesce($5, now()), failure = $3,
                next_attempt_at = coalesce($5, now()) + $4 * interval '1 second'
         WHERE sink_id = $1 AND claim = $2",
    )
    .bind(sink.sink_id)
    .bind(sink.claim)
    .bind(failed.failure)
    .bind(failed.pause.as_secs_f64())
    .bind(now)
    .execute(session.run("event_relay.failed"))
    .await?;
    Ok(())
}

/// Ends a relay that has nothing to publish now, and moves the sink behind the other due sinks.
///
/// # Errors
/// When the database call fails.
pub async fn release(
    session: &mut Session,
    sink: &Claimed,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- event_relay.release
         UPDATE event_sink SET claimed_until = NULL, next_attempt_at = greatest(next_attempt_at, coalesce($3, now()))
         WHERE sink_id = $1 AND claim = $2",
    )
    .bind(sink.sink_id)
    .bind(sink.claim)
    .bind(now)
    .execute(session.run("event_relay.release"))
    .await?;
    Ok(())
}

/// A sink of whose events some are published and not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Unsettled {
    /// Internal number.
    pub sink_id: i64,
    /// The subscription that pushes them.
    pub subscription_id: SubscriptionId,
    /// The lane they are in.
    pub lane_id: LaneId,
    /// The offset of the first of them.
    pub first: Offset,
}

/// Sinks of whose events some are published and not settled, in order of number from the one after `after` on.
///
/// # Errors
/// When the database call fails.
pub async fn unsettled(
    session: &mut Session,
    after: i64,
    limit: i64,
) -> Result<Vec<Unsettled>, Error> {
    Ok(sqlx::query_as(
        "-- event_relay.unsettled
         SELECT s.sink_id, s.subscription_id, t.lanes[1] AS lane_id, w.published_offset AS first
         FROM event_sink s JOIN subscription u USING (subscription_id) JOIN topic t ON t.topic_id = u.topic_id
         CROSS JOIN LATERAL (SELECT o.published_offset FROM event_outbox o WHERE o.sink_id = s.sink_id
                             ORDER BY o.seq LIMIT 1) w
         WHERE s.sink_id > $1 AND w.published_offset IS NOT NULL ORDER BY s.sink_id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(session.run("event_relay.unsettled"))
    .await?)
}

/// Disables the sinks whose endpoints are gone.
///
/// # Errors
/// When the database call fails.
pub async fn disable(session: &mut Session) -> Result<(), Error> {
    sqlx::query(
        "-- event_relay.disable
         UPDATE event_sink s SET disabled_at = p.disabled_at FROM push_endpoint p
         WHERE p.subscription_id = s.subscription_id AND s.disabled_at IS NULL
           -- a put that commits meanwhile enables the sink, and raises this time
           AND s.updated_at <= p.disabled_at",
    )
    .execute(session.run("event_relay.disable"))
    .await?;
    Ok(())
}

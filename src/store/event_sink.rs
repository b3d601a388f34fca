//! Table `event_sink`: where events go, how far usage was made into events for each, and how its delivery stands. A
//! delivery claims its sink for a while, by number, so that two nodes do not send the same and a node that dies stops it
//! for that while only.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Error, Session};

/// The key of a sink's signatures; it is not for logs.
#[derive(Clone, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct SigningKey(pub Vec<u8>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

/// A row, with the name of its topic.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SinkRow {
    /// Internal number.
    pub sink_id: i64,
    /// Owner.
    pub tenant_id: i64,
    /// Name within the tenant.
    pub name: String,
    /// Name of the topic that events are published to.
    pub topic: Option<String>,
    /// Where events are sent to.
    pub url: Option<String>,
    /// Which events it gets.
    pub kinds: Vec<String>,
    /// `minute` or `hour`.
    pub granularity: String,
    /// It gets the events of all tenants.
    pub all_tenants: bool,
    /// The URL takes several events at once.
    pub batch: bool,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// Time of the last change of settings.
    pub updated_at: OffsetDateTime,
    /// Usage before it was made into events.
    pub next_window: Option<OffsetDateTime>,
    /// No delivery begins before.
    pub next_attempt_at: OffsetDateTime,
    /// Attempts that failed since the last that did not.
    pub attempts: i32,
    /// When events were last delivered.
    pub delivered_at: Option<OffsetDateTime>,
    /// When a delivery last failed.
    pub failed_at: Option<OffsetDateTime>,
    /// Why it did.
    pub failure: Option<String>,
    /// When the URL said that it is gone.
    pub disabled_at: Option<OffsetDateTime>,
    /// How many events wait, counted up to a limit.
    pub waiting: i64,
}

/// Settings to write.
#[derive(Debug, Clone)]
pub struct NewSink<'a> {
    /// Owner.
    pub tenant: i64,
    /// Name.
    pub name: &'a str,
    /// The topic that events are published to.
    pub topic: Option<i64>,
    /// Where events are sent to.
    pub url: Option<&'a str>,
    /// Key of the signatures, for a sink that has none yet and a URL.
    pub secret: &'a SigningKey,
    /// Which events it gets.
    pub kinds: &'a [&'a str],
    /// `minute` or `hour`.
    pub granularity: &'a str,
    /// It gets the events of all tenants.
    pub all_tenants: bool,
    /// The URL takes several events at once.
    pub batch: bool,
}

/// What putting a sink did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Put {
    /// It is new.
    pub created: bool,
    /// It has the secret that was given: before, it had none.
    pub has_secret: bool,
}

/// Creates a sink, or changes the one of this name and lets it go on at once. Usage begins with the window that it is now,
/// and goes on where it was when it was wanted before. A key of signatures stays for as long as there is a URL. A delivery
/// that goes on loses its claim.
///
/// # Errors
/// When the database does not answer.
pub async fn put(
    session: &mut Session,
    new: &NewSink<'_>,
    now: Option<OffsetDateTime>,
) -> Result<Put, Error> {
    Ok(sqlx::query_as(
        "-- event_sink.put
         INSERT INTO event_sink AS s (tenant_id, name, topic_id, url, secret, kinds, granularity, all_tenants, batch,
                                      created_at, updated_at, next_attempt_at, next_window)
         SELECT $1, $2, $3, $4, CASE WHEN $4 IS NOT NULL THEN $5 END, $6, $7, $8, $9, n.at, n.at, n.at,
                CASE WHEN 'usage' = ANY ($6) THEN date_trunc($7, n.at) END
         FROM (SELECT coalesce($10, now()) AS at) n
         ON CONFLICT (tenant_id, name) DO UPDATE
         SET topic_id = excluded.topic_id, url = excluded.url,
             secret = CASE WHEN excluded.url IS NOT NULL THEN coalesce(s.secret, excluded.secret) END,
             kinds = excluded.kinds, granularity = excluded.granularity, all_tenants = excluded.all_tenants,
             batch = excluded.batch, updated_at = excluded.updated_at, next_attempt_at = excluded.next_attempt_at,
             next_window = CASE WHEN excluded.next_window IS NOT NULL THEN coalesce(s.next_window, excluded.next_window) END,
             begun_seconds = CASE WHEN excluded.next_window IS NOT NULL THEN s.begun_seconds END,
             -- with other tenants the window that it is in begins again, which makes the same events
             after_tenant = CASE WHEN excluded.next_window IS NOT NULL AND s.all_tenants = excluded.all_tenants
                                 THEN s.after_tenant ELSE 0 END,
             after_key = CASE WHEN excluded.next_window IS NOT NULL AND s.all_tenants = excluded.all_tenants
                              THEN s.after_key ELSE '' END,
             attempts = 0, disabled_at = NULL, claim = s.claim + 1, claimed_until = NULL
         -- xmax: 0 in a row that was inserted
         RETURNING s.xmax = 0 AS created, s.secret IS NOT NULL AND s.secret = $5 AS has_secret",
    )
    .bind(new.tenant)
    .bind(new.name)
    .bind(new.topic)
    .bind(new.url)
    .bind(new.secret)
    .bind(new.kinds)
    .bind(new.granularity)
    .bind(new.all_tenants)
    .bind(new.batch)
    .bind(now)
    .fetch_one(session.run("event_sink.put"))
    .await?)
}

/// How many sinks a tenant has.
///
/// # Errors
/// When the database does not answer.
pub async fn count(session: &mut Session, tenant: i64) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- event_sink.count
         SELECT count(*) FROM event_sink WHERE tenant_id = $1",
    )
    .bind(tenant)
    .fetch_one(session.run("event_sink.count"))
    .await?)
}

/// Sinks of a tenant after a name, in order of name, of those whose names are like one of the patterns; what waits for each
/// is counted up to `waiting_max`.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    session: &mut Session,
    (tenant, like): (i64, &[String]),
    after: &str,
    (limit, waiting_max): (i64, i64),
) -> Result<Vec<SinkRow>, Error> {
    Ok(sqlx::query_as(
        "-- event_sink.list
         SELECT s.*, t.name AS topic,
                (SELECT count(*) FROM (SELECT FROM event_outbox o WHERE o.sink_id = s.sink_id LIMIT $5) w) AS waiting
         FROM event_sink s LEFT JOIN topic t USING (topic_id)
         WHERE s.tenant_id = $1 AND s.name > $2 AND s.name LIKE ANY ($4) ORDER BY s.name LIMIT $3",
    )
    .bind(tenant)
    .bind(after)
    .bind(limit)
    .bind(like)
    .bind(waiting_max)
    .fetch_all(session.run("event_sink.list"))
    .await?)
}

/// Finds a sink by name; what waits is counted up to `waiting_max`.
///
/// # Errors
/// When the database does not answer.
pub async fn by_name(
    session: &mut Session,
    (tenant, name): (i64, &str),
    waiting_max: i64,
) -> Result<Option<SinkRow>, Error> {
    Ok(sqlx::query_as(
        "-- event_sink.by_name
         SELECT s.*, t.name AS topic,
                (SELECT count(*) FROM (SELECT FROM event_outbox o WHERE o.sink_id = s.sink_id LIMIT $3) w) AS waiting
         FROM event_sink s LEFT JOIN topic t USING (topic_id)
         WHERE s.tenant_id = $1 AND s.name = $2",
    )
    .bind(tenant)
    .bind(name)
    .bind(waiting_max)
    .fetch_optional(session.run("event_sink.by_name"))
    .await?)
}

/// Names of the sinks that publish to a topic, ten at most.
///
/// # Errors
/// When the database does not answer.
pub async fn that_need(session: &mut Session, topic: i64) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar(
        "-- event_sink.that_need
         SELECT name FROM event_sink WHERE topic_id = $1 ORDER BY name LIMIT 10",
    )
    .bind(topic)
    .fetch_all(session.run("event_sink.that_need"))
    .await?)
}

/// Deletes a sink with what waits for it; false when there is none of this name.
///
/// # Errors
/// When the database does not answer.
pub async fn delete(session: &mut Session, tenant: i64, name: &str) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- event_sink.delete
         DELETE FROM event_sink WHERE tenant_id = $1 AND name = $2",
    )
    .bind(tenant)
    .bind(name)
    .execute(session.run("event_sink.delete"))
    .await?;
    Ok(done.rows_affected() == 1)
}

/// How far usage was made into events for a sink.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Cursor {
    /// Internal number.
    pub sink_id: i64,
    /// Owner.
    pub tenant_id: i64,
    /// It gets the usage of all tenants.
    pub all_tenants: bool,
    /// `minute` or `hour`.
    pub granularity: String,
    /// Start of the first window that is not done.
    pub next_window: OffsetDateTime,
    /// Seconds of that window, when it has begun.
    pub begun_seconds: Option<i32>,
    /// Tenants up to this number are done in that window.
    pub after_tenant: i64,
    /// Of the tenant after that, usage up to this place is done.
    pub after_key: String,
}

/// The cursors of sinks that get usage and whose window began at `latest` at the latest, in the order of these.
///
/// # Errors
/// When the database does not answer.
pub async fn behind(
    session: &mut Session,
    latest: OffsetDateTime,
    limit: i64,
) -> Result<Vec<Cursor>, Error> {
    Ok(sqlx::query_as(
        "-- event_sink.behind
         SELECT sink_id, tenant_id, all_tenants, granularity, next_window, begun_seconds, after_tenant, after_key
         FROM event_sink WHERE next_window <= $1 AND disabled_at IS NULL ORDER BY next_window, sink_id LIMIT $2",
    )
    .bind(latest)
    .bind(limit)
    .fetch_all(session.run("event_sink.behind"))
    .await?)
}

/// Locks a sink and reads its cursor; `None` when it gets no usage, is disabled or deleted, or another node works on it.
///
/// # Errors
/// When the database does not answer.
pub async fn lock_cursor(session: &mut Session, sink: i64) -> Result<Option<Cursor>, Error> {
    Ok(sqlx::query_as(
        "-- event_sink.lock_cursor
         SELECT sink_id, tenant_id, all_tenants, granularity, next_window, begun_seconds, after_tenant, after_key
         FROM event_sink WHERE sink_id = $1 AND next_window IS NOT NULL AND disabled_at IS NULL
         FOR NO KEY UPDATE SKIP LOCKED",
    )
    .bind(sink)
    .fetch_optional(session.run("event_sink.lock_cursor"))
    .await?)
}

/// Moves the cursor of a locked sink.
///
/// # Errors
/// When the database does not answer.
pub async fn move_cursor(session: &mut Session, to: &Cursor) -> Result<(), Error> {
    sqlx::query(
        "-- event_sink.move_cursor
         UPDATE event_sink SET next_window = $2, begun_seconds = $3, after_tenant = $4, after_key = $5 WHERE sink_id = $1",
    )
    .bind(to.sink_id)
    .bind(to.next_window)
    .bind(to.begun_seconds)
    .bind(to.after_tenant)
    .bind(&to.after_key)
    .execute(session.run("event_sink.move_cursor"))
    .await?;
    Ok(())
}

/// A sink that a delivery has claimed.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Claimed {
    /// Internal number.
    pub sink_id: i64,
    /// Owner.
    pub tenant_id: i64,
    /// Name of the topic that events are published to.
    pub topic: Option<String>,
    /// Where events are sent to.
    pub url: Option<String>,
    /// Key of the signatures.
    pub secret: Option<SigningKey>,
    /// The URL takes several events at once.
    pub batch: bool,
    /// Attempts that failed since the last that did not.
    pub attempts: i32,
    /// Number of this delivery.
    pub claim: i64,
}

/// Claims sinks for which events wait and that are due, `limit` at most. What belongs to a suspended tenant waits.
///
/// # Errors
/// When the database does not answer.
pub async fn claim(
    session: &mut Session,
    limit: i64,
    hold: Duration,
    now: Option<OffsetDateTime>,
) -> Result<Vec<Claimed>, Error> {
    Ok(sqlx::query_as(
        "-- event_sink.claim
         UPDATE event_sink u SET claim = u.claim + 1, claimed_until = n.at + $2 * interval '1 second'
         FROM (SELECT coalesce($3, now()) AS at) n,
              (SELECT s.sink_id, t.name AS topic
               FROM event_sink s JOIN tenant o USING (tenant_id) LEFT JOIN topic t USING (topic_id)
               WHERE s.disabled_at IS NULL AND s.next_attempt_at <= coalesce($3, now())
                 AND (s.claimed_until IS NULL OR s.claimed_until <= coalesce($3, now()))
                 AND o.suspended_at IS NULL AND EXISTS (SELECT FROM event_outbox e WHERE e.sink_id = s.sink_id)
               ORDER BY s.next_attempt_at, s.sink_id LIMIT $1 FOR NO KEY UPDATE OF s SKIP LOCKED) d
         WHERE u.sink_id = d.sink_id
         RETURNING u.sink_id, u.tenant_id, d.topic, u.url, u.secret, u.batch, u.attempts, u.claim",
    )
    .bind(limit)
    .bind(hold.as_secs_f64())
    .bind(now)
    .fetch_all(session.run("event_sink.claim"))
    .await?)
}

/// Notes that a delivery delivered, and holds on to the sink; false when it was claimed anew or put meanwhile.
///
/// # Errors
/// When the database does not answer.
pub async fn delivered(
    session: &mut Session,
    (sink, claim): (i64, i64),
    hold: Duration,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- event_sink.delivered
         UPDATE event_sink SET claimed_until = coalesce($4, now()) + $3 * interval '1 second',
                delivered_at = coalesce($4, now()), attempts = 0
         WHERE sink_id = $1 AND claim = $2",
    )
    .bind(sink)
    .bind(claim)
    .bind(hold.as_secs_f64())
    .bind(now)
    .execute(session.run("event_sink.delivered"))
    .await?;
    Ok(done.rows_affected() == 1)
}

/// How a delivery failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed<'a> {
    /// Why.
    pub failure: &'a str,
    /// Before the next attempt.
    pub pause: Duration,
    /// There is no next attempt.
    pub disable: bool,
}

/// Ends a delivery that failed.
///
/// # Errors
/// When the database does not answer.
pub async fn failed(
    session: &mut Session,
    (sink, claim): (i64, i64),
    failed: Failed<'_>,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- event_sink.failed
         UPDATE event_sink SET claimed_until = NULL, attempts = attempts + 1, failed_at = coalesce($6, now()), failure = $3,
                next_attempt_at = coalesce($6, now()) + $4 * interval '1 second',
                disabled_at = CASE WHEN $5 THEN coalesce($6, now()) END
         WHERE sink_id = $1 AND claim = $2",
    )
    .bind(sink)
    .bind(claim)
    .bind(failed.failure)
    .bind(failed.pause.as_secs_f64())
    .bind(failed.disable)
    .bind(now)
    .execute(session.run("event_sink.failed"))
    .await?;
    Ok(())
}

/// Ends a delivery that has nothing more to do for now; other sinks come first then.
///
/// # Errors
/// When the database does not answer.
pub async fn release(
    session: &mut Session,
    (sink, claim): (i64, i64),
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- event_sink.release
         UPDATE event_sink SET claimed_until = NULL, next_attempt_at = greatest(next_attempt_at, coalesce($3, now()))
         WHERE sink_id = $1 AND claim = $2",
    )
    .bind(sink)
    .bind(claim)
    .bind(now)
    .execute(session.run("event_sink.release"))
    .await?;
    Ok(())
}

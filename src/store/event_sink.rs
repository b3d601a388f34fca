//! Table `event_sink`: the receivers of events. A row also holds up to which window usage was turned into events, and
//! the state of the relay that publishes the events (`event_relay`).

use time::OffsetDateTime;

use super::{Error, Session, SubscriptionId, TenantId, TopicId};

/// The key that signs deliveries; it must not be logged.
#[derive(Clone, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct SigningKey(pub Vec<u8>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

/// A row, with the name of its topic and the state of the endpoint that its URL is.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SinkRow {
    /// Internal number.
    pub sink_id: i64,
    /// Owner.
    pub tenant_id: TenantId,
    /// Name within the tenant.
    pub name: String,
    /// Name of the topic that events are published to; `None`: they are sent to a URL.
    pub topic: Option<String>,
    /// The URL that events are sent to; `None`: they are published to a topic.
    pub url: Option<String>,
    /// The kinds of events that it gets.
    pub kinds: Vec<String>,
    /// Length of a window of usage: `minute` or `hour`.
    pub granularity: String,
    /// Whether it gets the events of all tenants.
    pub all_tenants: bool,
    /// Whether the URL accepts several events in one request.
    pub batch: bool,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// Time of the last change of settings.
    pub updated_at: OffsetDateTime,
    /// Usage is turned into events up to this time.
    pub next_window: Option<OffsetDateTime>,
    /// No relay starts before this time.
    pub next_attempt_at: OffsetDateTime,
    /// Failed attempts to publish since the last success.
    pub attempts: i32,
    /// When events were last delivered.
    pub delivered_at: Option<OffsetDateTime>,
    /// When a publish last failed.
    pub failed_at: Option<OffsetDateTime>,
    /// Why the last publish failed.
    pub failure: Option<String>,
    /// When the URL responded that it is gone (410); the sink is disabled since then.
    pub disabled_at: Option<OffsetDateTime>,
    /// The number of waiting events, counted up to a limit.
    pub waiting: i64,
    /// The state of the endpoint.
    #[sqlx(flatten)]
    pub endpoint: SinkEndpoint,
}

/// The state of the endpoint of a sink. Everything is `None` when the sink has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct SinkEndpoint {
    /// How deliveries go, JSON.
    pub stats: Option<String>,
    /// Failed attempts since the last success.
    pub failed_attempts: Option<i32>,
    /// No request begins before this time.
    pub not_before: Option<OffsetDateTime>,
    /// When it responded that it is gone.
    pub gone_at: Option<OffsetDateTime>,
}

/// Settings to write.
#[derive(Debug, Clone)]
pub struct NewSink<'a> {
    /// Owner.
    pub tenant: TenantId,
    /// Name.
    pub name: &'a str,
    /// The topic that events are published to.
    pub topic: Option<TopicId>,
    /// The URL that events are sent to.
    pub url: Option<&'a str>,
    /// The key to sign deliveries with, used if the sink has a URL and no key yet.
    pub secret: &'a SigningKey,
    /// The kinds of events that it gets.
    pub kinds: &'a [&'a str],
    /// Length of a window of usage: `minute` or `hour`.
    pub granularity: &'a str,
    /// Whether it gets the events of all tenants.
    pub all_tenants: bool,
    /// Whether the URL accepts several events in one request.
    pub batch: bool,
}

/// A sink and the subscription that pushes its events to its URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Pushed {
    /// Internal number.
    pub sink_id: i64,
    /// The subscription; `None`: it has none.
    pub subscription_id: Option<SubscriptionId>,
}

/// Locks a sink; `None`: there is none of this name.
///
/// # Errors
/// When the database call fails.
pub async fn lock(
    session: &mut Session,
    tenant: TenantId,
    name: &str,
) -> Result<Option<Pushed>, Error> {
    Ok(sqlx::query_as(
        "-- event_sink.lock
         SELECT sink_id, subscription_id FROM event_sink WHERE tenant_id = $1 AND name = $2 FOR UPDATE",
    )
    .bind(tenant)
    .bind(name)
    .fetch_optional(session.run("event_sink.lock"))
    .await?)
}

/// The outcome of writing a sink.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Put {
    /// Internal number.
    pub sink_id: i64,
    /// The key that signs what is sent to the URL; `None`: it has no URL.
    pub secret: Option<SigningKey>,
    /// Whether the sink is new.
    pub created: bool,
    /// Whether the given key was stored, because the sink had none.
    pub has_secret: bool,
}

/// Creates a sink, or changes the one of this name and makes it due at once. Usage starts with the current window; it
/// continues at its former position if the sink wanted usage before. A signing key and the subscription are kept as long
/// as the sink has a URL. A running relay loses its claim.
///
/// # Errors
/// When the database call fails.
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
             subscription_id = CASE WHEN excluded.url IS NOT NULL THEN s.subscription_id END,
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
         RETURNING s.sink_id, s.secret, s.xmax = 0 AS created, s.secret IS NOT NULL AND s.secret = $5 AS has_secret",
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

/// Records the subscription that pushes the events of a locked sink to its URL.
///
/// # Errors
/// When the database call fails.
pub async fn attach(
    session: &mut Session,
    sink: i64,
    subscription: SubscriptionId,
) -> Result<(), Error> {
    sqlx::query(
        "-- event_sink.attach
         UPDATE event_sink SET subscription_id = $2 WHERE sink_id = $1",
    )
    .bind(sink)
    .bind(subscription)
    .execute(session.run("event_sink.attach"))
    .await?;
    Ok(())
}

/// The key that signs what is sent to the URL of a sink.
///
/// # Errors
/// When the database call fails.
pub async fn secret(session: &mut Session, sink: i64) -> Result<Option<SigningKey>, Error> {
    Ok(sqlx::query_scalar(
        "-- event_sink.secret
         SELECT secret FROM event_sink WHERE sink_id = $1",
    )
    .bind(sink)
    .fetch_one(session.run("event_sink.secret"))
    .await?)
}

/// The number of sinks of a tenant.
///
/// # Errors
/// When the database call fails.
pub async fn count(session: &mut Session, tenant: TenantId) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- event_sink.count
         SELECT count(*) FROM event_sink WHERE tenant_id = $1",
    )
    .bind(tenant)
    .fetch_one(session.run("event_sink.count"))
    .await?)
}

/// A page of a list of sinks.
#[derive(Debug, Clone, Copy)]
pub struct SinkPage<'a> {
    /// The name that comes before the page.
    pub after: &'a str,
    /// Sinks at most.
    pub limit: i64,
    /// Waiting events of a sink are counted up to this number.
    pub waiting_max: i64,
}

/// A statement that reads whole rows: its name, up to how many waiting events are counted, and which rows.
macro_rules! rows {
    ($name:literal, $waiting_max:literal, $which:literal) => {
        concat!(
            $name,
            "SELECT s.*, t.name AS topic, p.stats, p.failed_attempts, p.next_attempt_at AS not_before,
                p.disabled_at AS gone_at,
                (SELECT count(*) FROM (SELECT FROM event_outbox o WHERE o.sink_id = s.sink_id LIMIT ",
            $waiting_max,
            ") w) AS waiting
             FROM event_sink s LEFT JOIN topic t USING (topic_id) LEFT JOIN push_endpoint p USING (subscription_id) ",
            $which
        )
    };
}

/// Sinks of a tenant whose names match one of the patterns, in order of name.
///
/// # Errors
/// When the database call fails.
pub async fn list(
    session: &mut Session,
    tenant: TenantId,
    like: &[String],
    page: SinkPage<'_>,
) -> Result<Vec<SinkRow>, Error> {
    Ok(sqlx::query_as(rows!(
        "-- event_sink.list\n",
        "$5",
        "WHERE s.tenant_id = $1 AND s.name > $2 AND s.name LIKE ANY ($4) ORDER BY s.name LIMIT $3"
    ))
    .bind(tenant)
    .bind(page.after)
    .bind(page.limit)
    .bind(like)
    .bind(page.waiting_max)
    .fetch_all(session.run("event_sink.list"))
    .await?)
}

/// Finds a sink by name; its waiting events are counted up to `waiting_max`.
///
/// # Errors
/// When the database call fails.
pub async fn by_name(
    session: &mut Session,
    tenant: TenantId,
    name: &str,
    waiting_max: i64,
) -> Result<Option<SinkRow>, Error> {
    Ok(sqlx::query_as(rows!(
        "-- event_sink.by_name\n",
        "$3",
        "WHERE s.tenant_id = $1 AND s.name = $2"
    ))
    .bind(tenant)
    .bind(name)
    .bind(waiting_max)
    .fetch_optional(session.run("event_sink.by_name"))
    .await?)
}

/// Names of the sinks that publish to a topic, at most ten.
///
/// # Errors
/// When the database call fails.
pub async fn that_need(session: &mut Session, topic: TopicId) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar(
        "-- event_sink.that_need
         SELECT name FROM event_sink WHERE topic_id = $1 ORDER BY name LIMIT 10",
    )
    .bind(topic)
    .fetch_all(session.run("event_sink.that_need"))
    .await?)
}

/// Deletes a locked sink and its waiting events.
///
/// # Errors
/// When the database call fails.
pub async fn delete(session: &mut Session, sink: i64) -> Result<(), Error> {
    sqlx::query(
        "-- event_sink.delete
         DELETE FROM event_sink WHERE sink_id = $1",
    )
    .bind(sink)
    .execute(session.run("event_sink.delete"))
    .await?;
    Ok(())
}

/// The usage cursor of a sink: up to where usage was turned into events.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Cursor {
    /// Internal number.
    pub sink_id: i64,
    /// Owner.
    pub tenant_id: TenantId,
    /// Whether it gets the usage of all tenants.
    pub all_tenants: bool,
    /// Length of a window: `minute` or `hour`.
    pub granularity: String,
    /// Start of the first window that is not complete.
    pub next_window: OffsetDateTime,
    /// Length of that window in seconds, once it was started.
    pub begun_seconds: Option<i32>,
    /// In that window, tenants up to this number are complete.
    pub after_tenant: TenantId,
    /// Of the tenant after that, usage up to this position is complete.
    pub after_key: String,
}

/// The usage cursors of sinks whose first open window starts at `latest` or earlier.
///
/// # Errors
/// When the database call fails.
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

/// Locks a sink and reads its usage cursor. `None`: the sink gets no usage, is disabled or deleted, or is locked by
/// another node.
///
/// # Errors
/// When the database call fails.
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

/// Moves the usage cursor of a locked sink.
///
/// # Errors
/// When the database call fails.
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

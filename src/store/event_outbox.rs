//! Table `event_outbox`: events that wait for delivery, one row per event and sink. The transaction that causes an
//! event writes it, so neither exists without the other. A row stays until the delivery is certain: of a sink with a URL
//! it has the offset at which the event was published for it, until its subscription has settled that.

use time::OffsetDateTime;
use uuid::Uuid;

use super::cursor::Floor;
use super::{Error, Offset, Session, TenantId};

/// The values that all events of a tenant share.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Frame {
    /// The installation that the event comes from.
    pub installation_id: Uuid,
    /// Name of the tenant.
    pub tenant: String,
}

/// Reads the values that all events of a tenant share.
///
/// # Errors
/// When the database call fails.
pub async fn frame(session: &mut Session, tenant: TenantId) -> Result<Frame, Error> {
    Ok(sqlx::query_as(
        "-- event_outbox.frame
         SELECT i.installation_id, t.name AS tenant FROM installation i CROSS JOIN tenant t WHERE t.tenant_id = $1",
    )
    .bind(tenant)
    .fetch_one(session.run("event_outbox.frame"))
    .await?)
}

/// An event to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its id.
    pub id: String,
    /// The whole event as JSON.
    pub text: String,
}

/// Stores an event of a tenant for each sink that wants its kind and has fewer than `held_max` waiting events. An event
/// that already waits is not stored again.
///
/// # Errors
/// When the database call fails.
pub async fn emit(
    session: &mut Session,
    tenant: TenantId,
    kind: &str,
    event: &NewEvent,
    held_max: i64,
) -> Result<(), Error> {
    sqlx::query(
        "-- event_outbox.emit
         INSERT INTO event_outbox (sink_id, event_id, event)
         SELECT s.sink_id, $3, $4 FROM event_sink s
         WHERE (s.tenant_id = $1 OR s.all_tenants) AND $2 = ANY (s.kinds)
           AND (SELECT count(*) FROM (SELECT FROM event_outbox o WHERE o.sink_id = s.sink_id LIMIT $5) w) < $5
         ORDER BY s.sink_id
         ON CONFLICT (sink_id, event_id) DO NOTHING",
    )
    .bind(tenant)
    .bind(kind)
    .bind(&event.id)
    .bind(&event.text)
    .bind(held_max)
    .execute(session.run("event_outbox.emit"))
    .await?;
    Ok(())
}

/// Stores events for one sink, in their order.
///
/// # Errors
/// When the database call fails.
pub async fn fill(session: &mut Session, sink: i64, events: &[NewEvent]) -> Result<(), Error> {
    sqlx::query(
        "-- event_outbox.fill
         INSERT INTO event_outbox (sink_id, event_id, event)
         SELECT $1, e.id, e.text FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS e (id, text, place) ORDER BY e.place
         ON CONFLICT (sink_id, event_id) DO NOTHING",
    )
    .bind(sink)
    .bind(events.iter().map(|event| &*event.id).collect::<Vec<_>>())
    .bind(events.iter().map(|event| &*event.text).collect::<Vec<_>>())
    .execute(session.run("event_outbox.fill"))
    .await?;
    Ok(())
}

/// The number of events that wait for a sink, counted up to `limit`.
///
/// # Errors
/// When the database call fails.
pub async fn waiting(session: &mut Session, sink: i64, limit: i64) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- event_outbox.waiting
         SELECT count(*) FROM (SELECT FROM event_outbox WHERE sink_id = $1 LIMIT $2) w",
    )
    .bind(sink)
    .bind(limit)
    .fetch_one(session.run("event_outbox.waiting"))
    .await?)
}

/// The number of events that wait for all sinks together, counted up to `limit`.
///
/// # Errors
/// When the database call fails.
pub async fn waiting_in_all(session: &mut Session, limit: i64) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- event_outbox.waiting_in_all
         SELECT count(*) FROM (SELECT FROM event_outbox LIMIT $1) w",
    )
    .bind(limit)
    .fetch_one(session.run("event_outbox.waiting_in_all"))
    .await?)
}

/// A waiting event.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Waiting {
    /// Its position in the order of the sink.
    pub seq: i64,
    /// Its id.
    pub event_id: String,
    /// The whole event as JSON.
    pub event: String,
}

/// The events of a sink that are not published yet, of the `ahead` that have waited longest; at most `limit`, in their
/// order.
///
/// # Errors
/// When the database call fails.
pub async fn first(
    session: &mut Session,
    sink: i64,
    ahead: i64,
    limit: i64,
) -> Result<Vec<Waiting>, Error> {
    Ok(sqlx::query_as(
        "-- event_outbox.first
         SELECT a.seq, a.event_id, a.event
         FROM (SELECT seq, event_id, event, published_offset FROM event_outbox
               WHERE sink_id = $1 ORDER BY seq LIMIT $2) a
         WHERE a.published_offset IS NULL ORDER BY a.seq LIMIT $3",
    )
    .bind(sink)
    .bind(ahead)
    .bind(limit)
    .fetch_all(session.run("event_outbox.first"))
    .await?)
}

/// Deletes events that were delivered.
///
/// # Errors
/// When the database call fails.
pub async fn delete(session: &mut Session, sink: i64, seqs: &[i64]) -> Result<(), Error> {
    sqlx::query(
        "-- event_outbox.delete
         DELETE FROM event_outbox WHERE sink_id = $1 AND seq = ANY ($2)",
    )
    .bind(sink)
    .bind(seqs)
    .execute(session.run("event_outbox.delete"))
    .await?;
    Ok(())
}

/// Records at which offsets events were published.
///
/// # Errors
/// When the database call fails.
pub async fn published(
    session: &mut Session,
    sink: i64,
    seqs: &[i64],
    offsets: &[Offset],
) -> Result<(), Error> {
    sqlx::query(
        "-- event_outbox.published
         UPDATE event_outbox o SET published_offset = p.published_offset
         FROM unnest($2::bigint[], $3::bigint[]) AS p (seq, published_offset)
         WHERE o.sink_id = $1 AND o.seq = p.seq",
    )
    .bind(sink)
    .bind(seqs)
    .bind(offsets)
    .execute(session.run("event_outbox.published"))
    .await?;
    Ok(())
}

/// Forgets that events of a sink were published, because its topic is deleted.
///
/// # Errors
/// When the database call fails.
pub async fn unpublish(session: &mut Session, sink: i64) -> Result<(), Error> {
    sqlx::query(
        "-- event_outbox.unpublish
         UPDATE event_outbox SET published_offset = NULL WHERE sink_id = $1 AND published_offset IS NOT NULL",
    )
    .bind(sink)
    .execute(session.run("event_outbox.unpublish"))
    .await?;
    Ok(())
}

/// Deletes the events of a sink that its subscription has settled: those below `floor`. Records the delivery. Returns how
/// many they were; none when the sink has another subscription by now.
///
/// # Errors
/// When the database call fails.
pub async fn settled(
    session: &mut Session,
    sink: i64,
    settled: Floor,
    now: Option<OffsetDateTime>,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "-- event_outbox.settled
         WITH sink AS (
             UPDATE event_sink SET delivered_at = coalesce($4, now())
             WHERE sink_id = $1 AND subscription_id = $2 RETURNING sink_id
         )
         DELETE FROM event_outbox o USING sink s WHERE o.sink_id = s.sink_id AND o.published_offset < $3",
    )
    .bind(sink)
    .bind(settled.subscription_id)
    .bind(settled.floor)
    .bind(now)
    .execute(session.run("event_outbox.settled"))
    .await?;
    Ok(done.rows_affected())
}

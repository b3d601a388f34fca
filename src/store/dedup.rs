//! Table `dedup`: the keys of publishes that must not happen twice. The transaction that publishes inserts a row and
//! writes its response. A second publish with the same key waits for that transaction and then finds the row.

use time::OffsetDateTime;

use super::{Error, Session, TopicId};

/// The kind of a key, which is its name space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum Scope {
    /// `dedup_id` of a message.
    DedupId = 0,
    /// `Idempotency-Key` of a single publish.
    Single = 1,
    /// `Idempotency-Key` of a batch.
    Batch = 2,
}

/// A key to reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The kind of the key.
    pub scope: Scope,
    /// The key.
    pub key: String,
    /// SHA-256 of the request; empty if none is compared.
    pub fingerprint: Vec<u8>,
}

/// A key that was used before, with the response.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct UsedKey {
    /// The kind of the key.
    pub scope: i16,
    /// The key.
    pub key: String,
    /// SHA-256 of the request; empty if none is compared.
    pub fingerprint: Vec<u8>,
    /// The response to the first publish.
    pub answer: Option<Vec<u8>>,
}

/// Reserves keys, sorted by scope and key, and returns those that were free. Waits for transactions that hold the
/// others.
///
/// # Errors
/// When the database call fails.
pub async fn reserve(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    topic: TopicId,
    window_seconds: i32,
    keys: &[NewKey],
) -> Result<Vec<(i16, String)>, Error> {
    Ok(sqlx::query_as(
        "-- dedup.reserve
         INSERT INTO dedup AS d (topic_id, scope, key, fingerprint, expires_at)
         SELECT $1, k.scope, k.key, k.fingerprint, coalesce($2, now()) + $3 * interval '1 second'
         FROM unnest($4::smallint[], $5::text[], $6::bytea[]) AS k (scope, key, fingerprint)
         ON CONFLICT (topic_id, scope, key) DO UPDATE
             SET fingerprint = excluded.fingerprint, answer = NULL, expires_at = excluded.expires_at
             WHERE d.expires_at <= coalesce($2, now())
         RETURNING scope, key",
    )
    .bind(topic)
    .bind(now)
    .bind(window_seconds)
    .bind(keys.iter().map(|k| k.scope as i16).collect::<Vec<_>>())
    .bind(keys.iter().map(|k| k.key.clone()).collect::<Vec<_>>())
    .bind(
        keys.iter()
            .map(|k| k.fingerprint.clone())
            .collect::<Vec<_>>(),
    )
    .fetch_all(session.run("dedup.reserve"))
    .await?)
}

/// Reads keys that were used before.
///
/// # Errors
/// When the database call fails.
pub async fn used(
    session: &mut Session,
    topic: TopicId,
    keys: &[NewKey],
) -> Result<Vec<UsedKey>, Error> {
    Ok(sqlx::query_as(
        "-- dedup.used
         SELECT d.scope, d.key, d.fingerprint, d.answer
         FROM unnest($2::smallint[], $3::text[]) AS k (scope, key)
         JOIN dedup d ON d.topic_id = $1 AND d.scope = k.scope AND d.key = k.key",
    )
    .bind(topic)
    .bind(keys.iter().map(|k| k.scope as i16).collect::<Vec<_>>())
    .bind(keys.iter().map(|k| k.key.clone()).collect::<Vec<_>>())
    .fetch_all(session.run("dedup.used"))
    .await?)
}

/// Writes the responses for keys that this transaction reserved.
///
/// # Errors
/// When the database call fails.
pub async fn answer(
    session: &mut Session,
    topic: TopicId,
    answers: &[(Scope, String, Vec<u8>)],
) -> Result<(), Error> {
    sqlx::query(
        "-- dedup.answer
         UPDATE dedup d SET answer = k.answer
         FROM unnest($2::smallint[], $3::text[], $4::bytea[]) AS k (scope, key, answer)
         WHERE d.topic_id = $1 AND d.scope = k.scope AND d.key = k.key",
    )
    .bind(topic)
    .bind(
        answers
            .iter()
            .map(|(scope, _, _)| *scope as i16)
            .collect::<Vec<_>>(),
    )
    .bind(
        answers
            .iter()
            .map(|(_, key, _)| key.clone())
            .collect::<Vec<_>>(),
    )
    .bind(
        answers
            .iter()
            .map(|(_, _, answer)| answer.clone())
            .collect::<Vec<_>>(),
    )
    .execute(session.run("dedup.answer"))
    .await?;
    Ok(())
}

/// Deletes keys whose window is over, at most `limit`, and returns their number.
///
/// # Errors
/// When the database call fails.
pub async fn expire(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    limit: i64,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "-- dedup.expire
         DELETE FROM dedup WHERE (topic_id, scope, key) IN (
             SELECT topic_id, scope, key FROM dedup WHERE expires_at <= coalesce($1, now()) ORDER BY expires_at LIMIT $2
             FOR UPDATE SKIP LOCKED)",
    )
    .bind(now)
    .bind(limit)
    .execute(session.run("dedup.expire"))
    .await?;
    Ok(done.rows_affected())
}

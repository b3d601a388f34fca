//! Table `object`: what is in object storage. A row is written before its upload starts and outlives the object, so that
//! nothing in storage is ever unknown for long: a crash leaves a row without bytes, which is collected.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Error, Session};

/// Writes down an object before its upload starts, and returns its id.
///
/// # Errors
/// When the database does not answer or the key exists.
pub async fn insert(
    session: &mut Session,
    key: &str,
    now: Option<OffsetDateTime>,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- object.insert
         INSERT INTO object (key, created_at) VALUES ($1, coalesce($2, now())) RETURNING object_id",
    )
    .bind(key)
    .bind(now)
    .fetch_one(session.run("object.insert"))
    .await?)
}

/// Notes that an upload is complete; false when the collection gave the object up in the meantime, and then no block may
/// refer to it. Its age counts from now on, so that the publish that uploaded it has all of the collection's grace.
///
/// # Errors
/// When the database does not answer.
pub async fn finish(
    session: &mut Session,
    object: i64,
    bytes: i64,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let finished = sqlx::query(
        "-- object.finish
         UPDATE object SET bytes = $2, created_at = greatest(created_at, coalesce($3, now()))
         WHERE object_id = $1 AND bytes IS NULL AND deleted_at IS NULL",
    )
    .bind(object)
    .bind(bytes)
    .bind(now)
    .execute(session.run("object.finish"))
    .await?;
    Ok(finished.rows_affected() == 1)
}

/// Gives up uploads that began `grace` ago and never ended. An upload that ends now anyway waits for this row and then
/// finds that it was given up: see [`finish`].
///
/// # Errors
/// When the database does not answer.
pub async fn give_up(
    session: &mut Session,
    grace: Duration,
    now: Option<OffsetDateTime>,
) -> Result<u64, Error> {
    let marked = sqlx::query(
        "-- object.give_up
         UPDATE object SET deleted_at = coalesce($2, now())
         WHERE bytes IS NULL AND deleted_at IS NULL AND created_at < coalesce($2, now()) - $1 * interval '1 second'",
    )
    .bind(grace.as_secs_f64())
    .bind(now)
    .execute(session.run("object.give_up"))
    .await?;
    Ok(marked.rows_affected())
}

/// Objects whose uploads ended, in order of id after `after`, at most `limit`, with whether that was more than `grace` ago.
///
/// # Errors
/// When the database does not answer.
pub async fn finished(
    session: &mut Session,
    after: i64,
    limit: i64,
    grace: Duration,
    now: Option<OffsetDateTime>,
) -> Result<Vec<(i64, bool)>, Error> {
    Ok(sqlx::query_as(
        "-- object.finished
         SELECT o.object_id, o.created_at < coalesce($4, now()) - $3 * interval '1 second'
         FROM object o
         WHERE o.object_id > $1 AND o.bytes IS NOT NULL AND o.deleted_at IS NULL
         ORDER BY o.object_id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .bind(grace.as_secs_f64())
    .bind(now)
    .fetch_all(session.run("object.finished"))
    .await?)
}

/// The keys of objects that blocks refer to. One that is missing was deleted since: its block is gone.
///
/// # Errors
/// When the database does not answer.
pub async fn keys(session: &mut Session, objects: &[i64]) -> Result<Vec<(i64, String)>, Error> {
    Ok(sqlx::query_as(
        "-- object.keys
         SELECT object_id, key FROM object WHERE object_id = ANY ($1)",
    )
    .bind(objects)
    .fetch_all(session.run("object.keys"))
    .await?)
}

/// Marks objects that no block refers to. A block comes to refer to an object in the transaction that ends its upload (a
/// pack), or in the publish that follows it at once (a body), which is over long before the grace of [`finished`] ends: so an
/// object past its grace to which no block refers stays so.
///
/// # Errors
/// When the database does not answer.
pub async fn mark_deleted(
    session: &mut Session,
    objects: &[i64],
    now: Option<OffsetDateTime>,
) -> Result<u64, Error> {
    let marked = sqlx::query(
        "-- object.mark_deleted
         UPDATE object SET deleted_at = coalesce($2, now())
         WHERE object_id = ANY ($1) AND bytes IS NOT NULL AND deleted_at IS NULL",
    )
    .bind(objects)
    .bind(now)
    .execute(session.run("object.mark_deleted"))
    .await?;
    Ok(marked.rows_affected())
}

/// Objects marked `grace` ago, with their keys: to be deleted in object storage.
///
/// # Errors
/// When the database does not answer.
pub async fn marked(
    session: &mut Session,
    grace: Duration,
    limit: i64,
    now: Option<OffsetDateTime>,
) -> Result<Vec<(i64, String)>, Error> {
    Ok(sqlx::query_as(
        "-- object.marked
         SELECT object_id, key FROM object WHERE deleted_at < coalesce($3, now()) - $1 * interval '1 second' LIMIT $2",
    )
    .bind(grace.as_secs_f64())
    .bind(limit)
    .bind(now)
    .fetch_all(session.run("object.marked"))
    .await?)
}

/// Forgets objects that are deleted in object storage.
///
/// # Errors
/// When the database does not answer.
pub async fn delete(session: &mut Session, objects: &[i64]) -> Result<u64, Error> {
    let deleted = sqlx::query(
        "-- object.delete
         DELETE FROM object WHERE object_id = ANY ($1) AND deleted_at IS NOT NULL",
    )
    .bind(objects)
    .execute(session.run("object.delete"))
    .await?;
    Ok(deleted.rows_affected())
}

/// Which of these keys, last written at these times, no row knows and are older than `older_than`.
///
/// # Errors
/// When the database does not answer.
pub async fn unknown(
    session: &mut Session,
    keys: &[String],
    modified: &[OffsetDateTime],
    older_than: Duration,
    now: Option<OffsetDateTime>,
) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar(
        "-- object.unknown
         SELECT l.key FROM unnest($1::text[], $2::timestamptz[]) AS l (key, modified)
         WHERE l.modified < coalesce($4, now()) - $3 * interval '1 second'
           AND NOT EXISTS (SELECT FROM object o WHERE o.key = l.key)",
    )
    .bind(keys)
    .bind(modified)
    .bind(older_than.as_secs_f64())
    .bind(now)
    .fetch_all(session.run("object.unknown"))
    .await?)
}

/// The time `ago` before now, by the database's clock.
///
/// # Errors
/// When the database does not answer.
pub async fn time_before(
    session: &mut Session,
    ago: Duration,
    now: Option<OffsetDateTime>,
) -> Result<OffsetDateTime, Error> {
    Ok(sqlx::query_scalar(
        "-- object.time_before
         SELECT coalesce($2, now()) - $1 * interval '1 second'",
    )
    .bind(ago.as_secs_f64())
    .bind(now)
    .fetch_one(session.run("object.time_before"))
    .await?)
}

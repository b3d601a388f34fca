//! Table `object`: every object in object storage. A row is inserted before its upload starts and deleted after the
//! object, so each stored object has a row. A crash can leave a row without an object, which is collected.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Error, Session};

/// Records an object before its upload starts, and returns its id.
///
/// # Errors
/// When the database call fails or the key exists.
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

/// Records that an upload is complete. `false`: the collection has given up the object, and no block may refer to it.
/// Its age counts from now on, so the publish has the collection's full grace period to refer to it.
///
/// # Errors
/// When the database call fails.
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

/// Gives up uploads that began more than `grace` ago and are not complete. An upload that completes now waits for the
/// lock of this row and then gets `false` from [`finish`].
///
/// # Errors
/// When the database call fails.
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

/// A complete object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Internal number.
    pub object_id: i64,
    /// Whether it was completed longer ago than the grace period.
    pub is_old: bool,
}

/// Complete objects in order of id from the one after `after` on, at most `limit`, each with whether it was completed
/// more than `grace` ago.
///
/// # Errors
/// When the database call fails.
pub async fn finished(
    session: &mut Session,
    after: i64,
    limit: i64,
    grace: Duration,
    now: Option<OffsetDateTime>,
) -> Result<Vec<Finished>, Error> {
    let rows: Vec<(i64, bool)> = sqlx::query_as(
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
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|(object_id, is_old)| Finished { object_id, is_old })
        .collect())
}

/// Where an object is in object storage.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ObjectKey {
    /// Internal number.
    pub object_id: i64,
    /// Its key.
    pub key: String,
}

/// The keys of objects that blocks refer to. An object is missing if it was deleted in between, together with its
/// block.
///
/// # Errors
/// When the database call fails.
pub async fn keys(session: &mut Session, objects: &[i64]) -> Result<Vec<ObjectKey>, Error> {
    Ok(sqlx::query_as(
        "-- object.keys
         SELECT object_id, key FROM object WHERE object_id = ANY ($1)",
    )
    .bind(objects)
    .fetch_all(session.run("object.keys"))
    .await?)
}

/// Marks objects without a block as deleted. A block gets its reference in the transaction that completes the upload (a
/// pack) or in the publish that follows at once (a body). Both end long before the grace period of [`finished`] is
/// over, so an object without a block after that period never gets one.
///
/// # Errors
/// When the database call fails.
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

/// Objects that were marked more than `grace` ago, with their keys. They may be deleted in object storage.
///
/// # Errors
/// When the database call fails.
pub async fn marked(
    session: &mut Session,
    grace: Duration,
    limit: i64,
    now: Option<OffsetDateTime>,
) -> Result<Vec<ObjectKey>, Error> {
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

/// Deletes the rows of objects that are deleted in object storage.
///
/// # Errors
/// When the database call fails.
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

/// Of these keys, with the times of their last write: those without a row that are older than `older_than`.
///
/// # Errors
/// When the database call fails.
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
/// When the database call fails.
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

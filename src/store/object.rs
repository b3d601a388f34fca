//! Table `object`: what is in object storage. A row is written before its upload starts and outlives the object, so that
//! nothing in storage is ever unknown for long: a crash leaves a row without bytes, which is collected.

use super::{Error, Session};
use time::OffsetDateTime;

/// Writes down an object before its upload starts, and returns its id.
///
/// # Errors
/// When the database does not answer or the key exists.
pub async fn insert(session: &mut Session, key: &str, now: Option<OffsetDateTime>) -> Result<i64, Error> {
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
/// refer to it.
///
/// # Errors
/// When the database does not answer.
pub async fn finish(session: &mut Session, object: i64, bytes: i64) -> Result<bool, Error> {
    let finished = sqlx::query(
        "-- object.finish
         UPDATE object SET bytes = $2 WHERE object_id = $1 AND bytes IS NULL AND deleted_at IS NULL",
    )
    .bind(object)
    .bind(bytes)
    .execute(session.run("object.finish"))
    .await?;
    Ok(finished.rows_affected() == 1)
}

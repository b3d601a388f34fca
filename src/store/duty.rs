//! Table `duty`: which node runs each background duty. A duty is held until a time, and only while its holder sends
//! heartbeats, so that the duties of a crashed node become free. The times are the database's (I10).

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Session};

/// A node without a heartbeat for this long holds nothing.
const ALIVE_SECONDS: f64 = 10.0;

/// Takes or extends a duty until `hold` from now; `false`: another node holds it.
///
/// # Errors
/// When the database call fails.
pub async fn hold(
    session: &mut Session,
    duty: &str,
    node: Uuid,
    hold: Duration,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let held = sqlx::query(
        "-- duty.hold
         INSERT INTO duty AS d (name, holder, held_until) VALUES ($1, $2, coalesce($4, now()) + $3 * interval '1 second')
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until
         WHERE d.holder = excluded.holder OR d.held_until <= coalesce($4, now())
            OR NOT EXISTS (SELECT FROM node n WHERE n.node_id = d.holder AND n.seen_at > now() - $5 * interval '1 second')",
    )
    .bind(duty)
    .bind(node)
    .bind(hold.as_secs_f64())
    .bind(now)
    .bind(ALIVE_SECONDS)
    .execute(session.run("duty.hold"))
    .await?;
    Ok(held.rows_affected() == 1)
}

/// Releases a duty if the node holds it.
///
/// # Errors
/// When the database call fails.
pub async fn release(session: &mut Session, duty: &str, node: Uuid) -> Result<(), Error> {
    sqlx::query(
        "-- duty.release
         DELETE FROM duty WHERE name = $1 AND holder = $2",
    )
    .bind(duty)
    .bind(node)
    .execute(session.run("duty.release"))
    .await?;
    Ok(())
}

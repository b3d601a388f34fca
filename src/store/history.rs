//! Which history of the database this node works with. An asynchronous replica that takes over, or a backup that is
//! restored while nodes run, has lost what was committed last: its offsets and ids are given out again, and what nodes
//! remember of them is wrong.
//!
//! **Noticed** on each new connection, before anything runs on it. Two things tell another history:
//! - the identifier of the server, of the database and of its timeline differ from `installation.history`. A promotion
//!   begins a new timeline; a restart after a crash does not, and costs nothing;
//! - the last heartbeat that was confirmed to this node is missing. It tells a backup that was restored on the same
//!   timeline, to the second.
//!
//! **Told apart.** The node that notices it first raises `installation.era`, in one transaction with all sequences.
//! - The id of a message contains the era in which it was published, which its payload has recorded. The new message at the
//!   offset of a lost one has another id, and the id of the lost one is not found.
//! - Sequences go on above `era × 2^24`, leases above `era × 2^32`. So no lane, lease, topic or tenant gets the number of a
//!   lost one: a receipt of the lost history names no lease.
//!
//! **Forgotten.** When this node sees another era, [`Store::when_it_changes`] makes the engine drop what it remembers
//! before the connection is used, and older connections are closed instead of used. A turn that was made for another era
//! than its connection's is refused (`turn`).
//!
//! Not noticed: a backup that is restored on the same timeline while no node runs, because nobody remembers the rest.

use std::fmt;
use std::sync::OnceLock;

use parking_lot::RwLock;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Era;
use super::error::is_one_of;
use super::ids::LEASE_BITS;

/// The history of a store.
#[derive(Default)]
pub(super) struct History {
    seen: RwLock<Seen>,
    /// Held by the connection that turns to another history.
    turning: tokio::sync::Mutex<()>,
    on_change: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// What this node has seen last.
#[derive(Debug, Default, Clone)]
struct Seen {
    installation: Option<Uuid>,
    identity: Option<String>,
    present: Present,
    /// The greatest era that this node has seen.
    greatest: Era,
    /// The last heartbeat that was confirmed, and the node that sent it.
    heartbeat: Option<(Uuid, OffsetDateTime)>,
}

/// The present history, as a node knows it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Present {
    pub(super) era: Era,
    /// How many times this node has turned to another history.
    pub(super) turns: u64,
}

/// What a connection finds.
#[derive(Debug, sqlx::FromRow)]
struct Found {
    installation_id: Uuid,
    /// The history that wrote last; `None`: no node has seen any.
    history: Option<String>,
    era: Era,
    /// The last heartbeat of this node.
    seen_at: Option<OffsetDateTime>,
    /// The server, database and timeline of the connection; `None` on a replica.
    identity: Option<String>,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl History {
    pub(super) fn present(&self) -> Present {
        self.seen.read().present
    }

    pub(super) fn when_it_changes(&self, forget: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_change.set(Box::new(forget));
    }

    /// Records that a heartbeat was confirmed by a connection of this history; `None`: this node ends.
    pub(super) fn confirm(&self, of: Present, heartbeat: Option<(Uuid, OffsetDateTime)>) {
        let mut seen = self.seen.write();
        if seen.present == of {
            seen.heartbeat = heartbeat;
        }
    }

    /// Turns to the era that another node has raised. The connection is of the present history.
    pub(super) fn observe(&self, era: Era) {
        let mut seen = self.seen.write();
        // Before the first connection of a node that starts, everything is still to be learned.
        if seen.identity.is_some() && seen.present.era != era {
            self.turn_to(&mut seen, era);
        }
    }

    /// Finds out to which history a new connection belongs, turns to it if it is another one, and returns it.
    pub(super) async fn check(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Present, sqlx::Error> {
        let before = self.present();
        let Some(found) = self.look(connection).await? else {
            return Ok(before);
        };
        if !self.is_other(&found)? {
            return Ok(before);
        }
        if !self.is_unknown(&found) {
            return Ok(self.adopt(found));
        }
        let _one = self.turning.lock().await;
        let mut tx = connection.begin().await?;
        lock(&mut tx).await?;
        // Another node, or another connection of this one, may have turned meanwhile.
        let Some(mut found) = self.look(&mut tx).await? else {
            return Ok(before);
        };
        if self.has_lost(&found) {
            found.era = found.era.max(self.seen.read().greatest).next();
            raise(&mut tx, &found).await?;
            tracing::warn!(
                history = found.identity,
                era = found.era.get(),
                "the database has another history; what was committed last may be lost, and this node forgets what it \
                 remembered"
            );
        } else if found.history.is_none() {
            record(&mut tx, &found).await?;
        }
        tx.commit().await?;
        Ok(self.adopt(found))
    }

    /// Turns to what a connection has found, if it is not what this node knows.
    fn adopt(&self, found: Found) -> Present {
        let mut seen = self.seen.write();
        let is_first = seen.identity.is_none();
        if seen.present.era != found.era || (!is_first && seen.identity != found.identity) {
            self.turn_to(&mut seen, found.era);
        }
        seen.installation = Some(found.installation_id);
        seen.identity = found.identity;
        seen.present
    }

    fn turn_to(&self, seen: &mut Seen, era: Era) {
        seen.present = Present {
            era,
            turns: seen.present.turns + 1,
        };
        seen.greatest = seen.greatest.max(era);
        seen.heartbeat = None;
        if let Some(forget) = self.on_change.get() {
            forget();
        }
    }

    /// Whether what a connection finds is not what this node has seen last.
    fn is_other(&self, found: &Found) -> Result<bool, sqlx::Error> {
        let seen = self.seen.read();
        if seen
            .installation
            .is_some_and(|installation| installation != found.installation_id)
        {
            let why =
                "the database is of another installation than the one this node was started for";
            return Err(sqlx::Error::Configuration(why.into()));
        }
        let is_same = seen.identity == found.identity && seen.present.era == found.era;
        drop(seen);
        Ok(!is_same || self.has_lost(found))
    }

    /// Whether no node has recorded this history yet.
    fn is_unknown(&self, found: &Found) -> bool {
        found.history.is_none() || self.has_lost(found)
    }

    /// Whether commits are lost that were confirmed before.
    fn has_lost(&self, found: &Found) -> bool {
        let is_other = found.history.is_some() && found.history != found.identity;
        let heartbeat = self.seen.read().heartbeat;
        is_other
            || heartbeat.is_some_and(|(_, at)| found.seen_at.is_none_or(|seen_at| seen_at < at))
    }

    /// What a connection finds; `None` on a replica, and before the first start.
    async fn look(&self, connection: &mut PgConnection) -> Result<Option<Found>, sqlx::Error> {
        let node = self.seen.read().heartbeat.map(|(node, _)| node);
        let found: Option<Found> = match look_with(TIMELINE, connection, node).await {
            // This server does not tell its timeline, or not to this role: heartbeats have to do.
            Err(error) if is_one_of(&error, &["42501", "42883", "0A000"]) => {
                look_with(NO_TIMELINE, connection, node).await?
            }
            // There is no such table or column yet.
            Err(error) if is_one_of(&error, &["42P01", "42703"]) => None,
            found => found?,
        };
        Ok(found.filter(|found| found.identity.is_some()))
    }
}

/// The row, the last heartbeat of the node, and the identity. The file of the log, not the last checkpoint, has the
/// timeline at once after a promotion.
const TIMELINE: &str = "-- history.look
     SELECT i.installation_id, i.history, i.era, (SELECT n.seen_at FROM node n WHERE n.node_id = $1) AS seen_at,
            CASE WHEN NOT pg_is_in_recovery() THEN
                concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
                          (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()),
                          left(pg_walfile_name(pg_current_wal_lsn()), 8))
            END AS identity
     FROM installation i";
const NO_TIMELINE: &str = "-- history.look
     SELECT i.installation_id, i.history, i.era, (SELECT n.seen_at FROM node n WHERE n.node_id = $1) AS seen_at,
            CASE WHEN NOT pg_is_in_recovery() THEN
                (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())::text
            END AS identity
     FROM installation i";

async fn look_with(
    statement: &'static str,
    connection: &mut PgConnection,
    node: Option<Uuid>,
) -> Result<Option<Found>, sqlx::Error> {
    sqlx::query_as(statement)
        .bind(node)
        .persistent(false)
        .fetch_optional(connection)
        .await
}

async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- history.lock
         SELECT FROM installation FOR UPDATE",
    )
    .persistent(false)
    .execute(connection)
    .await?;
    Ok(())
}

/// Records the history of a database that no node has seen before.
async fn record(connection: &mut PgConnection, found: &Found) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- history.record
         UPDATE installation SET history = $1, era = $2",
    )
    .bind(&found.identity)
    .bind(found.era)
    .persistent(false)
    .execute(connection)
    .await?;
    Ok(())
}

/// Begins a new era: no id of the lost history is given out again.
async fn raise(connection: &mut PgConnection, found: &Found) -> Result<(), sqlx::Error> {
    record(connection, found).await?;
    sqlx::query(
        "-- history.raise
         SELECT setval(s.name::regclass, greatest(coalesce(s.last_value, 0) + 1000, $1::bigint << s.bits))
         FROM (
             SELECT format('%I.%I', q.schemaname, q.sequencename) AS name, q.last_value,
                    CASE q.sequencename WHEN 'lease_id_seq' THEN $2 ELSE 24 END AS bits
             FROM pg_sequences q WHERE q.schemaname = current_schema()
         ) s",
    )
    .bind(i64::from(found.era.get()))
    .bind(LEASE_BITS.cast_signed())
    .persistent(false)
    .execute(connection)
    .await?;
    Ok(())
}

//! Tables `hot_payload_0` to `hot_payload_7`: the ring of payloads that are not in object storage yet. The turn inserts;
//! here they are read, weighed and truncated, never updated and never deleted one by one.
//!
//! A payload that is missing proves nothing: the slot may have been truncated since its block was looked up, which also
//! older snapshots see. Whoever misses one reads the block's place again before it believes it.

use time::OffsetDateTime;

use super::{Error, Session};

/// Slots of the ring.
pub const SLOTS: i16 = 8;

/// The same statement for each slot: the name of a table cannot be a parameter.
macro_rules! per_slot {
    ($before:literal, $after:literal) => {
        [
            concat!($before, "hot_payload_0", $after),
            concat!($before, "hot_payload_1", $after),
            concat!($before, "hot_payload_2", $after),
            concat!($before, "hot_payload_3", $after),
            concat!($before, "hot_payload_4", $after),
            concat!($before, "hot_payload_5", $after),
            concat!($before, "hot_payload_6", $after),
            concat!($before, "hot_payload_7", $after),
        ]
    };
}

fn of_slot(statements: [&'static str; SLOTS as usize], slot: i16) -> Result<&'static str, Error> {
    let found = usize::try_from(slot)
        .ok()
        .and_then(|slot| statements.get(slot));
    found.copied().ok_or_else(|| Error::Corrupt {
        table: "block",
        column: "slot",
        row: slot.to_string(),
    })
}

const READ: [&str; SLOTS as usize] = per_slot!(
    "-- hot_payload.read
     SELECT first_offset, data FROM ",
    " WHERE lane_id = $1 AND first_offset = ANY ($2) ORDER BY first_offset, part"
);

/// The payloads of some blocks of a lane, by first offset; what is missing is left out.
///
/// # Errors
/// When the database does not answer.
pub async fn read(
    session: &mut Session,
    slot: i16,
    lane: i64,
    first_offsets: &[i64],
) -> Result<Vec<(i64, Vec<u8>)>, Error> {
    let parts: Vec<(i64, Vec<u8>)> = sqlx::query_as(of_slot(READ, slot)?)
        .bind(lane)
        .bind(first_offsets)
        .fetch_all(session.run("hot_payload.read"))
        .await?;
    let mut payloads: Vec<(i64, Vec<u8>)> = Vec::new();
    for (first_offset, part) in parts {
        match payloads.last_mut() {
            Some((last, data)) if *last == first_offset => data.extend_from_slice(&part),
            _ => payloads.push((first_offset, part)),
        }
    }
    Ok(payloads)
}

/// Bytes of each slot's table, indices aside; 0: truncated.
///
/// # Errors
/// When the database does not answer.
pub async fn sizes(session: &mut Session) -> Result<[i64; SLOTS as usize], Error> {
    let sizes: Vec<i64> = sqlx::query_scalar(
        "-- hot_payload.sizes
         SELECT ARRAY[pg_relation_size('hot_payload_0'), pg_relation_size('hot_payload_1'),
                      pg_relation_size('hot_payload_2'), pg_relation_size('hot_payload_3'),
                      pg_relation_size('hot_payload_4'), pg_relation_size('hot_payload_5'),
                      pg_relation_size('hot_payload_6'), pg_relation_size('hot_payload_7')]",
    )
    .fetch_one(session.run("hot_payload.sizes"))
    .await?;
    sizes.try_into().map_err(|sizes: Vec<i64>| Error::Corrupt {
        table: "hot_payload",
        column: "slot",
        row: sizes.len().to_string(),
    })
}

/// Where a walk through a slot begins: everything that was committed before has a transaction below `horizon` or is in
/// one of `pages`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Walk {
    /// The oldest transaction that may still be running, as text.
    pub horizon: String,
    /// Pages of the table.
    pub pages: i64,
}

const BEGIN_WALK: [&str; SLOTS as usize] = per_slot!(
    // The size is taken after the snapshot: what the snapshot sees is on these pages.
    "-- hot_payload.begin_walk
     SELECT s.horizon, pg_relation_size('",
    "') / current_setting('block_size')::bigint AS pages
     FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS horizon OFFSET 0) s"
);

/// Begins a walk.
///
/// # Errors
/// When the database does not answer.
pub async fn begin_walk(session: &mut Session, slot: i16) -> Result<Walk, Error> {
    Ok(sqlx::query_as(of_slot(BEGIN_WALK, slot)?)
        .fetch_one(session.run("hot_payload.begin_walk"))
        .await?)
}

/// A payload in a slot whose block still refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
pub struct Live {
    /// Lane of the block.
    pub lane_id: i64,
    /// First offset of the block.
    pub first_offset: i64,
    /// Bytes of its payload.
    pub bytes: i64,
    /// When it was published.
    pub published_at: OffsetDateTime,
}

const LIVE: [&str; SLOTS as usize] = per_slot!(
    // OFFSET 0 keeps the look-up a look-up: the planner knows nothing of tables that are truncated all the time, and must
    // not read all blocks to join them.
    "-- hot_payload.live
     SELECT h.lane_id, h.first_offset, b.bytes, b.published_at FROM ",
    " h
     CROSS JOIN LATERAL (
         SELECT k.bytes, k.published_at FROM block k
         WHERE k.lane_id = h.lane_id AND k.first_offset = h.first_offset AND k.slot = $1 OFFSET 0
     ) b
     WHERE h.ctid >= format('(%s,0)', $2::bigint)::tid AND h.ctid < format('(%s,0)', $3::bigint)::tid AND h.part = 0"
);

/// The payloads that begin on some pages of a slot and are still referred to.
///
/// # Errors
/// When the database does not answer.
pub async fn live(
    session: &mut Session,
    slot: i16,
    pages: std::ops::Range<i64>,
) -> Result<Vec<Live>, Error> {
    Ok(sqlx::query_as(of_slot(LIVE, slot)?)
        .bind(slot)
        .bind(pages.start)
        .bind(pages.end)
        .fetch_all(session.run("hot_payload.live"))
        .await?)
}

/// One part of a payload.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Part {
    /// Which of the blocks that were asked for, from 1.
    pub position: i64,
    /// Which part, from 0.
    pub part: i32,
    /// The bytes.
    pub data: Vec<u8>,
}

const PARTS: [&str; SLOTS as usize] = per_slot!(
    "-- hot_payload.parts
     SELECT w.position, h.part, h.data
     FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS w (lane_id, first_offset, position)
     CROSS JOIN LATERAL (
         SELECT x.part, x.data FROM ",
    " x
         WHERE x.lane_id = w.lane_id AND x.first_offset = w.first_offset OFFSET 0
     ) h"
);

/// The parts of some payloads of a slot, in any order; what is missing is left out.
///
/// # Errors
/// When the database does not answer.
pub async fn parts(session: &mut Session, slot: i16, blocks: &[Live]) -> Result<Vec<Part>, Error> {
    Ok(sqlx::query_as(of_slot(PARTS, slot)?)
        .bind(blocks.iter().map(|block| block.lane_id).collect::<Vec<_>>())
        .bind(
            blocks
                .iter()
                .map(|block| block.first_offset)
                .collect::<Vec<_>>(),
        )
        .fetch_all(session.run("hot_payload.parts"))
        .await?)
}

/// Pages of a slot in which the oldest payload is looked for: 2 MiB. A slot that is consumed so far and not emptied yet must
/// not be read as a whole for a figure.
const OLDEST_PAGES: i64 = 256;

const OLDEST: [&str; SLOTS as usize] = per_slot!(
    // In the order of the table, which is about the order of publication: it stops at the first that is referred to.
    "-- hot_payload.oldest
     SELECT extract(epoch FROM coalesce($2, now()) - b.published_at)::float8
     FROM ",
    " h
     CROSS JOIN LATERAL (
         SELECT k.published_at FROM block k
         WHERE k.lane_id = h.lane_id AND k.first_offset = h.first_offset AND k.slot = $1 OFFSET 0
     ) b
     WHERE h.ctid < format('(%s,0)', $3::bigint)::tid AND h.part = 0 LIMIT 1"
);

/// Age in seconds of about the oldest payload of a slot that is still referred to, when it is near the slot's beginning.
///
/// # Errors
/// When the database does not answer.
pub async fn oldest_age(
    session: &mut Session,
    slot: i16,
    now: Option<OffsetDateTime>,
) -> Result<Option<f64>, Error> {
    Ok(sqlx::query_scalar(of_slot(OLDEST, slot)?)
        .bind(slot)
        .bind(now)
        .bind(OLDEST_PAGES)
        .fetch_optional(session.run("hot_payload.oldest"))
        .await?)
}

/// Longest wait for the lock of a slot, and longest hold of it: publishes of a node that lags behind queue up behind it. A
/// slot that grew large while object storage was down takes time to be looked through, if it is ever to be emptied.
const PATIENCE: &str = "-- hot_payload.patience
     SELECT set_config('lock_timeout', '50ms', true),
            set_config('statement_timeout', (2000 + 1000 * $1 / 20000)::text || 'ms', true),
            -- What comes next reads all of the slot, as it is stored.
            set_config('enable_seqscan', 'on', true)";

const LOCK: [&str; SLOTS as usize] = per_slot!(
    "-- hot_payload.lock\nLOCK TABLE ",
    " IN ACCESS EXCLUSIVE MODE"
);

/// Locks a slot of so many pages against all others until the transaction ends; false when others have it, and then the
/// transaction is lost: try again later.
///
/// # Errors
/// When the database does not answer.
pub async fn lock(session: &mut Session, slot: i16, pages: i64) -> Result<bool, Error> {
    sqlx::query(PATIENCE)
        .bind(pages)
        .execute(session.run("hot_payload.patience"))
        .await?;
    let locked = sqlx::query(of_slot(LOCK, slot)?)
        .execute(session.run("hot_payload.lock"))
        .await;
    match locked {
        Ok(_) => Ok(true),
        // 55P03: lock_not_available
        Err(error) if is_code(&error, "55P03") => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_code(error: &sqlx::Error, code: &str) -> bool {
    let found = error.as_database_error().and_then(|error| error.code());
    found.as_deref() == Some(code)
}

const IS_NEEDED: [&str; SLOTS as usize] = per_slot!(
    // Ages grow into the past. What wraps around looks young and is looked up: slower, never wrong.
    "-- hot_payload.is_needed
     SELECT EXISTS (
         SELECT FROM ",
    " h
         CROSS JOIN LATERAL (
             SELECT FROM block k
             WHERE k.lane_id = h.lane_id AND k.first_offset = h.first_offset AND k.slot = $1 OFFSET 0
         ) b
         WHERE h.part = 0 AND age(h.xmin) <= age($2::text::xid8::xid))"
);

/// Whether a block refers to a payload that a transaction of the walk's horizon or a later one put into the slot; `None`
/// when it took too long to find out, and then the transaction is lost.
///
/// # Errors
/// When the database does not answer.
pub async fn is_needed(
    session: &mut Session,
    slot: i16,
    horizon: &str,
) -> Result<Option<bool>, Error> {
    let needed = sqlx::query_scalar(of_slot(IS_NEEDED, slot)?)
        .bind(slot)
        .bind(horizon)
        .fetch_one(session.run("hot_payload.is_needed"))
        .await;
    match needed {
        // 57014: query_canceled; 55P03: lock_not_available
        Err(error) if is_code(&error, "57014") || is_code(&error, "55P03") => Ok(None),
        needed => Ok(Some(needed?)),
    }
}

const TRUNCATE: [&str; SLOTS as usize] = per_slot!("-- hot_payload.truncate\nTRUNCATE TABLE ", "");

/// Empties a slot. The caller holds its lock and knows that no block refers to it.
///
/// # Errors
/// When the database does not answer.
pub async fn truncate(session: &mut Session, slot: i16) -> Result<(), Error> {
    sqlx::query(of_slot(TRUNCATE, slot)?)
        .execute(session.run("hot_payload.truncate"))
        .await?;
    Ok(())
}

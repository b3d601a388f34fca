//! Tables `hot_payload_0` to `hot_payload_7`: the ring of payloads that are not in object storage yet. The turn inserts
//! rows. The statements here read, measure and truncate whole tables; rows are never updated or deleted one by one.
//!
//! A missing payload proves nothing: after the look-up of its block, the slot may have been truncated, which even older
//! snapshots see. On a miss the caller reads the location of the block again before it reports an error.

use time::OffsetDateTime;

use super::error::{is_code, is_one_of};
use super::{Error, LaneId, Offset, Session};

/// Number of slots in the ring.
pub const SLOTS: i16 = 8;

/// The same statement for each slot, because the name of a table cannot be a parameter.
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

/// The payloads of some blocks of a lane, by first offset; missing ones are left out.
///
/// # Errors
/// When the database call fails.
pub async fn read(
    session: &mut Session,
    slot: i16,
    lane: LaneId,
    first_offsets: &[Offset],
) -> Result<Vec<(Offset, Vec<u8>)>, Error> {
    let parts: Vec<(Offset, Vec<u8>)> = sqlx::query_as(of_slot(READ, slot)?)
        .bind(lane)
        .bind(first_offsets)
        .fetch_all(session.run("hot_payload.read"))
        .await?;
    let mut payloads: Vec<(Offset, Vec<u8>)> = Vec::new();
    for (first_offset, part) in parts {
        match payloads.last_mut() {
            Some((last, data)) if *last == first_offset => data.extend_from_slice(&part),
            _ => payloads.push((first_offset, part)),
        }
    }
    Ok(payloads)
}

/// Bytes of each slot's table without indices; 0: truncated.
///
/// # Errors
/// When the database call fails.
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

/// The start of a walk through a slot. Every row that was committed before has a transaction id below `horizon`, or is
/// on one of `pages`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Walk {
    /// The oldest transaction that may still be running, as text.
    pub horizon: String,
    /// Number of pages of the table.
    pub pages: i64,
}

const BEGIN_WALK: [&str; SLOTS as usize] = per_slot!(
    // The size is taken after the snapshot: all rows of the snapshot are on these pages.
    "-- hot_payload.begin_walk
     SELECT s.horizon, pg_relation_size('",
    "') / current_setting('block_size')::bigint AS pages
     FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS horizon OFFSET 0) s"
);

/// Begins a walk through a slot.
///
/// # Errors
/// When the database call fails.
pub async fn begin_walk(session: &mut Session, slot: i16) -> Result<Walk, Error> {
    Ok(sqlx::query_as(of_slot(BEGIN_WALK, slot)?)
        .fetch_one(session.run("hot_payload.begin_walk"))
        .await?)
}

/// A payload in a slot that is still referred to by its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
pub struct Live {
    /// Lane of the block.
    pub lane_id: LaneId,
    /// First offset of the block.
    pub first_offset: Offset,
    /// Bytes of its payload.
    pub bytes: i64,
    /// When it was published.
    pub published_at: OffsetDateTime,
}

const LIVE: [&str; SLOTS as usize] = per_slot!(
    // OFFSET 0 forces one index look-up per row: for tables that are truncated all the time there are no statistics,
    // and the planner must not read all blocks for a join.
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
/// When the database call fails.
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
    /// Position of the block in the list of the caller, from 1.
    pub position: i64,
    /// Number of the part, from 0.
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

/// The parts of some payloads of a slot, in any order; missing ones are left out.
///
/// # Errors
/// When the database call fails.
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

/// Pages of a slot that are read to find the oldest payload: 2 MiB. A large slot that was consumed but not truncated
/// yet must not be read as a whole for a metric.
const OLDEST_PAGES: i64 = 256;

const OLDEST: [&str; SLOTS as usize] = per_slot!(
    // In physical order, which is about the order of publication. The scan stops at the first row that is referred to.
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

/// Age in seconds of the oldest payload of a slot that is still referred to, about; `None` if there is none near the
/// slot's beginning.
///
/// # Errors
/// When the database call fails.
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

/// Longest wait for the lock of a slot, and the time for which it may be held: publishes of a node that still writes to
/// this slot wait behind it. A slot that grew while object storage was down needs the longer time to be scanned.
const PATIENCE: &str = "-- hot_payload.patience
     SELECT set_config('lock_timeout', '50ms', true),
            set_config('statement_timeout', (2000 + 1000 * $1 / 20000)::text || 'ms', true),
            -- The next statement reads the whole slot, in physical order.
            set_config('enable_seqscan', 'on', true)";

const LOCK: [&str; SLOTS as usize] = per_slot!(
    "-- hot_payload.lock\nLOCK TABLE ",
    " IN ACCESS EXCLUSIVE MODE"
);

/// Locks a slot, which has this many pages, against all other transactions until this one ends. `false`: others hold
/// it; this transaction is aborted then, and the caller tries again later.
///
/// # Errors
/// When the database call fails.
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

const IS_NEEDED: [&str; SLOTS as usize] = per_slot!(
    // `age` is the number of transactions since: rows older than the horizon are skipped. A wrapped-around id looks
    // young and is checked: slower, never wrong.
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

/// Whether a block refers to a payload that was inserted by a transaction at or after the walk's horizon. `None`: the
/// check took too long; this transaction is aborted then.
///
/// # Errors
/// When the database call fails.
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
        Err(error) if is_one_of(&error, &["57014", "55P03"]) => Ok(None),
        needed => Ok(Some(needed?)),
    }
}

const TRUNCATE: [&str; SLOTS as usize] = per_slot!("-- hot_payload.truncate\nTRUNCATE TABLE ", "");

/// Truncates a slot. The caller holds its lock and has checked that no block refers to it.
///
/// # Errors
/// When the database call fails.
pub async fn truncate(session: &mut Session, slot: i16) -> Result<(), Error> {
    sqlx::query(of_slot(TRUNCATE, slot)?)
        .execute(session.run("hot_payload.truncate"))
        .await?;
    Ok(())
}

//! Table `block`: the log. The turn inserts blocks, `retention` deletes them. The statements here read them and move
//! their payloads to object storage.
//!
//! Blocks are deleted at the low end of a lane. While an open transaction holds back vacuum, their index entries stay
//! there. So every statement here starts at the lane's start or later, and none scans upwards from below it.

use time::OffsetDateTime;

use super::{Error, LaneId, Offset, Session};

/// A block and the location of its payload: a hot slot, or an object, whose key `object::keys` returns.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct BlockRow {
    /// Its lane.
    pub lane_id: LaneId,
    /// Offset of its first message.
    pub first_offset: Offset,
    /// Number of its messages.
    pub count: i32,
    /// Bytes of the payload.
    pub bytes: i64,
    /// Whether the payload is zstd-compressed.
    pub compressed: bool,
    /// When it was published.
    pub published_at: OffsetDateTime,
    /// The hot slot that holds the payload.
    pub slot: Option<i16>,
    /// The object that holds the payload.
    pub object_id: Option<i64>,
    /// First byte of the payload in the object.
    pub object_offset: Option<i64>,
    /// Bytes of its messages, not compressed.
    pub message_bytes: i64,
}

/// The blocks of a lane that hold offsets of `[from, until)`, in order, at most `limit`.
///
/// # Errors
/// When the database call fails.
pub async fn covering(
    session: &mut Session,
    lane: LaneId,
    from: Offset,
    until: Offset,
    limit: i64,
) -> Result<Vec<BlockRow>, Error> {
    // The bound is a sub-query without outer references: it is evaluated once, and the scan of the key starts there.
    Ok(sqlx::query_as(
        "-- block.covering
         SELECT b.lane_id, b.first_offset, b.count, b.bytes, b.compressed, b.published_at, b.slot, b.object_id,
                b.object_offset, b.message_bytes
         FROM block b
         WHERE b.lane_id = $1 AND b.first_offset < $3
           AND b.first_offset >= (
               SELECT coalesce((SELECT k.first_offset FROM block k
                                WHERE k.lane_id = $1 AND k.first_offset BETWEEN l.start_offset AND $2
                                ORDER BY k.first_offset DESC LIMIT 1), greatest($2, l.start_offset))
               FROM lane l WHERE l.lane_id = $1)
           AND b.first_offset + b.count > $2
         ORDER BY b.first_offset LIMIT $4",
    )
    .bind(lane)
    .bind(from)
    .bind(until)
    .bind(limit)
    .fetch_all(session.run("block.covering"))
    .await?)
}

/// The first offset of a lane that was published at or after `at`; the end of the lane if there is none. `None`: there
/// is no such lane. It is a binary search: times never fall along a lane, so no index on them is needed.
///
/// # Errors
/// When the database call fails.
pub async fn after_time(
    session: &mut Session,
    lane: LaneId,
    at: OffsetDateTime,
) -> Result<Option<Offset>, Error> {
    Ok(sqlx::query_scalar(
        "-- block.after_time
         WITH RECURSIVE search (low, high) AS (
             SELECT l.start_offset,
                    coalesce((SELECT k.first_offset + k.count FROM block k
                              WHERE k.lane_id = l.lane_id ORDER BY k.first_offset DESC LIMIT 1), l.start_offset)
             FROM lane l WHERE l.lane_id = $1
             UNION ALL
             SELECT CASE WHEN m.published_at < $2 THEN m.first_offset + m.count ELSE s.low END,
                    CASE WHEN m.published_at < $2 THEN s.high ELSE m.first_offset END
             FROM search s
             CROSS JOIN LATERAL (
                 SELECT k.first_offset, k.count, k.published_at FROM block k
                 WHERE k.lane_id = $1 AND k.first_offset BETWEEN s.low AND (s.low + s.high) / 2
                 ORDER BY k.first_offset DESC LIMIT 1
             ) m
             WHERE s.low < s.high
         )
         SELECT low FROM search ORDER BY low DESC LIMIT 1",
    )
    .bind(lane)
    .bind(at)
    .fetch_optional(session.run("block.after_time"))
    .await?)
}

/// The next offset of a lane; `None`: there is no such lane.
///
/// # Errors
/// When the database call fails.
pub async fn end(session: &mut Session, lane: LaneId) -> Result<Option<Offset>, Error> {
    Ok(sqlx::query_scalar(
        "-- block.end
         SELECT coalesce((SELECT k.first_offset + k.count FROM block k
                          WHERE k.lane_id = l.lane_id ORDER BY k.first_offset DESC LIMIT 1), l.start_offset)
         FROM lane l WHERE l.lane_id = $1",
    )
    .bind(lane)
    .fetch_optional(session.run("block.end"))
    .await?)
}

/// Returns which of these objects are referred to by a block, with one index look-up per object.
///
/// # Errors
/// When the database call fails.
pub async fn referred(session: &mut Session, objects: &[i64]) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar(
        "-- block.referred
         SELECT o.object_id FROM unnest($1::bigint[]) AS o (object_id)
         CROSS JOIN LATERAL (SELECT FROM block b WHERE b.object_id = o.object_id LIMIT 1) b",
    )
    .bind(objects)
    .fetch_all(session.run("block.referred"))
    .await?)
}

/// The stored bytes of the payloads of these lanes. Reads all of their blocks, so callers run it rarely.
///
/// # Errors
/// When the database call fails.
pub async fn stored_bytes(session: &mut Session, lanes: &[LaneId]) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- block.stored_bytes
         SELECT coalesce(sum(s.bytes), 0)::bigint FROM unnest($1::bigint[]) AS l (lane_id)
         CROSS JOIN LATERAL (SELECT sum(b.bytes) AS bytes FROM block b WHERE b.lane_id = l.lane_id) s",
    )
    .bind(lanes)
    .fetch_one(session.run("block.stored_bytes"))
    .await?)
}

/// The new location of a block's payload in an object.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    /// Lane of the block.
    pub lane_id: LaneId,
    /// First offset of the block.
    pub first_offset: Offset,
    /// The offset of the payload in the object, in bytes.
    pub object_offset: i64,
}

/// Points blocks from a slot to an object and returns their number. Blocks that are gone, or were moved by another
/// node, stay as they are. The statement skips blocks that are locked: waiting for them could deadlock with retention,
/// which deletes blocks in another order. The caller locked the meters of the lanes at the time `at`; from then on the
/// metered bytes count as stored in the object.
///
/// # Errors
/// When the database call fails.
pub async fn point(
    session: &mut Session,
    slot: i16,
    object: i64,
    moved: &[Moved],
    at: OffsetDateTime,
) -> Result<u64, Error> {
    let pointed: i64 = sqlx::query_scalar(
        "-- block.point
         WITH free AS MATERIALIZED (
             SELECT b.lane_id, b.first_offset, m.object_offset
             FROM unnest($3::bigint[], $4::bigint[], $5::bigint[]) AS m (lane_id, first_offset, object_offset)
             CROSS JOIN LATERAL (
                 SELECT k.lane_id, k.first_offset FROM block k
                 WHERE k.lane_id = m.lane_id AND k.first_offset = m.first_offset AND k.slot = $1
                 FOR UPDATE SKIP LOCKED
             ) b
         ), pointed AS (
             UPDATE block k SET slot = NULL, object_id = $2, object_offset = f.object_offset
             FROM free f
             WHERE k.lane_id = f.lane_id AND k.first_offset = f.first_offset AND k.slot = $1
             RETURNING k.lane_id, k.first_offset, k.bytes
         ), lane AS (
             SELECT p.lane_id, sum(p.bytes) AS bytes
             FROM pointed p JOIN lane_meter m ON m.lane_id = p.lane_id AND p.first_offset < m.metered_offset
             GROUP BY p.lane_id
         ), metered AS (
             UPDATE lane_meter m
             SET hot_byte_seconds = m.hot_byte_seconds + m.hot_bytes * greatest(extract(epoch FROM $6 - m.sampled_at), 0),
                 object_byte_seconds = m.object_byte_seconds
                     + m.object_bytes * greatest(extract(epoch FROM $6 - m.sampled_at), 0),
                 hot_bytes = greatest(m.hot_bytes - l.bytes, 0), object_bytes = m.object_bytes + l.bytes,
                 sampled_at = greatest(m.sampled_at, $6)
             FROM lane l WHERE m.lane_id = l.lane_id
         )
         SELECT count(*) FROM pointed",
    )
    .bind(slot)
    .bind(object)
    .bind(moved.iter().map(|m| m.lane_id).collect::<Vec<_>>())
    .bind(moved.iter().map(|m| m.first_offset).collect::<Vec<_>>())
    .bind(moved.iter().map(|m| m.object_offset).collect::<Vec<_>>())
    .bind(at)
    .fetch_one(session.run("block.point"))
    .await?;
    Ok(pointed.unsigned_abs())
}

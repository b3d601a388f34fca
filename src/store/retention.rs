//! The statements of retention. They cover `lane`, `block`, `cursor`, `lease` and `lane_meter` together: they find what
//! can be deleted at the low end of a lane, and delete it without a violation of I2, I5 or I8.
//! `engine/lifecycle/expire.rs` runs them in the order of the locks. The settings of the topics (`topic::Rules`) are
//! read before and passed as arrays.

use std::time::Duration;

use time::OffsetDateTime;

use super::topic::Rules;
use super::{Error, LaneId, Offset, Session, SubscriptionId, TopicId};

/// A lane, as returned by the scan of retention.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct LaneToClear {
    /// The lane.
    pub lane_id: LaneId,
    /// Its topic.
    pub topic_id: TopicId,
    /// Whether its topic is deleted.
    pub closed: bool,
}

/// Lanes in order of id, from the one after `after` on.
///
/// # Errors
/// When the database call fails.
pub async fn lanes(
    session: &mut Session,
    after: LaneId,
    limit: i64,
) -> Result<Vec<LaneToClear>, Error> {
    Ok(sqlx::query_as(
        "-- retention.lanes
         SELECT lane_id, topic_id, closed FROM lane WHERE lane_id > $1 ORDER BY lane_id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(session.run("retention.lanes"))
    .await?)
}

/// What a node remembers of a lane from earlier rounds of retention; `None`: nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct LaneMemory {
    /// No lease of the lane has an earlier deadline. Leases are found by the index on deadlines, from here on. An index
    /// in order of id would scan the entries of deleted leases again in every round, while a long transaction keeps
    /// them.
    pub low: Option<OffsetDateTime>,
    /// The leases of the lane are not read again before this time: even with `low`, there may be hundreds of thousands
    /// of deleted ones.
    pub again: Option<OffsetDateTime>,
    /// Until this time a lease may exist below the lane's start.
    pub suspect: Option<OffsetDateTime>,
}

/// What retention found in a lane.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Prospect {
    /// The lane.
    pub lane_id: LaneId,
    /// Its topic.
    pub topic_id: TopicId,
    /// The database's time.
    pub at: OffsetDateTime,
    /// Whether its leases were read.
    pub is_walked: bool,
    /// Whether its leases were read and there is work: its first block can be deleted, or a cursor or lease is below
    /// its start.
    pub has_work: bool,
    /// The earliest deadline of its leases, if they were read.
    pub deadline: Option<OffsetDateTime>,
    /// The lowest offset that is still needed: the minimum of its cursors and, if they were read, of its leases. It
    /// never falls: claims begin at the cursor, and redelivered messages were in a lease.
    pub floor: Option<Offset>,
    /// The youngest subscription whose cursor and leases the floor includes.
    pub newest: Option<SubscriptionId>,
}

/// The statement of [`prospects`]; a test checks its query plan.
pub const PROSPECTS: &str = "-- retention.prospects
     SELECT l.lane_id, l.topic_id, n.at, d.is_walked, e.deadline, least(f.floor, e.floor) AS floor, f.newest,
            d.is_walked AND (f.behind OR o.is_old OR coalesce(e.behind, false)
                             OR (o.is_consumable AND b.until <= least(f.floor, e.floor))) AS has_work
     FROM (SELECT coalesce($6, now()) AS at) n
     CROSS JOIN unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $7::integer[], $8::boolean[],
                       $9::integer[], $10::integer[])
         AS w (lane_id, low, again, suspect, retention_seconds, keep_consumed, first, last)
     JOIN lane l ON l.lane_id = w.lane_id AND NOT l.closed
     LEFT JOIN LATERAL (
         SELECT k.first_offset + k.count AS until, k.published_at FROM block k
         WHERE k.lane_id = l.lane_id AND k.first_offset >= l.start_offset ORDER BY k.first_offset LIMIT 1
     ) b ON true
     CROSS JOIN LATERAL (
         SELECT min(u.next_offset) AS floor, coalesce(bool_and(u.next_offset IS NOT NULL), false) AS complete,
                coalesce(bool_or(u.next_offset < l.start_offset), false) AS behind, max(s.subscription_id) AS newest
         FROM unnest(($11::bigint[])[w.first:w.last]) AS s (subscription_id)
         LEFT JOIN LATERAL (
             SELECT x.next_offset FROM cursor x
             WHERE x.lane_id = l.lane_id AND x.subscription_id = s.subscription_id ORDER BY x.version DESC LIMIT 1
         ) u ON true
     ) f
     CROSS JOIN LATERAL (
         SELECT coalesce(b.published_at < n.at - w.retention_seconds * interval '1 second', false) AS is_old,
                coalesce(NOT w.keep_consumed AND f.complete AND b.until <= f.floor
                         AND b.published_at <= n.at - $5 * interval '1 second'
                         AND EXISTS (SELECT FROM block k WHERE k.lane_id = l.lane_id AND k.first_offset >= b.until),
                         false) AS is_consumable
     ) o
     -- Reading leases is expensive: only in lanes where they decide, and not in every round.
     CROSS JOIN LATERAL (
         SELECT n.at >= coalesce(w.again, '-infinity')
                AND (n.at < coalesce(w.suspect, 'infinity') OR f.behind OR o.is_old OR o.is_consumable) AS is_walked
     ) d
     CROSS JOIN LATERAL (
         SELECT min(y.base) AS floor, min(y.deadline) AS deadline,
                bool_or(y.base < l.start_offset AND
                        CASE WHEN l.start_offset - y.base >= 64 THEN true
                             ELSE y.pending & ~((-1)::bigint << (l.start_offset - y.base)::integer) <> 0 END) AS behind
         FROM unnest(($11::bigint[])[w.first:w.last]) AS s (subscription_id)
         CROSS JOIN LATERAL (
             SELECT x.base, x.deadline, x.pending FROM lease x
             WHERE x.lane_id = l.lane_id AND x.subscription_id = s.subscription_id
               AND x.attempt >= 0 AND x.deadline >= coalesce(w.low, '-infinity') OFFSET 0
         ) y
         WHERE d.is_walked
     ) e";

/// Rules as arrays of the statement. Each lane has one element per array, and a range of the list of all subscriptions.
#[derive(Debug, Default)]
struct Arrays {
    retention_seconds: Vec<i32>,
    keep_consumed: Vec<bool>,
    first: Vec<i32>,
    last: Vec<i32>,
    subscriptions: Vec<SubscriptionId>,
}

impl Arrays {
    fn of<'a>(rules: impl Iterator<Item = &'a Rules>) -> Self {
        let mut arrays = Self::default();
        let count = |arrays: &Self| i32::try_from(arrays.subscriptions.len()).unwrap_or(i32::MAX);
        for rules in rules {
            arrays.retention_seconds.push(rules.retention_seconds);
            arrays.keep_consumed.push(rules.keep_consumed);
            arrays.first.push(count(&arrays).saturating_add(1));
            arrays.subscriptions.extend(&rules.subscriptions);
            arrays.last.push(count(&arrays));
        }
        arrays
    }
}

/// A lane with what is remembered of it and the rules of its topic.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The lane.
    pub lane_id: LaneId,
    /// What the node remembers of it.
    pub known: LaneMemory,
    /// The rules of its topic, read a moment ago.
    pub rules: &'a Rules,
}

/// Finds which of these lanes have something to delete. The floor leaves out subscriptions that are younger than the
/// rules; they are above `newest`, and [`cuts`] reads their leases.
///
/// # Errors
/// When the database call fails.
pub async fn prospects(
    session: &mut Session,
    lanes: &[Candidate<'_>],
    consumed_age: Duration,
    now: Option<OffsetDateTime>,
) -> Result<Vec<Prospect>, Error> {
    let arrays = Arrays::of(lanes.iter().map(|lane| lane.rules));
    let known = |of: fn(&LaneMemory) -> Option<OffsetDateTime>| {
        lanes.iter().map(|lane| of(&lane.known)).collect::<Vec<_>>()
    };
    Ok(sqlx::query_as(PROSPECTS)
        .bind(lanes.iter().map(|lane| lane.lane_id).collect::<Vec<_>>())
        .bind(known(|known| known.low))
        .bind(known(|known| known.again))
        .bind(known(|known| known.suspect))
        .bind(consumed_age.as_secs_f64())
        .bind(now)
        .bind(arrays.retention_seconds)
        .bind(arrays.keep_consumed)
        .bind(arrays.first)
        .bind(arrays.last)
        .bind(arrays.subscriptions)
        .fetch_all(session.run("retention.prospects"))
        .await?)
}

/// Locks lanes in order of id and returns those that were locked. Without `wait`, lanes that are locked by a publish
/// are skipped.
///
/// # Errors
/// When the database call fails.
pub async fn lock_lanes(
    session: &mut Session,
    lanes: &[LaneId],
    wait: bool,
) -> Result<Vec<LaneId>, Error> {
    let sql = if wait {
        "-- retention.lock_lanes
         SELECT lane_id FROM lane WHERE lane_id = ANY ($1) ORDER BY lane_id FOR UPDATE"
    } else {
        "-- retention.lock_lanes
         SELECT lane_id FROM lane WHERE lane_id = ANY ($1) ORDER BY lane_id FOR UPDATE SKIP LOCKED"
    };
    Ok(sqlx::query_scalar(sql)
        .bind(lanes)
        .fetch_all(session.run("retention.lock_lanes"))
        .await?)
}

/// How far a lane can be deleted.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Cut {
    /// The lane.
    pub lane_id: LaneId,
    /// The current start of the lane.
    pub start: Offset,
    /// The new start: the end of a block, or the current start.
    pub cut: Offset,
    /// Whether a cursor or lease is below the cut.
    pub is_needed: bool,
    /// Whether the scan stopped at its limit.
    pub is_partial: bool,
}

/// How far these locked lanes can be deleted; reads at most `limit` blocks of each. Consumed blocks are deleted below
/// every cursor and lease, except for the last block; blocks past their retention are deleted in any case. The rules
/// must be read after the lanes were locked. A subscription is created under these locks, so none is missed; one that
/// was deleted since only keeps blocks for one more round. The floor of [`prospects`] holds for the subscriptions that
/// it includes. A younger subscription was created before the lane was locked; its leases are read here.
///
/// # Errors
/// When the database call fails.
pub async fn cuts(
    session: &mut Session,
    lanes: &[(Prospect, &Rules)],
    limit: i64,
    now: Option<OffsetDateTime>,
) -> Result<Vec<Cut>, Error> {
    let arrays = Arrays::of(lanes.iter().map(|(_, rules)| *rules));
    Ok(sqlx::query_as(
        "-- retention.cuts
         SELECT l.lane_id, l.start_offset AS start, c.cut, coalesce(f.floor < c.cut, false) AS is_needed,
                c.walked = $3 AND c.cut = c.until AS is_partial
         FROM (SELECT coalesce($4, now()) AS at) n
         CROSS JOIN unnest($1::bigint[], $2::bigint[], $5::bigint[], $6::integer[], $7::boolean[], $8::integer[], $9::integer[])
             AS w (lane_id, floor, newest, retention_seconds, keep_consumed, first, last)
         JOIN lane l ON l.lane_id = w.lane_id AND NOT l.closed
         CROSS JOIN LATERAL (
             SELECT least(w.floor, min(least(u.next_offset, e.base))) AS floor,
                    coalesce(bool_and(u.next_offset IS NOT NULL), false) AS complete
             FROM unnest(($10::bigint[])[w.first:w.last]) AS s (subscription_id)
             LEFT JOIN LATERAL (
                 SELECT x.next_offset FROM cursor x
                 WHERE x.lane_id = l.lane_id AND x.subscription_id = s.subscription_id ORDER BY x.version DESC LIMIT 1
             ) u ON true
             LEFT JOIN LATERAL (
                 SELECT min(y.base) AS base FROM lease y
                 WHERE y.lane_id = l.lane_id AND y.subscription_id = s.subscription_id
                   AND s.subscription_id > coalesce(w.newest, 0)
             ) e ON true
         ) f
         CROSS JOIN LATERAL (
             SELECT count(*) AS walked, max(k.next_offset) AS until,
                    coalesce(max(k.next_offset) FILTER (
                        WHERE k.published_at < n.at - w.retention_seconds * interval '1 second'
                           OR (NOT w.keep_consumed AND f.complete AND k.next_offset <= f.floor
                               AND EXISTS (SELECT FROM block z WHERE z.lane_id = l.lane_id AND z.first_offset = k.next_offset))),
                        l.start_offset) AS cut
             FROM (SELECT i.first_offset + i.count AS next_offset, i.published_at FROM block i
                   WHERE i.lane_id = l.lane_id AND i.first_offset >= l.start_offset ORDER BY i.first_offset LIMIT $3) k
         ) c",
    )
    .bind(lanes.iter().map(|(lane, _)| lane.lane_id).collect::<Vec<_>>())
    .bind(lanes.iter().map(|(lane, _)| lane.floor).collect::<Vec<_>>())
    .bind(limit)
    .bind(now)
    .bind(lanes.iter().map(|(lane, _)| lane.newest).collect::<Vec<_>>())
    .bind(arrays.retention_seconds)
    .bind(arrays.keep_consumed)
    .bind(arrays.first)
    .bind(arrays.last)
    .bind(arrays.subscriptions)
    .fetch_all(session.run("retention.cuts"))
    .await?)
}

/// Clears the messages below the cut from leases, and deletes leases that are empty after that: their receipts are void.
/// With `wait` it waits for settles that hold a lease; without, such leases are left to the next round.
///
/// # Errors
/// When the database call fails.
pub async fn trim_leases(
    session: &mut Session,
    cuts: &[Cut],
    wait: bool,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    /// The same statement with and without waiting.
    macro_rules! trim {
        ($lock:literal) => {
            concat!(
                "-- retention.trim_leases
                 WITH below AS MATERIALIZED (
                     SELECT e.lane_id, e.subscription_id, e.lease_id, e.part, e.pending AS before,
                            NOT e.delayed AND NOT e.waiting AS has_receipts,
                            CASE WHEN c.cut - e.base >= 64 THEN 0
                                 ELSE e.pending & ((-1)::bigint << (c.cut - e.base)::integer) END AS pending
                     FROM unnest($1::bigint[], $2::bigint[]) AS c (lane_id, cut)
                     JOIN lease e ON e.lane_id = c.lane_id AND e.base < c.cut
                     ORDER BY e.lane_id, e.subscription_id, e.lease_id, e.part
                     FOR UPDATE OF e ",
                $lock,
                "
                 ), gone AS (
                     DELETE FROM lease e USING below b
                     WHERE e.lane_id = b.lane_id AND e.subscription_id = b.subscription_id AND e.lease_id = b.lease_id
                       AND e.part = b.part AND b.pending = 0
                 ), lost AS (
                     INSERT INTO lost_lease (lane_id, subscription_id, lease_id, bits, lost_at)
                     SELECT b.lane_id, b.subscription_id, b.lease_id, b.before & ~b.pending, coalesce($3, now()) FROM below b
                     WHERE b.has_receipts AND b.before <> b.pending
                 )
                 UPDATE lease e SET pending = b.pending FROM below b
                 WHERE e.lane_id = b.lane_id AND e.subscription_id = b.subscription_id AND e.lease_id = b.lease_id
                   AND e.part = b.part AND b.pending <> 0 AND e.pending <> b.pending"
            )
        };
    }
    sqlx::query(if wait {
        trim!("")
    } else {
        trim!("SKIP LOCKED")
    })
    .bind(cuts.iter().map(|cut| cut.lane_id).collect::<Vec<_>>())
    .bind(cuts.iter().map(|cut| cut.cut).collect::<Vec<_>>())
    .bind(now)
    .execute(session.run("retention.trim_leases"))
    .await?;
    Ok(())
}

/// Locks the cursors below the cuts and waits for claims that hold them.
///
/// # Errors
/// When the database call fails.
pub async fn lock_cursors(session: &mut Session, cuts: &[Cut]) -> Result<(), Error> {
    sqlx::query(
        "-- retention.lock_cursors
         SELECT FROM unnest($1::bigint[], $2::bigint[]) AS c (lane_id, cut)
         JOIN cursor x ON x.lane_id = c.lane_id AND x.next_offset < c.cut
         ORDER BY x.lane_id, x.subscription_id FOR UPDATE OF x",
    )
    .bind(cuts.iter().map(|cut| cut.lane_id).collect::<Vec<_>>())
    .bind(cuts.iter().map(|cut| cut.cut).collect::<Vec<_>>())
    .execute(session.run("retention.lock_cursors"))
    .await?;
    Ok(())
}

/// Raises the cursors below the cuts. The caller locked them in the statement before, so this snapshot has their latest
/// versions.
///
/// # Errors
/// When the database call fails.
pub async fn raise_cursors(session: &mut Session, cuts: &[Cut]) -> Result<(), Error> {
    sqlx::query(
        "-- retention.raise_cursors
         UPDATE cursor x SET next_offset = c.cut, version = x.version + 1
         FROM unnest($1::bigint[], $2::bigint[]) AS c (lane_id, cut)
         WHERE x.lane_id = c.lane_id AND x.next_offset < c.cut",
    )
    .bind(cuts.iter().map(|cut| cut.lane_id).collect::<Vec<_>>())
    .bind(cuts.iter().map(|cut| cut.cut).collect::<Vec<_>>())
    .execute(session.run("retention.raise_cursors"))
    .await?;
    Ok(())
}

/// Deletes the blocks of locked lanes from their start to the cut, and returns their number. All of them are counted,
/// and the meters of the lanes were locked at the time `at`: from then on these bytes are not stored any more.
///
/// # Errors
/// When the database call fails.
pub async fn delete(session: &mut Session, cuts: &[Cut], at: OffsetDateTime) -> Result<u64, Error> {
    let deleted: i64 = sqlx::query_scalar(
        "-- retention.delete
         WITH gone AS (
             DELETE FROM block k USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS c (lane_id, start, cut)
             WHERE k.lane_id = c.lane_id AND k.first_offset >= c.start AND k.first_offset < c.cut
             RETURNING k.lane_id, k.bytes, k.slot IS NOT NULL AS is_hot
         ), lane AS (
             SELECT g.lane_id, count(*) AS blocks, coalesce(sum(g.bytes) FILTER (WHERE g.is_hot), 0) AS hot,
                    coalesce(sum(g.bytes) FILTER (WHERE NOT g.is_hot), 0) AS object
             FROM gone g GROUP BY g.lane_id
         ), freed AS (
             UPDATE lane_meter m
             SET hot_byte_seconds = m.hot_byte_seconds + m.hot_bytes * greatest(extract(epoch FROM $4 - m.sampled_at), 0),
                 object_byte_seconds = m.object_byte_seconds
                     + m.object_bytes * greatest(extract(epoch FROM $4 - m.sampled_at), 0),
                 hot_bytes = greatest(m.hot_bytes - l.hot, 0), object_bytes = greatest(m.object_bytes - l.object, 0),
                 sampled_at = greatest(m.sampled_at, $4)
             FROM lane l WHERE m.lane_id = l.lane_id
         )
         SELECT coalesce(sum(l.blocks), 0)::bigint FROM lane l",
    )
    .bind(cuts.iter().map(|cut| cut.lane_id).collect::<Vec<_>>())
    .bind(cuts.iter().map(|cut| cut.start).collect::<Vec<_>>())
    .bind(cuts.iter().map(|cut| cut.cut).collect::<Vec<_>>())
    .bind(at)
    .fetch_one(session.run("retention.delete"))
    .await?;
    Ok(deleted.unsigned_abs())
}

/// Raises the start of locked lanes to their cuts.
///
/// # Errors
/// When the database call fails.
pub async fn raise_starts(session: &mut Session, cuts: &[Cut]) -> Result<(), Error> {
    sqlx::query(
        "-- retention.raise_starts
         UPDATE lane l SET start_offset = c.cut FROM unnest($1::bigint[], $2::bigint[]) AS c (lane_id, cut)
         WHERE l.lane_id = c.lane_id AND l.start_offset < c.cut",
    )
    .bind(cuts.iter().map(|cut| cut.lane_id).collect::<Vec<_>>())
    .bind(cuts.iter().map(|cut| cut.cut).collect::<Vec<_>>())
    .execute(session.run("retention.raise_starts"))
    .await?;
    Ok(())
}

/// The end of the first `limit` blocks of a closed lane; `None`: it has no block.
///
/// # Errors
/// When the database call fails.
pub async fn closed_cut(
    session: &mut Session,
    lane: LaneId,
    limit: i64,
) -> Result<Option<Cut>, Error> {
    Ok(sqlx::query_as(
        "-- retention.closed_cut
         SELECT l.lane_id, l.start_offset AS start, c.cut, true AS is_needed, true AS is_partial
         FROM lane l
         CROSS JOIN LATERAL (
             SELECT max(k.next_offset) AS cut
             FROM (SELECT i.first_offset + i.count AS next_offset FROM block i
                   WHERE i.lane_id = l.lane_id AND i.first_offset >= l.start_offset ORDER BY i.first_offset LIMIT $2) k
         ) c
         WHERE l.lane_id = $1 AND l.closed AND c.cut IS NOT NULL",
    )
    .bind(lane)
    .bind(limit)
    .fetch_optional(session.run("retention.closed_cut"))
    .await?)
}

/// Deletes a closed lane that has no blocks, with its leases, cursors and fair orders.
///
/// # Errors
/// When the database call fails.
pub async fn delete_lane(session: &mut Session, lane: LaneId) -> Result<(), Error> {
    sqlx::query(
        "-- retention.delete_lane
         WITH leases AS (DELETE FROM lease WHERE lane_id = $1), cursors AS (DELETE FROM cursor WHERE lane_id = $1),
              orders AS (DELETE FROM fairness WHERE lane_id = $1), lost AS (DELETE FROM lost_lease WHERE lane_id = $1)
         DELETE FROM lane WHERE lane_id = $1 AND closed",
    )
    .bind(lane)
    .execute(session.run("retention.delete_lane"))
    .await?;
    Ok(())
}

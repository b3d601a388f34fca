//! The result of a turn, decoded from the arrays of its statement (`turn.sql`). Positions count from 1 there, and become
//! indices here.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::PgInterval;
use time::OffsetDateTime;
use uuid::Uuid;

use super::dedup::{self, KnownKey};
use super::lease::{Lease, LeaseKey};
use super::turn::{ASIDE_SECONDS, Claim, LeaseChange, TurnInput};
use super::{CursorKey, Error, LaneId, LeaseId, Offset, SubscriptionId};

/// A lease of fresh messages that a claim made.
#[derive(Debug, Clone, Copy)]
pub struct Leased {
    /// Lane.
    pub lane: LaneId,
    /// Subscription.
    pub subscription: SubscriptionId,
    /// Offset of bit 0.
    pub base: Offset,
    /// Number of its messages, 1 to 64.
    pub count: u32,
    /// Its id.
    pub lease: LeaseId,
}

/// The result of a turn.
#[derive(Debug, Clone)]
pub struct TurnOutput {
    /// The database's time.
    pub at: OffsetDateTime,
    /// How long its single block waited for its lane, because another node published to it.
    pub waited: Duration,
    /// First offset of each block; `None`: the lane is gone, or one of its keys is known.
    pub first_offsets: Vec<Option<Offset>>,
    /// Keys that were used before. Blocks with such a key are not inserted.
    pub known: Vec<KnownKey>,
    /// For each change, the bits that were pending and that it changed.
    pub changed: Vec<u64>,
    /// New leases of messages that were set aside, each with the index of the change.
    pub aside: Vec<(usize, Lease)>,
    /// New leases of messages that were due again, each with the index of the claim. Those that are `delayed` have no
    /// attempts left and are set aside.
    pub due: Vec<(usize, Lease)>,
    /// For each claim, the number of leases that are due again, whether or not it could take them. Empty if no claim
    /// scans.
    pub seen: Vec<u32>,
    /// Indices of the claims that could lock their cursor.
    pub tried: Vec<usize>,
    /// Indices of the claims without a cursor: the subscription is deleted.
    pub gone: Vec<usize>,
    /// New leases of fresh messages, in order of lane, subscription and base.
    pub leased: Vec<Leased>,
}

impl TurnOutput {
    /// The result of a turn of one block.
    pub(super) fn of_block(row: &PgRow) -> Result<Self, Error> {
        Ok(Self {
            at: row.try_get("at")?,
            waited: waited(row)?,
            first_offsets: vec![row.try_get("first_offset")?],
            known: Vec::new(),
            changed: Vec::new(),
            aside: Vec::new(),
            due: Vec::new(),
            seen: Vec::new(),
            tried: Vec::new(),
            gone: Vec::new(),
            leased: Vec::new(),
        })
    }

    /// The result of a turn with this input.
    pub(super) fn of_row(row: &PgRow, input: &TurnInput) -> Result<Self, Error> {
        let at = row.try_get("at")?;
        Ok(Self {
            at,
            waited: waited(row)?,
            first_offsets: list(row, "first_offsets")?,
            known: known(row)?,
            changed: changed(row, input.changes.len())?,
            aside: aside(row, at, &input.changes)?,
            due: due(row, at, &input.claims)?,
            seen: list::<i32>(row, "seen")?
                .into_iter()
                .map(i32::unsigned_abs)
                .collect(),
            tried: indices(row, "tried")?,
            gone: indices(row, "gone")?,
            leased: leased(row)?,
        })
    }
}

fn waited(row: &PgRow) -> Result<Duration, Error> {
    let waited: Option<PgInterval> = row.try_get("waited")?;
    let micros = waited.map_or(0, |waited| waited.microseconds.max(0));
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

/// An array, empty if it is null.
fn list<T>(row: &PgRow, column: &str) -> Result<Vec<T>, Error>
where
    Option<Vec<T>>: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let list: Option<Vec<T>> = row.try_get(column)?;
    Ok(list.unwrap_or_default())
}

/// An array of positions as indices.
fn indices(row: &PgRow, column: &str) -> Result<Vec<usize>, Error> {
    let positions: Vec<i32> = list(row, column)?;
    Ok(positions
        .into_iter()
        .filter_map(|position| usize::try_from(position - 1).ok())
        .collect())
}

/// An array of masks.
fn masks(row: &PgRow, column: &str) -> Result<Vec<u64>, Error> {
    let masks: Vec<i64> = list(row, column)?;
    Ok(masks.into_iter().map(i64::cast_unsigned).collect())
}

fn known(row: &PgRow) -> Result<Vec<KnownKey>, Error> {
    let keys: Vec<Uuid> = list(row, "known_key")?;
    let first_offsets: Vec<Offset> = list(row, "known_offset")?;
    let fingerprints: Vec<Option<Uuid>> = list(row, "known_fingerprint")?;
    let results: Vec<Option<Vec<u8>>> = list(row, "known_results")?;
    let stored = first_offsets.into_iter().zip(fingerprints).zip(results);
    Ok(keys
        .into_iter()
        .zip(stored)
        .map(|(key, ((first_offset, fingerprint), stored))| {
            let (era, results) = dedup::era_and_results(stored);
            KnownKey {
                key,
                era,
                first_offset,
                fingerprint,
                results,
            }
        })
        .collect())
}

/// The bits by change. A lease whose messages were split has several rows.
fn changed(row: &PgRow, changes: usize) -> Result<Vec<u64>, Error> {
    let mut all = vec![0; changes];
    for (change, bits) in indices(row, "changed")?
        .into_iter()
        .zip(masks(row, "changed_bits")?)
    {
        if let Some(all) = all.get_mut(change) {
            *all |= bits;
        }
    }
    Ok(all)
}

/// The columns of new leases that begin with `aside_` or `due_`.
struct Columns {
    lease: Vec<LeaseId>,
    base: Vec<Offset>,
    bits: Vec<u64>,
    attempt: Vec<i32>,
    first: Vec<Option<OffsetDateTime>>,
    last: Vec<Option<OffsetDateTime>>,
}

impl Columns {
    fn of(row: &PgRow, prefix: &str) -> Result<Self, Error> {
        let name = |column: &str| format!("{prefix}_{column}");
        Ok(Self {
            lease: list(row, &name("lease"))?,
            base: list(row, &name("base"))?,
            bits: masks(row, &name("bits"))?,
            attempt: list(row, &name("attempt"))?,
            first: list(row, &name("first"))?,
            last: list(row, &name("last"))?,
        })
    }

    /// The lease at an index. `delayed`: it is set aside.
    fn lease(&self, index: usize, of: CursorKey, deadline: OffsetDateTime, delayed: bool) -> Lease {
        Lease {
            key: LeaseKey {
                lane: of.lane,
                subscription: of.subscription,
                lease: self.lease[index],
                part: 0,
            },
            base: self.base[index],
            pending: self.bits[index],
            deadline,
            attempt: self.attempt[index],
            delayed,
            first_failed_at: self.first[index],
            last_failed_at: self.last[index],
            order_key: None,
            waiting: false,
        }
    }
}

fn aside(
    row: &PgRow,
    at: OffsetDateTime,
    changes: &[LeaseChange],
) -> Result<Vec<(usize, Lease)>, Error> {
    let of = indices(row, "aside")?;
    if of.is_empty() {
        return Ok(Vec::new());
    }
    let columns = Columns::of(row, "aside")?;
    let leases = of.into_iter().enumerate().map(|(index, change)| {
        let LeaseChange {
            lane,
            subscription,
            action,
            ..
        } = changes[change];
        let deadline = after(at, action.seconds());
        let of = CursorKey { lane, subscription };
        let lease = columns.lease(index, of, deadline, true);
        (change, lease)
    });
    Ok(leases.collect())
}

fn due(row: &PgRow, at: OffsetDateTime, claims: &[Claim]) -> Result<Vec<(usize, Lease)>, Error> {
    let of = indices(row, "due")?;
    if of.is_empty() {
        return Ok(Vec::new());
    }
    let columns = Columns::of(row, "due")?;
    let is_spent: Vec<bool> = list(row, "due_spent")?;
    let leases = of.into_iter().enumerate().map(|(index, claim)| {
        let Claim {
            lane,
            subscription,
            visibility_seconds,
            ..
        } = claims[claim];
        let seconds = if is_spent[index] {
            ASIDE_SECONDS
        } else {
            visibility_seconds
        };
        let deadline = after(at, seconds);
        let of = CursorKey { lane, subscription };
        let lease = columns.lease(index, of, deadline, is_spent[index]);
        (claim, lease)
    });
    Ok(leases.collect())
}

fn after(at: OffsetDateTime, seconds: u32) -> OffsetDateTime {
    at + time::Duration::seconds(i64::from(seconds))
}

fn leased(row: &PgRow) -> Result<Vec<Leased>, Error> {
    let lanes: Vec<LaneId> = list(row, "leased_lane")?;
    if lanes.is_empty() {
        return Ok(Vec::new());
    }
    let subscriptions: Vec<SubscriptionId> = list(row, "leased_sub")?;
    let bases: Vec<Offset> = list(row, "leased_base")?;
    let pending = masks(row, "leased_pending")?;
    let ids: Vec<LeaseId> = list(row, "leased_id")?;
    let mut leased: Vec<Leased> = (0..lanes.len())
        .map(|i| Leased {
            lane: lanes[i],
            subscription: subscriptions[i],
            base: bases[i],
            count: pending[i].count_ones(),
            lease: ids[i],
        })
        .collect();
    leased.sort_unstable_by_key(|l| (l.lane, l.subscription, l.base));
    Ok(leased)
}

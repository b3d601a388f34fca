//! The statements of the turn: `turn_<version>` with its arguments and results, and `turn_block_<version>` for a single
//! block. `turn.sql` defines both functions and explains their steps and locks. Publishes outside a turn (deduplicated
//! ones, dead letters) run them inside their own transaction, so only one place inserts blocks.

use bytes::Bytes;
use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::{Error, LaneId, LeaseId, Offset, Session, SubscriptionId};

/// The version of `turn.sql`, as a literal for the statements below. Every change of that file raises it by one (see
/// `migrations/README.md`).
macro_rules! version {
    () => {
        1
    };
}

/// The version of `turn.sql` that this program calls.
pub const VERSION: u32 = version!();

/// The text of `turn.sql`.
pub const TEMPLATE: &str = include_str!("turn.sql");

/// Bytes of one part of a hot payload: one row fills one page.
pub const PART_BYTES: usize = 8_096;

/// The location of the payload of a new block.
#[derive(Debug, Clone)]
pub enum NewPlace {
    /// The payload is in the statement and goes to the current hot slot.
    Hot(Bytes),
    /// The payload is an object of its own.
    Object {
        /// Id of the object.
        object_id: i64,
        /// Bytes of the payload.
        bytes: i64,
    },
}

/// The size of the messages of a block. It is the record of their usage and commits with them (I8).
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// Metering units.
    pub units: i32,
    /// Of these, units above the tenant's guarantee (elastic).
    pub elastic_units: i32,
    /// Bytes before compression, attributes included.
    pub message_bytes: i64,
}

/// A block to insert.
#[derive(Debug, Clone)]
pub struct NewBlock {
    /// Its lane.
    pub lane: LaneId,
    /// Number of its messages.
    pub count: i32,
    /// Whether the payload is zstd-compressed.
    pub compressed: bool,
    /// Location of the payload.
    pub place: NewPlace,
    /// Size of its messages.
    pub used: Used,
}

impl NewBlock {
    /// Bytes of the payload.
    fn bytes(&self) -> i64 {
        match &self.place {
            NewPlace::Hot(data) => i64::try_from(data.len()).unwrap_or(i64::MAX),
            NewPlace::Object { bytes, .. } => *bytes,
        }
    }

    /// The object that holds it.
    fn object(&self) -> Option<i64> {
        match self.place {
            NewPlace::Hot(_) => None,
            NewPlace::Object { object_id, .. } => Some(object_id),
        }
    }

    /// The payload, if the statement carries it.
    fn hot(&self) -> Option<&[u8]> {
        match &self.place {
            NewPlace::Hot(data) => Some(data),
            NewPlace::Object { .. } => None,
        }
    }
}

/// Message bits to clear in a lease: a settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clear {
    /// Lane.
    pub lane: LaneId,
    /// Subscription.
    pub subscription: SubscriptionId,
    /// Lease.
    pub lease: LeaseId,
    /// The bits.
    pub mask: u64,
}

/// A claim of fresh messages.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Lane.
    pub lane: LaneId,
    /// Subscription.
    pub subscription: SubscriptionId,
    /// Most messages to claim.
    pub wanted: i32,
    /// Visibility timeout in seconds.
    pub visibility_seconds: i32,
}

/// The input of one turn. The caller sorts blocks by lane (at most one per lane), clears by lane, subscription and
/// lease (at most one per lease), and claims by lane and subscription (at most one per pair). That is the order of the
/// locks.
#[derive(Debug, Clone, Default)]
pub struct TurnInput {
    /// Blocks.
    pub blocks: Vec<NewBlock>,
    /// Settles.
    pub clears: Vec<Clear>,
    /// Claims.
    pub claims: Vec<Claim>,
    /// The hot slot that new payloads are written to.
    pub slot: i16,
}

/// A lease that a claim made.
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

/// Messages of a lease that were pending and that a turn settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The lease.
    pub lease: LeaseId,
    /// The messages, as bits of the lease.
    pub bits: u64,
}

/// The result of a turn.
#[derive(Debug, Clone)]
pub struct TurnOutput {
    /// The database's time.
    pub at: OffsetDateTime,
    /// First offset of each block; `None`: the lane is gone.
    pub first_offsets: Vec<Option<Offset>>,
    /// The messages that this turn settled, by lease.
    pub settled: Vec<Settled>,
    /// Indices of the claims that could lock their cursor.
    pub tried: Vec<usize>,
    /// Indices of the claims without a cursor: the subscription is deleted.
    pub gone: Vec<usize>,
    /// New leases, in order of lane, subscription and base.
    pub leased: Vec<Leased>,
}

/// Runs a turn.
///
/// # Errors
/// When the database call fails: with [`Error::Unavailable`] the outcome is unknown, with any other error nothing is
/// done.
pub async fn run(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    input: &TurnInput,
) -> Result<TurnOutput, Error> {
    match &input.blocks[..] {
        [block]
            if input.clears.is_empty()
                && input.claims.is_empty()
                && block.hot().is_none_or(|data| data.len() <= PART_BYTES) =>
        {
            run_block(session, now, block, input.slot).await
        }
        _ => run_all(session, now, input).await,
    }
}

/// Inserts a single block, with its payload in one part.
async fn run_block(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    block: &NewBlock,
    slot: i16,
) -> Result<TurnOutput, Error> {
    let row = sqlx::query(concat!(
        "-- turn.block\nSELECT * FROM turn_block_",
        version!(),
        "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    ))
    .bind(now)
    .bind(block.lane)
    .bind(block.count)
    .bind(block.bytes())
    .bind(block.compressed)
    .bind(slot)
    .bind(block.object())
    .bind(block.used.units)
    .bind(block.used.elastic_units)
    .bind(block.used.message_bytes)
    .bind(block.hot())
    .fetch_one(session.run("turn.block"))
    .await?;
    Ok(TurnOutput {
        at: row.try_get("at")?,
        first_offsets: vec![row.try_get("first_offset")?],
        settled: Vec::new(),
        tried: Vec::new(),
        gone: Vec::new(),
        leased: Vec::new(),
    })
}

/// Runs a turn with all of its blocks, clears and claims.
async fn run_all(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    input: &TurnInput,
) -> Result<TurnOutput, Error> {
    let blocks = &input.blocks;
    let slots: Vec<Option<i16>> = blocks.iter().map(|b| b.hot().map(|_| input.slot)).collect();
    let used = |of: fn(&Used) -> i32| blocks.iter().map(|b| of(&b.used)).collect::<Vec<_>>();
    let parts = Parts::of(blocks);
    let row = sqlx::query(
        concat!(
            "-- turn.run\nSELECT * FROM turn_", version!(),
            "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
        ),
    )
    .bind(now)
    .bind(blocks.iter().map(|b| b.lane).collect::<Vec<_>>())
    .bind(blocks.iter().map(|b| b.count).collect::<Vec<_>>())
    .bind(blocks.iter().map(NewBlock::bytes).collect::<Vec<_>>())
    .bind(blocks.iter().map(|b| b.compressed).collect::<Vec<_>>())
    .bind(slots)
    .bind(blocks.iter().map(NewBlock::object).collect::<Vec<_>>())
    .bind(used(|used| used.units))
    .bind(used(|used| used.elastic_units))
    .bind(blocks.iter().map(|b| b.used.message_bytes).collect::<Vec<_>>())
    .bind(input.slot)
    .bind(parts.block)
    .bind(parts.part)
    .bind(parts.data)
    .bind(input.clears.iter().map(|c| c.lane).collect::<Vec<_>>())
    .bind(input.clears.iter().map(|c| c.subscription).collect::<Vec<_>>())
    .bind(input.clears.iter().map(|c| c.lease).collect::<Vec<_>>())
    .bind(input.clears.iter().map(|c| c.mask.cast_signed()).collect::<Vec<_>>())
    .bind(input.claims.iter().map(|c| c.lane).collect::<Vec<_>>())
    .bind(input.claims.iter().map(|c| c.subscription).collect::<Vec<_>>())
    .bind(input.claims.iter().map(|c| c.wanted).collect::<Vec<_>>())
    .bind(input.claims.iter().map(|c| c.visibility_seconds).collect::<Vec<_>>())
    .fetch_one(session.run("turn.run"))
    .await?;
    output(&row)
}

fn output(row: &PgRow) -> Result<TurnOutput, Error> {
    let first_offsets: Option<Vec<Option<Offset>>> = row.try_get("first_offsets")?;
    let settled_lease: Option<Vec<LeaseId>> = row.try_get("settled_lease")?;
    let settled_bits: Option<Vec<i64>> = row.try_get("settled_bits")?;
    let bits = settled_bits
        .unwrap_or_default()
        .into_iter()
        .map(i64::cast_unsigned);
    Ok(TurnOutput {
        at: row.try_get("at")?,
        first_offsets: first_offsets.unwrap_or_default(),
        settled: settled_lease
            .unwrap_or_default()
            .into_iter()
            .zip(bits)
            .map(|(lease, bits)| Settled { lease, bits })
            .collect(),
        tried: claims(row, "tried")?,
        gone: claims(row, "gone")?,
        leased: leased(row)?,
    })
}

/// Converts positions of claims, which the statement counts from 1, to indices.
fn claims(row: &PgRow, column: &str) -> Result<Vec<usize>, Error> {
    let positions: Option<Vec<i32>> = row.try_get(column)?;
    Ok(positions
        .unwrap_or_default()
        .into_iter()
        .filter_map(|position| usize::try_from(position - 1).ok())
        .collect())
}

/// The parts of all hot payloads, as arrays of the statement.
#[derive(Default)]
struct Parts<'a> {
    /// Position of the block, from 1.
    block: Vec<i32>,
    part: Vec<i32>,
    data: Vec<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn of(blocks: &'a [NewBlock]) -> Self {
        let mut parts = Self::default();
        for (block, position) in blocks.iter().zip(1..) {
            if let Some(payload) = block.hot() {
                for (data, part) in payload.chunks(PART_BYTES).zip(0..) {
                    parts.block.push(position);
                    parts.part.push(part);
                    parts.data.push(data);
                }
            }
        }
        parts
    }
}

fn leased(row: &PgRow) -> Result<Vec<Leased>, Error> {
    let Some(lanes) = row.try_get::<Option<Vec<LaneId>>, _>("leased_lane")? else {
        return Ok(Vec::new());
    };
    let subscriptions: Vec<SubscriptionId> = row.try_get("leased_sub")?;
    let bases: Vec<Offset> = row.try_get("leased_base")?;
    let pending: Vec<i64> = row.try_get("leased_pending")?;
    let ids: Vec<LeaseId> = row.try_get("leased_id")?;
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

//! The statements of the turn: `turn_<version>` with its arguments and results, and `turn_block_<version>` for a single
//! block. `turn.sql` defines both functions and explains their steps and locks. Dead letters run them inside their own
//! transaction, so only one place inserts blocks. `turn_output` is the result.

use bytes::Bytes;
use time::OffsetDateTime;

use super::dedup::NewKey;
use super::error::is_code;
use super::{Era, Error, LaneId, LeaseId, Session, SubscriptionId};

pub use super::turn_output::{Leased, TurnOutput};

/// The version of `turn.sql`, as a literal for the statements below. Every change of that file raises it by one (see
/// `migrations/README.md`).
macro_rules! version {
    () => {
        4
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
    /// The era that its payload has recorded.
    pub era: Era,
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

/// What a change does with messages of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseAction {
    /// They are done.
    Settle,
    /// They are hidden for this many seconds, and their receipts stay valid.
    Hide(u32),
    /// They failed: they are due again after this many seconds in a new lease, so their receipts are void.
    Return(u32),
    /// They were not handed out after all: they are due again after this many seconds in a new lease, and this does not
    /// count as an attempt.
    GiveBack(u32),
    /// They failed, and the result has the new lease, in which they are hidden for this many seconds.
    SetAside(u32),
}

impl LeaseAction {
    /// Its number in the statement.
    fn kind(self) -> i16 {
        match self {
            Self::Settle => 0,
            Self::Hide(_) => 1,
            Self::Return(_) => 2,
            Self::GiveBack(_) => 3,
            Self::SetAside(_) => 4,
        }
    }

    /// Its delay.
    #[must_use]
    pub fn seconds(self) -> u32 {
        match self {
            Self::Settle => 0,
            Self::Hide(seconds)
            | Self::Return(seconds)
            | Self::GiveBack(seconds)
            | Self::SetAside(seconds) => seconds,
        }
    }
}

/// A change of some messages of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseChange {
    /// Lane.
    pub lane: LaneId,
    /// Subscription.
    pub subscription: SubscriptionId,
    /// Lease.
    pub lease: LeaseId,
    /// What to do.
    pub action: LeaseAction,
    /// The messages, one bit each.
    pub mask: u64,
    /// Attempts after which returned messages are dead letters; `None`: never.
    pub max_attempts: Option<i32>,
}

/// A claim of messages for the receivers of a subscription: first those that are due again, then fresh ones.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Lane.
    pub lane: LaneId,
    /// Subscription.
    pub subscription: SubscriptionId,
    /// Most messages to claim.
    pub wanted: u32,
    /// Most fresh messages among them.
    pub fresh: u32,
    /// Visibility timeout in seconds.
    pub visibility_seconds: u32,
    /// Attempts after which messages are dead letters; `None`: never. Leases with as many are set aside instead of
    /// handed out.
    pub max_attempts: Option<i32>,
    /// Whether to look for messages that are due again.
    pub scan: Option<Scan>,
}

/// How a claim looks for leases that are due again.
#[derive(Debug, Clone, Copy)]
pub struct Scan {
    /// No lease has an earlier deadline. It skips index entries of deleted leases, which stay as long as any transaction
    /// may see them. `None`: not known.
    pub low: Option<OffsetDateTime>,
}

/// The input of one turn. The caller sorts blocks by lane (at most one per lane), changes by lane, subscription, lease
/// and action (at most one of each, with disjoint masks in one lease), and claims by lane and subscription (at most one
/// per pair). That is the order of the locks.
#[derive(Debug, Clone, Default)]
pub struct TurnInput {
    /// Blocks. One of 0 messages only locks its lane, for its keys.
    pub blocks: Vec<NewBlock>,
    /// Keys, each with the index of its block; the index of its message counts from the start of the block.
    pub keys: Vec<(usize, NewKey)>,
    /// Changes of leases.
    pub changes: Vec<LeaseChange>,
    /// Claims.
    pub claims: Vec<Claim>,
    /// The hot slot that new payloads are written to.
    pub slot: i16,
    /// Whether the turn fails as a whole, with [`Error::Strict`], if a lane is gone or a change does not find all of its
    /// messages. Such a turn has changes.
    pub strict: bool,
}

/// The code of the error of a strict turn.
pub(super) const STRICT: &str = "CU001";

/// Leases that are due again and that one claim takes at most.
pub const DUE_LEASES_MAX: u32 = 1_024;

/// For how long a claim sets leases aside whose attempts are used up, in seconds. Messages that are not moved to the
/// dead-letter topic by then are due again.
pub const ASIDE_SECONDS: u32 = 60;

/// Runs a turn.
///
/// # Errors
/// When the session is of another era than a block. When the database call fails: with [`Error::Unavailable`] the
/// outcome is unknown, with any other error nothing is done.
pub async fn run(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    input: &TurnInput,
) -> Result<TurnOutput, Error> {
    let era = session.era();
    if input.blocks.iter().any(|block| block.era != era) {
        return Err(Error::OtherHistory);
    }
    match &input.blocks[..] {
        [block]
            if input.keys.is_empty()
                && input.changes.is_empty()
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
    TurnOutput::of_block(&row)
}

/// Runs a turn with all that it has.
async fn run_all(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    input: &TurnInput,
) -> Result<TurnOutput, Error> {
    let TurnInput {
        blocks,
        keys,
        changes,
        claims,
        slot,
        strict,
    } = input;
    let era = session.era();
    let slots: Vec<Option<i16>> = blocks.iter().map(|b| b.hot().map(|_| *slot)).collect();
    let used = |of: fn(&Used) -> i32| blocks.iter().map(|b| of(&b.used)).collect::<Vec<_>>();
    let parts = Parts::of(blocks);
    let row = sqlx::query(concat!(
        "-- turn.run\nSELECT * FROM turn_",
        version!(),
        "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, \
         $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38)",
    ))
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
    .bind(slot)
    .bind(parts.block)
    .bind(parts.part)
    .bind(parts.data)
    .bind(keys.iter().map(|(block, _)| position(*block)).collect::<Vec<_>>())
    .bind(keys.iter().map(|(_, k)| k.key).collect::<Vec<_>>())
    .bind(keys.iter().map(|(_, k)| k.index.cast_signed()).collect::<Vec<_>>())
    .bind(keys.iter().map(|(_, k)| k.window_seconds).collect::<Vec<_>>())
    // `unnest` fills what is missing with null: `dedup_id`s have neither.
    .bind(if_any(keys.iter().map(|(_, k)| k.fingerprint)))
    .bind(if_any(keys.iter().map(|(_, k)| k.stored_results(era))))
    .bind(changes.iter().map(|c| c.lane).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.subscription).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.lease).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.mask.cast_signed()).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.action.kind()).collect::<Vec<_>>())
    .bind(changes.iter().map(|c| c.action.seconds().cast_signed()).collect::<Vec<_>>())
    .bind(if_any(changes.iter().map(|c| c.max_attempts)))
    .bind(changes.iter().all(|c| c.action == LeaseAction::Settle))
    .bind(strict)
    .bind(claims.iter().map(|c| c.lane).collect::<Vec<_>>())
    .bind(claims.iter().map(|c| c.subscription).collect::<Vec<_>>())
    .bind(claims.iter().map(|c| c.wanted.cast_signed()).collect::<Vec<_>>())
    .bind(claims.iter().map(|c| c.fresh.cast_signed()).collect::<Vec<_>>())
    .bind(claims.iter().map(|c| c.visibility_seconds.cast_signed()).collect::<Vec<_>>())
    .bind(claims.iter().map(|c| c.scan.map(|scan| scan.low.unwrap_or(LONG_AGO))).collect::<Vec<_>>())
    .bind(claims.iter().map(|c| c.max_attempts).collect::<Vec<_>>())
    .bind(claims.iter().any(|c| c.scan.is_some()))
    .bind(ASIDE_SECONDS.cast_signed())
    .fetch_one(session.run("turn.run"))
    .await;
    match row {
        Ok(row) => TurnOutput::of_row(&row, input),
        Err(error) if is_code(&error, STRICT) => Err(Error::Strict),
        Err(error) => Err(error.into()),
    }
}

/// A deadline before all others.
const LONG_AGO: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// All of a column, or nothing if it has no value.
fn if_any<T>(column: impl Iterator<Item = Option<T>> + Clone) -> Vec<Option<T>> {
    if column.clone().any(|value| value.is_some()) {
        column.collect()
    } else {
        Vec::new()
    }
}

/// The statement counts from 1.
fn position(index: usize) -> i32 {
    i32::try_from(index + 1).unwrap_or(i32::MAX)
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
            // The payload of a block of 0 messages is never read, and a later block would begin at the same offset.
            if let Some(payload) = block.hot()
                && block.count > 0
            {
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

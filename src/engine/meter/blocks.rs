//! Duty `meter`: counts what is published. It counts each block of a lane once, from where the last count ended (I8),
//! and posts guaranteed capacity (`capacity`). The duty `expire` deletes blocks and the duty `offload` moves them, so
//! both lock the meters of their lanes and update them in their own transactions ([`lock`], [`count_below`], [`end`]).
//! The result does not depend on which duty, or which node, counts a block.
//!
//! Order of locks: meters by lane, then rows of `usage_hour` for storage; then lanes, leases and cursors (`expire`
//! only); then blocks and rows of `usage_minute`. Meters come first and this duty locks no lane, so a transaction that
//! waits for a meter blocks no publish.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::engine::meter::capacity;
use crate::store::lane_meter::{self, Locked};
use crate::store::retention::Cut;
use crate::store::{self, LaneId, Offset, Session, tenant_meter, usage};

/// Lanes read by one statement.
const LANES: i64 = 1_000;
/// Lanes counted in one transaction.
const LANES_AT_ONCE: usize = 200;
/// Blocks counted in one transaction, divided evenly between its lanes. Bounded because `expire` waits for this
/// transaction.
const BLOCKS: usize = 20_000;
/// Longest pause after a transaction.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Stored bytes over time are posted at least this often, so the usage of storage is this much behind.
const POST_AFTER: Duration = Duration::from_secs(300);
/// A publish stamps its block while it holds the lane lock and then runs at most two statements. Statement and idle
/// timeouts end it, so it commits within this time or not at all. A round therefore sees everything that was published
/// this long before it began.
const COMMIT_WITHIN: Duration = Duration::from_secs(120);

/// Pause after each transaction, as a multiple of its duration. A round reads every lane of the installation, and bills
/// are not urgent. With this factor it takes a twentieth of one core of Postgres, spread evenly.
const PAUSE_FACTOR: u32 = 19;

/// The duty.
#[derive(Debug)]
pub struct Meter {
    pause_factor: u32,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            pause_factor: PAUSE_FACTOR,
        }
    }
}

impl Meter {
    /// The duty without pauses inside a round, for tests.
    #[must_use]
    pub fn without_pauses() -> Self {
        Self { pause_factor: 0 }
    }
}

impl Duty for Meter {
    const NAME: &'static str = "meter";
    const BUSY: Duration = Duration::from_secs(5);
    const IDLE: Duration = Duration::from_secs(5);

    /// Makes one round through all lanes and all guaranteed capacity, and returns how many blocks it counted. Stops
    /// between two transactions.
    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let Context { store, clock } = context;
        let mut done = Done::default();
        let mut session = store.session().await?;
        let began = usage::status(&mut session, clock.now()).await?.at;
        let mut after = LaneId::BEFORE_ALL;
        loop {
            let started = Instant::now();
            let lanes = lane_meter::round(&mut session, after, LANES, began - POST_AFTER).await?;
            self.pause(started, stop).await;
            let Some(last) = lanes.last() else { break };
            after = last.lane_id;
            let due = lanes.iter().filter(|lane| lane.is_due);
            let due: Vec<LaneId> = due.map(|lane| lane.lane_id).collect();
            for lanes in due.chunks(LANES_AT_ONCE) {
                let mut left = lanes.to_vec();
                while !left.is_empty() {
                    if stop.is_cancelled() {
                        return Ok(done);
                    }
                    let started = Instant::now();
                    let mut tx = store.tx("meter").await?;
                    let counted = count_some(&mut tx, clock, &left).await?;
                    tx.commit().await?;
                    done.count += counted.blocks;
                    left = counted.unfinished;
                    self.pause(started, stop).await;
                }
            }
        }
        capacity::post_due(store, clock, began - POST_AFTER, began, stop).await?;
        if stop.is_cancelled() {
            return Ok(done);
        }
        usage::metered(&mut session, began - COMMIT_WITHIN).await?;
        Ok(done)
    }
}

impl Meter {
    /// Pauses after work that began at `started`, so that other work gets the database.
    async fn pause(&self, started: Instant, stop: &CancellationToken) {
        let pause = (started.elapsed() * self.pause_factor).min(PAUSE_MAX);
        if !pause.is_zero() {
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }
}

/// Whether the usage of a window that ended at `end` can no longer change. `metered_until` is the time up to which the
/// last round has counted everything.
///
/// - A publish before `metered_until` is counted, in the minute in which it was published.
/// - A flush (`deliveries`) counts in the minute in which its statement began. A timeout shorter than [`COMMIT_WITHIN`]
///   ends each statement, so one that began before `metered_until` had ended by the end of the last round.
/// - Storage is posted by the first transaction that locks a meter [`POST_AFTER`] or more after it was last posted, and
///   by a round at the latest. So an hour is posted completely once a round began [`POST_AFTER`] after its end.
pub(in crate::engine) fn is_final(
    end: OffsetDateTime,
    has_storage: bool,
    metered_until: OffsetDateTime,
) -> bool {
    let storage = if has_storage {
        POST_AFTER
    } else {
        Duration::ZERO
    };
    end + storage <= metered_until
}

/// Result of counting the blocks of some lanes.
#[derive(Debug, Default)]
struct BlockCount {
    blocks: u64,
    /// Lanes where the limit of blocks at once was reached, which may have more.
    unfinished: Vec<LaneId>,
}

/// Adds the blocks of lanes, whose meters are locked, to the usage of tenants: at most `limit` blocks of each lane, and
/// only those below its offset in `until`.
async fn count(
    tx: &mut Session,
    lanes: &[LaneId],
    until: &[Offset],
    limit: i64,
    at: OffsetDateTime,
) -> Result<BlockCount, store::Error> {
    let rows = lane_meter::count(tx, lanes, until, limit, at).await?;
    let mut of_lane: BTreeMap<LaneId, i64> = BTreeMap::new();
    for row in &rows {
        *of_lane.entry(row.lane_id).or_default() += row.blocks;
    }
    if !rows.is_empty() {
        usage::add_minutes(tx, &rows).await?;
    }
    let unfinished = of_lane.iter().filter(|(_, blocks)| **blocks == limit);
    Ok(BlockCount {
        blocks: of_lane.values().sum::<i64>().unsigned_abs(),
        unfinished: unfinished.map(|(lane, _)| *lane).collect(),
    })
}

async fn count_some(
    tx: &mut Session,
    clock: &Clock,
    lanes: &[LaneId],
) -> Result<BlockCount, store::Error> {
    let Some(locked) = lock(tx, clock, lanes).await? else {
        return Ok(BlockCount::default());
    };
    let lanes: Vec<LaneId> = locked.meters.iter().map(|meter| meter.lane_id).collect();
    let until = vec![Offset::MAX; lanes.len()];
    let limit = i64::try_from(BLOCKS / lanes.len().max(1)).unwrap_or(1);
    count(tx, &lanes, &until, limit, locked.at).await
}

/// The meters that a transaction has locked: at least one.
#[derive(Debug)]
pub(in crate::engine) struct LockedMeters {
    meters: Vec<Locked>,
    /// The time of everything that is posted or counted under these locks.
    pub(in crate::engine) at: OffsetDateTime,
}

/// Locks the meters of lanes, and posts their stored bytes over time when that is due. The time of one hour is always
/// posted before time of the next hour is added. `None` when none of the lanes has a meter any more.
pub(in crate::engine) async fn lock(
    tx: &mut Session,
    clock: &Clock,
    lanes: &[LaneId],
) -> Result<Option<LockedMeters>, store::Error> {
    let meters = lane_meter::lock(tx, lanes, clock.now()).await?;
    let Some(at) = meters.iter().map(|meter| meter.at).max() else {
        return Ok(None);
    };
    let due = meters.iter().filter(|meter| is_post_due(meter, at));
    let due: Vec<LaneId> = due.map(|meter| meter.lane_id).collect();
    if !due.is_empty() {
        post(tx, &due, at).await?;
    }
    Ok(Some(LockedMeters { meters, at }))
}

/// Moves stored bytes over time from locked meters into usage.
async fn post(tx: &mut Session, lanes: &[LaneId], at: OffsetDateTime) -> Result<(), store::Error> {
    let rows = lane_meter::post(tx, lanes, at).await?;
    if !rows.is_empty() {
        usage::add_stored(tx, &rows).await?;
    }
    Ok(())
}

fn is_post_due(meter: &Locked, at: OffsetDateTime) -> bool {
    let hour = |at: OffsetDateTime| at.unix_timestamp().div_euclid(3_600);
    hour(meter.sampled_at) < hour(at) || meter.posted_at + POST_AFTER <= at
}

/// Counts the blocks below some cuts that are not counted yet, before the same transaction deletes them. The
/// transaction has locked the meters and then the lanes.
pub(in crate::engine) async fn count_below(
    tx: &mut Session,
    locked: &LockedMeters,
    cuts: &[Cut],
) -> Result<(), store::Error> {
    let is_uncounted = |cut: &&Cut| {
        let mut meters = locked.meters.iter();
        meters.any(|meter| meter.lane_id == cut.lane_id && meter.metered_offset < cut.cut)
    };
    let uncounted: Vec<&Cut> = cuts.iter().filter(is_uncounted).collect();
    if !uncounted.is_empty() {
        let lanes: Vec<LaneId> = uncounted.iter().map(|cut| cut.lane_id).collect();
        let until: Vec<Offset> = uncounted.iter().map(|cut| cut.cut).collect();
        count(tx, &lanes, &until, i64::MAX, locked.at).await?;
    }
    Ok(())
}

/// Ends the metering of a lane that has no blocks left, before the same transaction deletes it.
pub(in crate::engine) async fn end(
    tx: &mut Session,
    locked: &LockedMeters,
    lane: LaneId,
) -> Result<(), store::Error> {
    post(tx, &[lane], locked.at).await?;
    if let Some(totals) = lane_meter::end(tx, lane).await? {
        tenant_meter::add(tx, &totals).await?;
    }
    Ok(())
}

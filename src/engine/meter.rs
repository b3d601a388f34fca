//! Metering of what is published: the blocks of each lane are counted once, from where the last count ended (I8). The duty
//! walks all lanes; retention, which deletes blocks, and the offloader, which moves them, hold the meters of their lanes and
//! keep them right in their own transactions. Which of them counts a block, and which node, makes no difference.
//!
//! Locks: lanes, leases and cursors (retention only), then the meters in order of lane, then blocks, `usage_hour` for
//! storage, `usage_minute`. The duty locks no lane, so no publish waits for it.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::duty::{Done, DutyError};
use crate::clock::Clock;
use crate::store::lane_meter::{self, Counted, Locked};
use crate::store::retention::Cut;
use crate::store::{self, Session, Store, usage};

/// Lanes looked at by one statement.
const LANES: i64 = 1_000;
/// Lanes counted in one transaction.
const LANES_AT_ONCE: usize = 250;
/// Blocks of a lane counted in one transaction.
const BLOCKS: i64 = 1_000;
/// Bytes over time are posted at least so often: how far the usage of storage lags behind.
const POST_AFTER: Duration = Duration::from_secs(300);
/// A turn that had begun before has committed, or never will: its statement is ended by a timeout. So what was published
/// so long before a round began was seen by it.
const COMMIT_WITHIN: Duration = Duration::from_secs(60);

/// One round through all lanes; counts the blocks counted. Stops between two transactions when told to.
///
/// # Errors
/// When the database does not answer.
pub async fn run(
    store: &Store,
    clock: &Clock,
    stop: &CancellationToken,
) -> Result<Done, DutyError> {
    let mut done = Done::default();
    let mut session = store.session().await?;
    let began = usage::status(&mut session, clock.now()).await?.at;
    let mut after = -1;
    loop {
        let lanes = lane_meter::round(&mut session, after, LANES, began - POST_AFTER).await?;
        let Some(last) = lanes.last() else { break };
        after = last.lane_id;
        let due = lanes.iter().filter(|lane| lane.is_due);
        let due: Vec<i64> = due.map(|lane| lane.lane_id).collect();
        for lanes in due.chunks(LANES_AT_ONCE) {
            let mut more = true;
            while more {
                if stop.is_cancelled() {
                    return Ok(done);
                }
                let mut tx = store.tx("meter").await?;
                let counted = count_all(&mut tx, clock, lanes).await?;
                tx.commit().await?;
                done.count += counted.blocks.unsigned_abs();
                more = counted.more;
            }
        }
    }
    usage::metered(&mut session, began - COMMIT_WITHIN).await?;
    Ok(done)
}

async fn count_all(
    tx: &mut Session,
    clock: &Clock,
    lanes: &[i64],
) -> Result<Counted, store::Error> {
    let Some(held) = hold(tx, clock, lanes).await? else {
        return Ok(Counted::default());
    };
    let lanes: Vec<i64> = held.meters.iter().map(|meter| meter.lane_id).collect();
    let until = vec![i64::MAX; lanes.len()];
    lane_meter::count(tx, &lanes, &until, BLOCKS, held.at).await
}

/// Meters that this transaction has locked.
#[derive(Debug)]
pub(super) struct Held {
    meters: Vec<Locked>,
    /// The time of whatever is done under the lock.
    pub(super) at: OffsetDateTime,
}

/// Locks the meters of lanes, and posts their bytes over time when that is due: always before another hour begins in them.
/// `None`: none of the lanes has a meter, nor a topic that could have one.
pub(super) async fn hold(
    tx: &mut Session,
    clock: &Clock,
    lanes: &[i64],
) -> Result<Option<Held>, store::Error> {
    let mut meters = lane_meter::lock(tx, lanes, clock.now()).await?;
    if meters.len() < lanes.len() {
        // Made by a node that does not meter.
        lane_meter::begin(tx, lanes, clock.now()).await?;
        meters = lane_meter::lock(tx, lanes, clock.now()).await?;
    }
    let Some(at) = meters.iter().map(|meter| meter.at).max() else {
        return Ok(None);
    };
    let due = meters.iter().filter(|meter| is_post_due(meter, at));
    let due: Vec<i64> = due.map(|meter| meter.lane_id).collect();
    if !due.is_empty() {
        lane_meter::post(tx, &due, at).await?;
    }
    Ok(Some(Held { meters, at }))
}

fn is_post_due(meter: &Locked, at: OffsetDateTime) -> bool {
    let hour = |at: OffsetDateTime| at.unix_timestamp().div_euclid(3_600);
    hour(meter.sampled_at) < hour(at) || meter.posted_at + POST_AFTER <= at
}

/// Before the blocks below some cuts are deleted, in the same transaction, which has locked the lanes: counts those that
/// were not counted. Answers the time for their deletion.
pub(super) async fn count_below(
    tx: &mut Session,
    clock: &Clock,
    cuts: &[Cut],
) -> Result<Option<OffsetDateTime>, store::Error> {
    let lanes: Vec<i64> = cuts.iter().map(|cut| cut.lane_id).collect();
    let Some(held) = hold(tx, clock, &lanes).await? else {
        return Ok(None);
    };
    let is_uncounted = |cut: &&Cut| {
        let mut meters = held.meters.iter();
        meters.any(|meter| meter.lane_id == cut.lane_id && meter.metered_offset < cut.cut)
    };
    let uncounted: Vec<&Cut> = cuts.iter().filter(is_uncounted).collect();
    if !uncounted.is_empty() {
        let lanes: Vec<i64> = uncounted.iter().map(|cut| cut.lane_id).collect();
        let until: Vec<i64> = uncounted.iter().map(|cut| cut.cut).collect();
        lane_meter::count(tx, &lanes, &until, i64::MAX, held.at).await?;
    }
    Ok(Some(held.at))
}

/// Ends the metering of a lane without blocks, before it is deleted in the same transaction.
pub(super) async fn end(tx: &mut Session, clock: &Clock, lane: i64) -> Result<(), store::Error> {
    if let Some(held) = hold(tx, clock, &[lane]).await? {
        lane_meter::post(tx, &[lane], held.at).await?;
        lane_meter::end(tx, lane).await?;
    }
    Ok(())
}

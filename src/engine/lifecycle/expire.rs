//! Duty `expire`, which is retention: deletes blocks that every subscription of the topic has consumed, and blocks that
//! are older than the topic's retention. A block that a cursor or lease still needs is deleted only by age (I5), and
//! the same transaction removes its messages from cursors and leases (I2). Blocks are counted before the same
//! transaction deletes them (I8).
//!
//! Locks are taken in the order meters, lanes, leases, cursors; the turn takes the last three in the same order. No
//! transaction waits for a lane while it holds others: lanes that a publish has locked are skipped, and later locked
//! one by one.

use std::collections::HashMap;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::engine::meter::blocks::{self, LockedMeters};
use crate::store::retention::{self, Candidate, Cut, LaneMemory, LaneToClear, Prospect};
use crate::store::topic::{self, Rules};
use crate::store::{self, LaneId, Store, TopicId};

/// Lanes read by one statement.
const LANES: i64 = 1_000;
/// Lanes whose blocks are deleted in one transaction.
const LANES_AT_ONCE: usize = 100;
/// Most blocks of a lane deleted in one transaction.
const BLOCKS: i64 = 1_000;
/// A transaction that sets deadlines reads the time while it holds its locks and then runs at most three statements.
/// Statement and idle timeouts end it, so it commits within this time or not at all.
const COMMIT_WITHIN: Duration = Duration::from_secs(120);

/// When to delete consumed blocks.
#[derive(Debug, Clone)]
pub struct ExpireSettings {
    /// Age of a lane's first consumed block at which its consumed blocks are deleted. It must be several times shorter
    /// than the hot window, because otherwise they are offloaded first. Each deletion costs a version of the lane's row
    /// and a scan of its leases, which is expensive while a long transaction holds back vacuum, so a lane is not
    /// scanned more often than this.
    pub consumed_age: Duration,
}

impl Default for ExpireSettings {
    fn default() -> Self {
        Self {
            consumed_age: Duration::from_secs(5),
        }
    }
}

/// The duty.
#[derive(Debug)]
pub struct Expire {
    settings: ExpireSettings,
    /// What the last round learned of lanes. It only makes a round faster.
    known: HashMap<LaneId, LaneMemory>,
}

impl Expire {
    /// The duty with its settings.
    #[must_use]
    pub fn new(settings: ExpireSettings) -> Self {
        Self {
            settings,
            known: HashMap::new(),
        }
    }
}

impl Duty for Expire {
    const NAME: &'static str = "expire";
    const BUSY: Duration = Duration::from_secs(1);
    const IDLE: Duration = Duration::from_secs(5);
    // A round reads every lane of the installation.
    const PAUSE_FACTOR: u32 = 9;

    /// Makes one round through all lanes, and returns how many blocks it deleted. Stops between two transactions.
    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let Context { store, clock } = context;
        let age = self.settings.consumed_age;
        let mut done = Done::default();
        let mut known = HashMap::new();
        let mut after = LaneId::BEFORE_ALL;
        while !stop.is_cancelled() {
            let mut session = store.session().await?;
            let lanes = retention::lanes(&mut session, after, LANES).await?;
            let Some(last) = lanes.last() else { break };
            after = last.lane_id;
            let (closed, open): (Vec<LaneToClear>, Vec<LaneToClear>) =
                lanes.iter().partition(|lane| lane.closed);
            let of_lane = |lane: &LaneId| self.known.get(lane).copied().unwrap_or_default();
            let rules = rules(&mut session, open.iter().map(|lane| lane.topic_id)).await?;
            // A lane without rules belongs to a topic that was deleted since. The next round deletes it.
            let candidates: Vec<Candidate<'_>> = open
                .iter()
                .filter_map(|lane| {
                    Some(Candidate {
                        lane_id: lane.lane_id,
                        known: of_lane(&lane.lane_id),
                        rules: rules.get(&lane.topic_id)?,
                    })
                })
                .collect();
            let prospects =
                retention::prospects(&mut session, &candidates, age, clock.now()).await?;
            drop(session);
            for prospect in &prospects {
                let after = learn(of_lane(&prospect.lane_id), prospect, age);
                known.insert(prospect.lane_id, after);
            }
            let work: Vec<Prospect> = prospects.iter().filter(|p| p.has_work).copied().collect();
            for lanes in work.chunks(LANES_AT_ONCE) {
                let (deleted, trimmed) = cut(store, clock, lanes, stop).await?;
                done.count += deleted;
                for (lane, at) in trimmed {
                    known.entry(lane).or_default().suspect = Some(at + COMMIT_WITHIN);
                }
            }
            for lane in closed {
                done.count += delete_closed(store, clock, lane.lane_id, stop).await?;
            }
        }
        if !stop.is_cancelled() {
            self.known = known;
        }
        Ok(done)
    }
}

/// The retention rules of these topics now, by topic.
async fn rules(
    session: &mut store::Session,
    topics: impl Iterator<Item = TopicId>,
) -> Result<HashMap<TopicId, Rules>, store::Error> {
    let mut topics: Vec<TopicId> = topics.collect();
    topics.sort_unstable();
    topics.dedup();
    let rules = topic::rules(session, &topics).await?.into_iter();
    Ok(rules.map(|rules| (rules.topic_id, rules)).collect())
}

/// What is known of a lane after this round has read it.
fn learn(before: LaneMemory, prospect: &Prospect, age: Duration) -> LaneMemory {
    if !prospect.is_walked {
        return before;
    }
    // A lease that is made later is due after `prospect.at`, unless its transaction is running now: `COMMIT_WITHIN`
    // covers that case.
    let earliest = prospect
        .deadline
        .map_or(prospect.at, |deadline| deadline.min(prospect.at));
    LaneMemory {
        low: Some(earliest - COMMIT_WITHIN),
        again: Some(prospect.at + age),
        suspect: before.suspect.or(Some(prospect.at)),
    }
}

/// Deletes blocks at the start of lanes: first together in the lanes that no transaction has locked, then in the others
/// one by one. Returns how many blocks were deleted, and the lanes whose leases lost messages, with the time.
async fn cut(
    store: &Store,
    clock: &Clock,
    lanes: &[Prospect],
    stop: &CancellationToken,
) -> Result<(u64, Vec<(LaneId, OffsetDateTime)>), store::Error> {
    let (mut deleted, cuts) = cut_once(store, clock, lanes, false).await?;
    let mut trimmed: Vec<LaneId> = needed(&cuts);
    let (free, locked): (Vec<&Prospect>, Vec<&Prospect>) = lanes
        .iter()
        .partition(|lane| cuts.iter().any(|cut| cut.lane_id == lane.lane_id));
    let is_done = |lane: &Prospect| {
        cuts.iter()
            .any(|cut| cut.lane_id == lane.lane_id && !cut.is_partial)
    };
    for lane in free.into_iter().chain(locked) {
        if is_done(lane) {
            continue;
        }
        while !stop.is_cancelled() {
            let (more, cuts) = cut_once(store, clock, &[*lane], true).await?;
            deleted += more;
            trimmed.extend(needed(&cuts));
            if !cuts.iter().any(|cut| cut.is_partial) {
                break;
            }
        }
    }
    let at = |lane: LaneId| Some(lanes.iter().find(|known| known.lane_id == lane)?.at);
    let trimmed = trimmed.iter().filter_map(|lane| Some((*lane, at(*lane)?)));
    Ok((deleted, trimmed.collect()))
}

/// The lanes of cuts that remove messages which cursors or leases still need.
fn needed(cuts: &[Cut]) -> Vec<LaneId> {
    let needed = cuts.iter().filter(|cut| cut.is_needed);
    needed.map(|cut| cut.lane_id).collect()
}

/// Deletes blocks of some lanes in one transaction. Skips locked lanes, or waits for them when `wait` is true. Returns
/// how many blocks were deleted, and the cuts that were made.
async fn cut_once(
    store: &Store,
    clock: &Clock,
    lanes: &[Prospect],
    wait: bool,
) -> Result<(u64, Vec<Cut>), store::Error> {
    let ids: Vec<LaneId> = lanes.iter().map(|lane| lane.lane_id).collect();
    let mut tx = store.tx("expire").await?;
    let meters = blocks::lock(&mut tx, clock, &ids).await?;
    let locked = retention::lock_lanes(&mut tx, &ids, wait).await?;
    if locked.is_empty() {
        return Ok((0, Vec::new()));
    }
    // Separate statements after the one that locks, so that their snapshots include what was published and subscribed
    // before the locks were granted.
    let lanes: Vec<Prospect> = lanes
        .iter()
        .filter(|lane| locked.contains(&lane.lane_id))
        .copied()
        .collect();
    let rules = rules(&mut tx, lanes.iter().map(|lane| lane.topic_id)).await?;
    let lanes: Vec<(Prospect, &Rules)> = lanes
        .into_iter()
        .filter_map(|lane| Some((lane, rules.get(&lane.topic_id)?)))
        .collect();
    let cuts = retention::cuts(&mut tx, &lanes, BLOCKS, clock.now()).await?;
    let needed: Vec<Cut> = cuts.iter().filter(|cut| cut.is_needed).copied().collect();
    if !needed.is_empty() {
        remove_from_cursors_and_leases(&mut tx, &needed, clock).await?;
    }
    let moving: Vec<Cut> = cuts
        .iter()
        .filter(|cut| cut.cut > cut.start)
        .copied()
        .collect();
    let mut deleted = 0;
    if !moving.is_empty() {
        deleted = delete(&mut tx, meters.as_ref(), &moving).await?;
        retention::raise_starts(&mut tx, &moving).await?;
    }
    tx.commit().await?;
    Ok((deleted, cuts))
}

/// Deletes the blocks below the cuts, after counting them (I8). The caller raises the starts of the lanes afterwards,
/// because a lane that was never counted is counted from its start.
async fn delete(
    tx: &mut store::Session,
    meters: Option<&LockedMeters>,
    cuts: &[Cut],
) -> Result<u64, store::Error> {
    let mut at = OffsetDateTime::UNIX_EPOCH;
    if let Some(meters) = meters {
        blocks::count_below(tx, meters, cuts).await?;
        at = meters.at;
    }
    retention::delete(tx, cuts, at).await
}

/// Removes what is below the cuts from leases and cursors.
///
/// Until the cursors are locked, claims may still make leases below a cut, so leases are trimmed a second time. The
/// second time skips locked leases, because waiting for them while cursors are locked would break the order of locks. A
/// skipped lease stays below the start of its lane, and a later round finds it: the lane is suspect until no
/// transaction of this moment can still be running.
async fn remove_from_cursors_and_leases(
    tx: &mut store::Session,
    cuts: &[Cut],
    clock: &Clock,
) -> Result<(), store::Error> {
    retention::trim_leases(tx, cuts, true, clock.now()).await?;
    retention::lock_cursors(tx, cuts).await?;
    retention::raise_cursors(tx, cuts).await?;
    retention::trim_leases(tx, cuts, false, clock.now()).await
}

/// Deletes the blocks of a closed lane, and then the lane. Returns how many blocks were deleted.
async fn delete_closed(
    store: &Store,
    clock: &Clock,
    lane: LaneId,
    stop: &CancellationToken,
) -> Result<u64, store::Error> {
    let mut deleted = 0;
    while !stop.is_cancelled() {
        let mut tx = store.tx("clear").await?;
        let meters = blocks::lock(&mut tx, clock, &[lane]).await?;
        retention::lock_lanes(&mut tx, &[lane], true).await?;
        match retention::closed_cut(&mut tx, lane, BLOCKS).await? {
            Some(cut) => {
                deleted += delete(&mut tx, meters.as_ref(), &[cut]).await?;
                retention::raise_starts(&mut tx, &[cut]).await?;
                tx.commit().await?;
            }
            None => {
                if let Some(meters) = &meters {
                    blocks::end(&mut tx, meters, lane).await?;
                }
                retention::delete_lane(&mut tx, lane).await?;
                tx.commit().await?;
                break;
            }
        }
    }
    Ok(deleted)
}

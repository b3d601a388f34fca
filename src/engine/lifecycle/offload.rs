//! Moves payloads that are still needed from the hot slots into object storage, many blocks to an object, and truncates a
//! slot when nothing refers to it. Called by the worker; retention runs beside it and deletes what was consumed, so that
//! it costs no PUT. Keeps a payload reachable at every moment (I5): its block points to the object from the commit on that
//! follows the PUT. Holds about one object in memory, and no transaction over a PUT.
//!
//! # Why a slot that is truncated is not needed
//!
//! A node may put payloads into any slot at any time, because its knowledge of the current slot may be old, and a row may
//! land on any page with room. A slot is truncated under its exclusive lock. Then nobody has inserted into it without
//! having committed or rolled back, for inserting takes a lock on the table until the end of the transaction. A payload
//! committed by then was put there by a transaction that
//! - ended before the last walk began. The walk's snapshot or a later one saw its row, on a page that the walk read, and
//!   found that no block referred to it. A block never begins to refer to a slot again: it is inserted with its payload,
//!   once, and offsets are never used twice.
//! - was running then or began later. Its id is not below the oldest that ran when the walk began: `is_needed` reads just
//!   these rows, under the lock.
//!
//! Any block whose payload is found by neither does not exist, and the slot can go.
//!
//! # When a slot is walked through
//!
//! When the hot window of all that is in it is over, so that what is consumed within it costs no PUT and the rest goes in
//! one walk; at once, when slots become scarce. [`Waits`] remembers when that is.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::blob::Blob;
use crate::clock::Clock;
use crate::engine::duty::{Done, DutyError};
use crate::engine::meter::blocks;
use crate::store::block::Moved;
use crate::store::hot_payload::{self, Live, Walk};
use crate::store::installation::{self, Installation};
use crate::store::turn::PART_BYTES;
use crate::store::{self, Store, block, object, session};

/// Pages of a slot looked at by one statement: 16 MiB.
const WINDOW_PAGES: i64 = 2_048;
/// Blocks in one object at most: they are pointed to it by one statement.
const BLOCKS_MAX: usize = 20_000;
/// Bytes of payload read by one statement, about.
const READ_BYTES: i64 = 4 * 1024 * 1024;

/// Walks through a slot in one run. One that moves something is followed by another, because only a walk that finds nothing
/// proves that there is nothing; a slot that nodes go on publishing into is left to the next run.
const WALKS_MAX: usize = 2;

/// How to pack.
#[derive(Debug, Clone)]
pub struct OffloadSettings {
    /// Bytes of an object; the last one of a slot is smaller, and a larger payload gets one of its own.
    pub object_bytes: i64,
    /// How long a payload stays in Postgres in the hope that it is consumed; cut short when slots become scarce.
    pub hot_window: Duration,
}

impl Default for OffloadSettings {
    fn default() -> Self {
        Self {
            object_bytes: 16 * 1024 * 1024,
            hot_window: Duration::from_secs(30),
        }
    }
}

/// How much waits for object storage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Backlog {
    /// Bytes in slots other than the current one, consumed ones that are not truncated yet included.
    pub bytes: i64,
    /// Age of about the oldest payload of them that is still needed.
    pub oldest_age_seconds: f64,
}

/// What offloading works with.
#[derive(Debug, Clone, Copy)]
pub struct Offload<'a> {
    /// The database.
    pub store: &'a Store,
    /// Object storage.
    pub blob: &'a Blob,
    /// The time.
    pub clock: &'a Clock,
    /// How to pack.
    pub settings: &'a OffloadSettings,
}

/// Until when a walk through a slot would be in vain, as far as is known: only saves walks. By the database's clock.
#[derive(Debug, Default)]
pub struct Waits {
    current: Option<i16>,
    until: [Option<OffsetDateTime>; hot_payload::SLOTS as usize],
}

impl Waits {
    /// What is in a slot that was just left has its window before it.
    fn observe(&mut self, ring: &Ring, window: Duration) {
        let left = self.current.replace(ring.installation.hot_slot);
        if let Some(left) = left.filter(|left| *left != ring.installation.hot_slot) {
            self.set(left, Some(ring.at + window));
        }
    }

    fn set(&mut self, slot: i16, until: Option<OffsetDateTime>) {
        let slot = usize::try_from(slot).ok();
        if let Some(kept) = slot.and_then(|slot| self.until.get_mut(slot)) {
            *kept = until;
        }
    }

    fn is_over(&self, slot: i16, at: OffsetDateTime) -> bool {
        let slot = usize::try_from(slot).ok();
        let until = slot.and_then(|slot| self.until.get(slot).copied());
        until.flatten().is_none_or(|until| until <= at)
    }
}

/// The slots that are not current and not empty, oldest first, and whether the ring is running full.
struct Ring {
    at: OffsetDateTime,
    installation: Installation,
    old: Vec<i16>,
    bytes: i64,
    is_pressed: bool,
}

impl Offload<'_> {
    /// Empties the slots that are not current, oldest first, and counts the blocks moved. A slot that fails keeps nobody
    /// from the next. Stops between two objects when told to.
    ///
    /// # Errors
    /// The first one, when the database or object storage does not answer.
    pub async fn run(
        &self,
        waits: &mut Waits,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let mut done = Done::default();
        let mut failed = None;
        let ring = self.ring().await?;
        waits.observe(&ring, self.settings.hot_window);
        for slot in ring.old {
            if stop.is_cancelled() {
                break;
            }
            if let Err(error) = self.empty(slot, waits, stop, &mut done).await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(done), Err)
    }

    async fn empty(
        &self,
        slot: i16,
        waits: &mut Waits,
        stop: &CancellationToken,
        done: &mut Done,
    ) -> Result<(), DutyError> {
        // Looked at again for each slot: the last one may have taken the pressure away.
        let ring = self.ring().await?;
        waits.observe(&ring, self.settings.hot_window);
        let window = if ring.is_pressed {
            Duration::ZERO
        } else {
            self.settings.hot_window
        };
        if !ring.is_pressed && !waits.is_over(slot, ring.at) {
            return Ok(());
        }
        for _ in 0..WALKS_MAX {
            let due = ring.at - window;
            let (moved, youngest) = self.walk(slot, due, &ring.installation, stop).await?;
            waits.set(slot, youngest.map(|at| at + self.settings.hot_window));
            done.count += moved;
            if moved == 0 || stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    /// How much waits.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn backlog(&self) -> Result<Backlog, DutyError> {
        let ring = self.ring().await?;
        let mut session = self.store.session().await?;
        for slot in &ring.old {
            if let Some(age) =
                hot_payload::oldest_age(&mut session, *slot, self.clock.now()).await?
            {
                return Ok(Backlog {
                    bytes: ring.bytes,
                    oldest_age_seconds: age,
                });
            }
        }
        Ok(Backlog {
            bytes: ring.bytes,
            oldest_age_seconds: 0.0,
        })
    }

    async fn ring(&self) -> Result<Ring, DutyError> {
        let mut session = self.store.session().await?;
        let installation = installation::get(&mut session)
            .await?
            .ok_or(DutyError::NotSetUp)?;
        let sizes = hot_payload::sizes(&mut session).await?;
        let at = session::now(&mut session, self.clock.now()).await?;
        let size = |slot: i16| {
            usize::try_from(slot)
                .ok()
                .and_then(|slot| sizes.get(slot))
                .copied()
                .unwrap_or(0)
        };
        let others =
            (1..hot_payload::SLOTS).map(|step| (installation.hot_slot + step) % hot_payload::SLOTS);
        let old: Vec<i16> = others.filter(|slot| size(*slot) > 0).collect();
        let bytes = old.iter().map(|slot| size(*slot)).sum();
        let is_pressed = old.len() * 2 >= sizes.len();
        Ok(Ring {
            at,
            installation,
            old,
            bytes,
            is_pressed,
        })
    }

    /// Walks through a slot once: packs what was published up to `due`, and truncates the slot when nothing in it is
    /// needed. Returns how many blocks it moved, and when the youngest of those it left was published.
    async fn walk(
        &self,
        slot: i16,
        due: OffsetDateTime,
        installation: &Installation,
        stop: &CancellationToken,
    ) -> Result<(u64, Option<OffsetDateTime>), DutyError> {
        let mut session = self.store.session().await?;
        let walk = hot_payload::begin_walk(&mut session, slot).await?;
        drop(session);
        let mut queue = Queue::default();
        let (mut moved, mut is_clean, mut youngest) = (0, true, None);
        for first in (0..walk.pages).step_by(usize::try_from(WINDOW_PAGES).unwrap_or(1)) {
            let pages = first..walk.pages.min(first + WINDOW_PAGES);
            let mut session = self.store.session().await?;
            let live = hot_payload::live(&mut session, slot, pages).await?;
            drop(session);
            is_clean &= live.is_empty();
            youngest = youngest.max(queue.push(live, due));
            while queue.bytes >= self.settings.object_bytes || queue.blocks.len() >= BLOCKS_MAX {
                if stop.is_cancelled() {
                    return Ok((moved, None));
                }
                let blocks = queue.take(self.settings.object_bytes);
                moved += self.pack(slot, installation, &blocks).await?;
            }
        }
        if stop.is_cancelled() {
            return Ok((moved, None));
        }
        if !queue.blocks.is_empty() {
            let blocks = queue.take(self.settings.object_bytes);
            moved += self.pack(slot, installation, &blocks).await?;
        }
        if is_clean {
            self.truncate(slot, &walk).await?;
        }
        Ok((moved, youngest))
    }

    /// Puts blocks into one object and points them to it; returns how many. A crash before the commit leaves an object
    /// that no block refers to, with its row, which the collection finds.
    async fn pack(
        &self,
        slot: i16,
        installation: &Installation,
        blocks: &[Live],
    ) -> Result<u64, DutyError> {
        let (body, moved) = self.read(slot, blocks).await?;
        if moved.is_empty() {
            return Ok(0);
        }
        let key = installation.object_key("pack");
        let mut session = self.store.session().await?;
        let object = object::insert(&mut session, &key, self.clock.now()).await?;
        drop(session);
        let bytes = i64::try_from(body.len()).unwrap_or(i64::MAX);
        self.blob.put(&key, body).await?;
        let mut tx = self.store.tx("offload").await?;
        if !object::finish(&mut tx, object, bytes, self.clock.now()).await? {
            // It took longer than the grace of the collection.
            return Ok(0);
        }
        let mut lanes: Vec<i64> = moved.iter().map(|moved| moved.lane_id).collect();
        lanes.sort_unstable();
        lanes.dedup();
        let held = blocks::hold(&mut tx, self.clock, &lanes).await?;
        // Without meters nobody asks for the time.
        let at = held.map_or(OffsetDateTime::UNIX_EPOCH, |held| held.at);
        let pointed = block::point(&mut tx, slot, object, &moved, at).await?;
        tx.commit().await?;
        tracing::debug!(slot, object, bytes, blocks = pointed, "offloaded");
        Ok(pointed)
    }

    /// The payloads of blocks one after the other, and where each begins.
    async fn read(&self, slot: i16, blocks: &[Live]) -> Result<(Bytes, Vec<Moved>), DutyError> {
        let bytes: i64 = blocks.iter().map(|block| block.bytes).sum();
        let mut body = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        let mut moved = Vec::with_capacity(blocks.len());
        let mut session = self.store.session().await?;
        let mut rest = blocks;
        while !rest.is_empty() {
            let mut bytes = 0;
            let few = rest.iter().take_while(|block| {
                let fits = bytes < READ_BYTES;
                bytes += block.bytes;
                fits
            });
            let (now, later) = rest.split_at(few.count().max(1));
            rest = later;
            let parts = hot_payload::parts(&mut session, slot, now).await?;
            join(&mut body, &mut moved, now, parts);
        }
        Ok((body.into(), moved))
    }

    /// Empties a slot that a clean walk saw, unless something came in since; later, when others have it open.
    async fn truncate(&self, slot: i16, walk: &Walk) -> Result<(), store::Error> {
        let mut tx = self.store.tx("truncate").await?;
        if !hot_payload::lock(&mut tx, slot, walk.pages).await?
            || hot_payload::is_needed(&mut tx, slot, &walk.horizon).await? != Some(false)
        {
            return Ok(());
        }
        hot_payload::truncate(&mut tx, slot).await?;
        tx.commit().await?;
        tracing::debug!(slot, "slot truncated");
        Ok(())
    }
}

/// Blocks found and not packed yet.
#[derive(Default)]
struct Queue {
    blocks: VecDeque<Live>,
    bytes: i64,
}

impl Queue {
    /// Adds what was published up to `due`; answers when the youngest of the others was.
    fn push(&mut self, live: Vec<Live>, due: OffsetDateTime) -> Option<OffsetDateTime> {
        let mut youngest = None;
        for block in live {
            if block.published_at <= due {
                self.bytes += block.bytes;
                self.blocks.push_back(block);
            } else {
                youngest = youngest.max(Some(block.published_at));
            }
        }
        youngest
    }

    /// Blocks for one object, in order of their keys, which is the order in which they are locked and read again later.
    fn take(&mut self, object_bytes: i64) -> Vec<Live> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(block) = self.blocks.front().copied() {
            if taken.len() >= BLOCKS_MAX || (bytes > 0 && bytes + block.bytes > object_bytes) {
                break;
            }
            self.blocks.pop_front();
            bytes += block.bytes;
            taken.push(block);
        }
        self.bytes -= bytes;
        taken.sort_unstable();
        taken
    }
}

/// Puts parts where they belong, in whatever order they came. A block that lacks some is left out: it was moved and its
/// slot truncated while we looked, by a node that did the same.
fn join(
    body: &mut Vec<u8>,
    moved: &mut Vec<Moved>,
    blocks: &[Live],
    parts: Vec<hot_payload::Part>,
) {
    let mut payloads: Vec<(usize, Vec<u8>)> = blocks
        .iter()
        .map(|block| (0, vec![0; usize::try_from(block.bytes).unwrap_or(0)]))
        .collect();
    for part in parts {
        let position = usize::try_from(part.position - 1).ok();
        let start = usize::try_from(part.part)
            .ok()
            .and_then(|part| part.checked_mul(PART_BYTES));
        let Some((filled, payload)) = position.and_then(|position| payloads.get_mut(position))
        else {
            continue;
        };
        if let Some(target) =
            start.and_then(|start| payload.get_mut(start..start + part.data.len()))
        {
            target.copy_from_slice(&part.data);
            *filled += part.data.len();
        }
    }
    for (block, (filled, payload)) in blocks.iter().zip(payloads) {
        if filled != payload.len() {
            tracing::warn!(
                lane = block.lane_id,
                offset = block.first_offset,
                "payload is missing or was moved meanwhile"
            );
            continue;
        }
        let object_offset = i64::try_from(body.len()).unwrap_or(i64::MAX);
        moved.push(Moved {
            lane_id: block.lane_id,
            first_offset: block.first_offset,
            object_offset,
        });
        body.extend_from_slice(&payload);
    }
}

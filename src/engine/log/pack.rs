//! Makes a block for the statements of the store from encoded messages. The payload is compressed when that makes it
//! smaller. Called by the turn, and by the transaction outside the turn that publishes (dead letters).

use std::cell::RefCell;

use bytes::Bytes;

use crate::engine::log::payload::Records;
use crate::engine::meter::measure::Measure;
use crate::store::turn::{NewBlock, NewPlace};
use crate::store::{Era, LaneId};

/// Below this many bytes compression costs more than it saves.
const COMPRESS_BYTES_MIN: usize = 512;
/// zstd level: the fastest, because a turn waits for it.
const COMPRESS_LEVEL: i32 = 1;

thread_local! {
    /// Kept for each thread, because making a compressor costs more than using it.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> =
        RefCell::new(zstd::bulk::Compressor::new(COMPRESS_LEVEL).ok());
}

/// A block whose payload is stored in the database, and that payload uncompressed.
#[must_use]
pub fn hot_block(lane: LaneId, era: Era, records: &Records, measure: Measure) -> (NewBlock, Bytes) {
    let raw = Bytes::from(records.to_payload(era));
    let packed = compress(&raw);
    let block = NewBlock {
        lane,
        era,
        count: i32::try_from(records.len()).unwrap_or(i32::MAX),
        compressed: packed.is_some(),
        place: NewPlace::Hot(packed.map_or_else(|| raw.clone(), Bytes::from)),
        used: measure.into(),
    };
    (block, raw)
}

/// A zstd frame of `raw`; `None` when `raw` is short or the frame is not smaller.
fn compress(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() < COMPRESS_BYTES_MIN {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|compressor| {
        let packed = compressor.as_mut()?.compress(raw).ok()?;
        (packed.len() < raw.len()).then_some(packed)
    })
}

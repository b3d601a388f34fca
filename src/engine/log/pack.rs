//! Makes a block for the statements of the store from encoded messages. The payload is compressed when that makes it
//! smaller. Called by the turn, and by the transaction outside the turn that publishes (dead letters). And unpacks what
//! was compressed.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

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
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> =
        RefCell::new(Compressor::new(COMPRESS_LEVEL).ok());
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = RefCell::new(Decompressor::new().ok());
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

/// What is in a frame that this service made; `None` when the frame is damaged, or has more than `bytes_max`. Frames of
/// clients are not for it: it obeys the size that a frame claims to have.
#[must_use]
pub fn unpack(frame: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let bytes = Decompressor::upper_bound(frame)?;
    if bytes > bytes_max {
        return None;
    }
    DECOMPRESSOR
        .with_borrow_mut(|decompressor| decompressor.as_mut()?.decompress(frame, bytes).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_unpacked_up_to_a_limit_and_only_whole() {
        let raw = [7; 10_000];
        let frame = compress(&raw).unwrap();
        assert_eq!(unpack(&frame, raw.len()).unwrap(), raw);
        assert_eq!(unpack(&frame, raw.len() - 1), None);
        assert_eq!(unpack(&frame[..frame.len() - 1], raw.len()), None);
        assert_eq!(unpack(b"no frame", raw.len()), None);
    }
}

//! Tables `hot_payload_0` to `hot_payload_7`: the ring of payloads that are not in object storage yet. The turn inserts;
//! here they are read, weighed and truncated, never updated and never deleted one by one.
//!
//! A payload that is missing proves nothing: the slot may have been truncated since its block was looked up, which also
//! older snapshots see. Whoever misses one reads the block's place again before it believes it.

use super::{Error, Session};

/// Slots of the ring.
pub const SLOTS: i16 = 8;

/// The same statement for each slot: the name of a table cannot be a parameter.
macro_rules! per_slot {
    ($before:literal, $after:literal) => {
        [
            concat!($before, "hot_payload_0", $after),
            concat!($before, "hot_payload_1", $after),
            concat!($before, "hot_payload_2", $after),
            concat!($before, "hot_payload_3", $after),
            concat!($before, "hot_payload_4", $after),
            concat!($before, "hot_payload_5", $after),
            concat!($before, "hot_payload_6", $after),
            concat!($before, "hot_payload_7", $after),
        ]
    };
}

fn of_slot(statements: [&'static str; SLOTS as usize], slot: i16) -> Result<&'static str, Error> {
    let found = usize::try_from(slot).ok().and_then(|slot| statements.get(slot));
    found.copied().ok_or_else(|| Error::Corrupt { table: "block", column: "slot", row: slot.to_string() })
}

const READ: [&str; SLOTS as usize] = per_slot!(
    "-- hot_payload.read
     SELECT first_offset, data FROM ",
    " WHERE lane_id = $1 AND first_offset = ANY ($2) ORDER BY first_offset, part"
);

/// The payloads of some blocks of a lane, by first offset; what is missing is left out.
///
/// # Errors
/// When the database does not answer.
pub async fn read(
    session: &mut Session,
    slot: i16,
    lane: i64,
    first_offsets: &[i64],
) -> Result<Vec<(i64, Vec<u8>)>, Error> {
    let parts: Vec<(i64, Vec<u8>)> = sqlx::query_as(of_slot(READ, slot)?)
        .bind(lane)
        .bind(first_offsets)
        .fetch_all(session.run("hot_payload.read"))
        .await?;
    let mut payloads: Vec<(i64, Vec<u8>)> = Vec::new();
    for (first_offset, part) in parts {
        match payloads.last_mut() {
            Some((last, data)) if *last == first_offset => data.extend_from_slice(&part),
            _ => payloads.push((first_offset, part)),
        }
    }
    Ok(payloads)
}

//! Message ids: an opaque, sortable text for (lane, era, offset). 20 characters of Crockford's base 32 in lower case
//! encode 40 bits of lane, 16 bits of era and 44 bits of offset. A database that was restored, or that a replica took
//! over, may give out offsets again that messages had which are lost. The era differs then, so an id never becomes the
//! id of another message. There is no `.` in them, so that an id can be a `webhook-id`. An id
//! identifies a message and grants no access.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::text::as_text;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const CHARS: usize = 20;
const OFFSET_BITS: u32 = 44;
const ERA_BITS: u32 = 16;
const LANE_BITS: u32 = 40;

/// Position of a message: its lane, the era in which it was published, and its offset in the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct MessageId {
    /// Lane, 1 to 2^40 − 1.
    pub lane: i64,
    /// Number of the database's history in which it was published; 0 until messages may have been lost.
    pub era: u16,
    /// Offset in the lane, 0 to 2^44 − 1.
    pub offset: i64,
}

/// The text is not a message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message id has 20 characters of 0-9 a-z without i, l, o, u")]
pub struct InvalidId;

impl MessageId {
    /// The id as 20 ASCII characters.
    #[must_use]
    pub fn to_chars(self) -> [u8; CHARS] {
        let bits = (u128::from(self.lane.unsigned_abs()) << (ERA_BITS + OFFSET_BITS))
            | (u128::from(self.era) << OFFSET_BITS)
            | u128::from(self.offset.unsigned_abs());
        std::array::from_fn(|i| {
            let shift = 5 * (CHARS - 1 - i);
            ALPHABET[((bits >> shift) & 31) as usize]
        })
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_chars()).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for MessageId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() != CHARS {
            return Err(InvalidId);
        }
        let mut bits = 0_u128;
        for byte in text.bytes() {
            let digit = ALPHABET.iter().position(|&c| c == byte).ok_or(InvalidId)?;
            bits = (bits << 5) | digit as u128;
        }
        let lane = bits >> (ERA_BITS + OFFSET_BITS) & ((1 << LANE_BITS) - 1);
        let era = bits >> OFFSET_BITS & ((1 << ERA_BITS) - 1);
        let offset = bits & ((1 << OFFSET_BITS) - 1);
        Ok(Self {
            lane: i64::try_from(lane).map_err(|_| InvalidId)?,
            era: u16::try_from(era).map_err(|_| InvalidId)?,
            offset: i64::try_from(offset).map_err(|_| InvalidId)?,
        })
    }
}

as_text! {
    MessageId, InvalidId;
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let chars = self.to_chars();
        serializer.serialize_str(std::str::from_utf8(&chars).map_err(serde::ser::Error::custom)?)
    }
}

impl PartialSchema for MessageId {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[0-9a-hjkmnp-tv-z]{20}$"))
            .examples(["000000010000000002s3"])
            .description(Some("Opaque id of a message"))
            .into()
    }
}

impl ToSchema for MessageId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_sorts_like_its_place() {
        let places = [
            (1, 0, 0),
            (1, 0, 1),
            (1, 0, (1 << 44) - 1),
            (1, 1, 0),
            (1, u16::MAX, 9),
            (2, 0, 0),
            ((1 << 40) - 1, 0, 7),
        ];
        let ids: Vec<_> = places
            .map(|(lane, era, offset)| MessageId { lane, era, offset })
            .to_vec();
        let texts: Vec<_> = ids.iter().map(ToString::to_string).collect();
        assert!(texts.is_sorted());
        for (id, text) in ids.iter().zip(&texts) {
            assert_eq!(text.parse(), Ok(*id));
        }
        for bad in ["", "0", "zzzzzzzzzzzzzzzzzzzu", "ZZZZZZZZZZZZZZZZZZZZ"] {
            assert_eq!(bad.parse::<MessageId>(), Err(InvalidId));
        }
    }
}

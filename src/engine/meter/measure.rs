//! The measure of messages. A message counts one metering unit for each started 64 KiB of its encoded body and
//! attributes, and at least one. A publish stores its measure in its block, and a receive adds it to the tally
//! (`deliveries`). Pure functions.

use api::limits::UNIT_BYTES;

use crate::engine::limit::Capacity;
use crate::store::turn::Used;

/// The measure of some messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measure {
    /// Messages.
    pub messages: u64,
    /// Metering units.
    pub units: u64,
    /// The part of `units` that is above the tenant's guarantee.
    pub elastic_units: u64,
    /// Bytes, attributes included.
    pub bytes: u64,
}

/// Metering units of one message.
#[must_use]
pub fn units(bytes: u64) -> u64 {
    bytes.div_ceil(UNIT_BYTES).max(1)
}

impl Measure {
    /// One message within the guarantee.
    #[must_use]
    pub fn message(bytes: u64) -> Self {
        Self {
            messages: 1,
            units: units(bytes),
            elastic_units: 0,
            bytes,
        }
    }

    /// The same messages with the capacity that they were admitted with.
    #[must_use]
    pub fn under(self, capacity: Capacity) -> Self {
        let elastic_units = match capacity {
            Capacity::Guaranteed => 0,
            Capacity::Elastic => self.units,
        };
        Self {
            elastic_units,
            ..self
        }
    }

    /// The same messages without units, for messages that the service itself moves.
    #[must_use]
    pub fn free(self) -> Self {
        Self {
            units: 0,
            elastic_units: 0,
            ..self
        }
    }

    /// Adds the measure of other messages.
    pub fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.units += other.units;
        self.elastic_units += other.elastic_units;
        self.bytes += other.bytes;
    }
}

impl From<Measure> for Used {
    fn from(measure: Measure) -> Self {
        // The size of a block bounds both far below the maximum.
        let units = |units: u64| i32::try_from(units).unwrap_or(i32::MAX);
        Self {
            units: units(measure.units),
            elastic_units: units(measure.elastic_units),
            message_bytes: i64::try_from(measure.bytes).unwrap_or(i64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_costs_one_unit_per_started_64_kib() {
        for (bytes, expected) in [
            (0, 1),
            (1, 1),
            (65_535, 1),
            (65_536, 1),
            (65_537, 2),
            (131_072, 2),
            (131_073, 3),
            (100 << 20, 1_600),
        ] {
            assert_eq!(units(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn messages_add_up_one_by_one_and_keep_their_capacity() {
        let mut all = Measure::message(10).under(Capacity::Elastic);
        all.add(Measure::message(70_000).under(Capacity::Guaranteed));
        all.add(Measure::message(70_000).under(Capacity::Elastic));
        let expected = Measure {
            messages: 3,
            units: 5,
            elastic_units: 3,
            bytes: 140_010,
        };
        assert_eq!(all, expected);
        let free = all.free();
        assert_eq!((free.messages, free.units, free.elastic_units), (3, 0, 0));
        assert_eq!(free.bytes, all.bytes, "the bytes are stored in any case");
    }
}

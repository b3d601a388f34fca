//! Masks of leases: each bit stands for one message, and bit 0 for the message at the base offset of the lease. Pure
//! functions that every room may use.

/// The lowest `n` bits that are set in `bits`.
#[must_use]
pub fn lowest(bits: u64, n: u32) -> u64 {
    let mut rest = bits;
    for _ in 0..n.min(64) {
        rest &= rest.wrapping_sub(1);
    }
    bits & !rest
}

/// All bits below `bit`.
#[must_use]
pub fn below(bit: i64) -> u64 {
    let bit = u32::try_from(bit.max(0)).unwrap_or(u32::MAX);
    1_u64.checked_shl(bit).map_or(u64::MAX, |above| above - 1)
}

/// The numbers of the bits that are set, in order.
pub fn ones(bits: u64) -> impl Iterator<Item = u8> {
    (0..64_u8).filter(move |bit| bits >> bit & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_covers_the_bits_below() {
        for (bit, mask) in [(-1, 0), (0, 0), (1, 1), (63, u64::MAX >> 1), (64, u64::MAX)] {
            assert_eq!(below(bit), mask, "{bit}");
        }
        assert_eq!(below(i64::MAX), u64::MAX);
    }

    #[test]
    fn ones_are_counted_from_the_base() {
        assert_eq!(ones(1 << 63 | 0b101).collect::<Vec<_>>(), [0, 2, 63]);
    }

    #[test]
    fn the_lowest_bits_are_taken_first() {
        assert_eq!(lowest(0b1011_0000, 2), 0b0011_0000);
        assert_eq!(lowest(u64::MAX, 64), u64::MAX);
        assert_eq!(
            (lowest(1 << 63, 1), lowest(0, 3), lowest(5, 0)),
            (1 << 63, 0, 0)
        );
    }
}

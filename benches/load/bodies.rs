//! Message bodies: 200 bytes of JSON whose values vary from message to message, so that compression has as much work as
//! with real events. Pseudo-random from a seed, so that two runs send the same bytes.

use std::fmt::Write as _;

/// Length of every body, as documented in the README.
pub(crate) const BODY_BYTES: usize = 200;

const CITIES: [&str; 8] = [
    "Aosta",
    "Brundisium",
    "Capua",
    "Genua",
    "Mediolanum",
    "Ostia",
    "Ravenna",
    "Roma",
];
const WORDS: [&str; 12] = [
    "gate", "leave", "parcel", "urgent", "after", "noon", "horse", "rider", "bridge", "north",
    "sealed", "call",
];

/// A splitmix64 generator: short, and random enough for a compressor.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let bound = u64::try_from(from.len()).unwrap_or(1);
        usize::try_from(self.next() % bound)
            .ok()
            .and_then(|at| from.get(at).copied())
            .unwrap_or("")
    }
}

/// An event as an order service might publish it, exactly [`BODY_BYTES`] long.
pub(crate) fn order(random: &mut Random) -> String {
    let mut body = String::with_capacity(BODY_BYTES);
    let _ = write!(
        body,
        r#"{{"order":"{:016x}","customer":{:08},"amount_cents":{},"currency":"EUR","city":"{}","sku":"{:010X}","note":""#,
        random.next(),
        10_000_000 + random.next() % 80_000_000,
        1_000 + random.next() % 900_000,
        random.pick(&CITIES),
        random.next() >> 24,
    );
    let room = BODY_BYTES - 2;
    while body.len() < room {
        body.push_str(random.pick(&WORDS));
        body.push(' ');
    }
    body.truncate(room);
    body.push_str("\"}");
    body
}

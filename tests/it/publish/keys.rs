//! Keys of publishes through the statement of the turn: at random times, with windows of both rings of tables, in turns
//! of several lanes, with and without truncation of old tables. A model has the window of each key.

use std::collections::BTreeMap;

use cursus::store::dedup::{self, KnownKey, LONG_SECONDS, NewKey, SHORT_SECONDS};
use cursus::store::turn::{TurnInput, run};
use cursus::store::{Era, LaneId, Offset};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::harness::log::{Log, hot, noise};
use crate::harness::property::each_case;

const CASES: u32 = 40;
const EVENTS: usize = 40;
/// Different keys of one lane.
const KEYS: u8 = 12;
const LANES: usize = 3;

#[derive(Debug, Clone)]
enum Event {
    /// Time passes.
    Pass(u64),
    /// The tables whose keys are over are truncated.
    Truncate,
    /// One turn, with a block for some lanes.
    Turn([Option<Block>; LANES]),
    /// A lane is closed.
    Close(usize),
}

#[derive(Debug, Clone)]
struct Block {
    messages: u8,
    /// Each key with its window and what is stored with it.
    keys: BTreeMap<u8, Stored>,
}

#[derive(Debug, Clone)]
struct Stored {
    seconds: i32,
    index: u8,
    fingerprint: Option<u128>,
    results: Option<Vec<u8>>,
}

fn event() -> impl Strategy<Value = Event> {
    let (short, long) = (SHORT_SECONDS.unsigned_abs(), LONG_SECONDS.unsigned_abs());
    let seconds = prop_oneof![
        3 => 60..=SHORT_SECONDS,
        1 => Just(SHORT_SECONDS),
        1 => Just(SHORT_SECONDS + 1),
        1 => SHORT_SECONDS + 1..=LONG_SECONDS,
        1 => Just(LONG_SECONDS),
    ];
    // Pairs of numbers of 8 bytes.
    let results = option::of(vec(any::<[u8; 16]>().prop_map(|pair| pair.to_vec()), 1..4));
    let results = results.prop_map(|pairs| pairs.map(|pairs| pairs.concat()));
    let stored = (seconds, any::<u8>(), option::of(any::<u128>()), results).prop_map(
        |(seconds, index, fingerprint, results)| Stored {
            seconds,
            index,
            fingerprint,
            results,
        },
    );
    let keys = proptest::collection::btree_map(0..KEYS, stored, 0..4);
    let messages = prop_oneof![1 => Just(0), 4 => 1..6_u8];
    let block = option::of((messages, keys).prop_map(|(messages, keys)| Block { messages, keys }));
    // Around the ends of windows and of the times of tables, and far beyond.
    let pass = prop_oneof![
        4 => 1..120_u32,
        3 => short - 2..=short + 2,
        2 => 1..4 * short,
        1 => long - 2..=long + 2,
        1 => 1..4 * long,
    ];
    prop_oneof![
        4 => pass.prop_map(|seconds| Event::Pass(seconds.into())),
        2 => Just(Event::Truncate),
        8 => [block.clone(), block.clone(), block].prop_map(Event::Turn),
        1 => (0..20 * LANES).prop_map(Event::Close),
    ]
}

/// A key that was stored.
#[derive(Debug, Clone)]
struct Used {
    until: OffsetDateTime,
    known: KnownKey,
}

#[derive(Default)]
struct World {
    lanes: Vec<LaneId>,
    closed: [bool; LANES],
    /// Where each lane ends.
    ends: [i64; LANES],
    keys: BTreeMap<Uuid, Used>,
}

fn key(lane: LaneId, number: u8) -> Uuid {
    Uuid::from_u128(u128::from(lane.get().unsigned_abs()) << 64 | u128::from(number))
}

impl World {
    async fn new(log: &mut Log, case: u32) -> Self {
        let mut lanes = Vec::new();
        for number in 0..LANES {
            lanes.push(
                log.topic(&format!("t{case}-{number}"), false, 3_600)
                    .await
                    .1,
            );
        }
        Self {
            lanes,
            ..Self::default()
        }
    }

    async fn turn(&mut self, log: &Log, blocks: &[Option<Block>; LANES]) {
        let mut input = TurnInput::default();
        let mut places = Vec::new();
        for (place, block) in blocks.iter().enumerate() {
            // A block of no messages is there for its keys only.
            let Some(block) = block
                .as_ref()
                .filter(|b| b.messages > 0 || !b.keys.is_empty())
            else {
                continue;
            };
            let at = input.blocks.len();
            let keys = block.keys.iter().map(|(number, stored)| {
                let key = NewKey {
                    key: key(self.lanes[place], *number),
                    index: u32::from(stored.index) % u32::from(block.messages.max(1)),
                    window_seconds: stored.seconds,
                    fingerprint: stored.fingerprint.map(Uuid::from_u128),
                    results: stored.results.clone(),
                };
                (at, key)
            });
            input.keys.extend(keys);
            let payload = noise(if block.messages == 0 { 5 } else { 30 });
            input
                .blocks
                .push(hot(self.lanes[place], block.messages.into(), payload));
            places.push(place);
        }
        let mut session = log.store.session().await.unwrap();
        let output = run(&mut session, log.clock.now(), &input).await.unwrap();
        let mut known = output.known;
        known.sort_by_key(|known| known.key);
        assert_eq!(known, self.known(&input, output.at));
        let is_known = |key: &NewKey| known.iter().any(|known| known.key == key.key);
        for (at, place) in places.into_iter().enumerate() {
            let keys = input
                .keys
                .iter()
                .filter(|(block, _)| *block == at)
                .map(|(_, key)| key);
            let is_held = keys.clone().any(is_known) || self.closed[place];
            let first = Offset::new(self.ends[place]);
            assert_eq!(
                output.first_offsets[at],
                (!is_held).then_some(first),
                "{place}"
            );
            if is_held {
                continue;
            }
            self.ends[place] += i64::from(input.blocks[at].count);
            for key in keys {
                let known = KnownKey {
                    key: key.key,
                    era: Era::FIRST,
                    first_offset: first.plus(key.index.into()),
                    fingerprint: key.fingerprint,
                    results: key.results.clone(),
                };
                let until = output.at + Duration::seconds(key.window_seconds.into());
                self.keys.insert(key.key, Used { until, known });
            }
        }
    }

    /// The keys of a turn whose windows are not over, sorted.
    fn known(&self, input: &TurnInput, at: OffsetDateTime) -> Vec<KnownKey> {
        let used = input
            .keys
            .iter()
            .filter_map(|(_, key)| self.keys.get(&key.key));
        let used = used.filter(|used| used.until > at);
        let mut known: Vec<KnownKey> = used.map(|used| used.known.clone()).collect();
        known.sort_by_key(|known| known.key);
        known
    }

    async fn close(&mut self, log: &mut Log, place: usize) {
        let Some(closed) = self.closed.get_mut(place) else {
            return;
        };
        *closed = true;
        let lane = self.lanes[place];
        log.run(&format!(
            "UPDATE lane SET closed = true WHERE lane_id = {lane}"
        ))
        .await;
    }

    async fn check(&self, log: &Log) {
        for (lane, end) in self.lanes.iter().zip(self.ends) {
            let blocks = log.blocks(*lane).await;
            assert_eq!(blocks.last().map_or(0, |(_, end)| *end), end);
        }
    }
}

async fn truncate(log: &Log) {
    let mut session = log.store.session().await.unwrap();
    for table in dedup::over(&mut session, log.clock.now()).await.unwrap() {
        let mut tx = log.store.tx("truncate").await.unwrap();
        assert!(dedup::truncate(&mut tx, table).await.unwrap());
        tx.commit().await.unwrap();
    }
}

#[test]
fn a_key_is_known_exactly_within_its_window() {
    each_case(CASES, EVENTS, event(), async |log, case, events| {
        let mut world = World::new(log, case).await;
        for event in events {
            match event {
                Event::Pass(seconds) => log.clock.advance(std::time::Duration::from_secs(*seconds)),
                Event::Truncate => truncate(log).await,
                Event::Turn(blocks) => world.turn(log, blocks).await,
                Event::Close(place) => world.close(log, *place).await,
            }
        }
        world.check(log).await;
    });
}

/// As after a failover to a server whose clock is behind.
#[tokio::test]
async fn a_key_is_known_when_time_steps_back_over_the_end_of_a_table() {
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    let long = i64::from(LONG_SECONDS);
    let now = log.clock.now().unwrap().unix_timestamp();
    let boundary = OffsetDateTime::from_unix_timestamp((now / long + 1) * long).unwrap();
    let mut session = log.store.session().await.unwrap();
    for (number, window_seconds) in [(1, SHORT_SECONDS), (2, LONG_SECONDS)] {
        let key = NewKey {
            key: key(lane, number),
            index: 0,
            window_seconds,
            fingerprint: None,
            results: None,
        };
        let input = TurnInput {
            blocks: vec![hot(lane, 1, noise(30))],
            keys: vec![(0, key)],
            ..TurnInput::default()
        };
        let [first, second] = [2, -3].map(|seconds| boundary + Duration::seconds(seconds));
        let stored = run(&mut session, Some(first), &input).await.unwrap();
        assert_eq!(stored.known, []);
        let repeated = run(&mut session, Some(second), &input).await.unwrap();
        assert_eq!(repeated.known.len(), 1, "{window_seconds}");
    }
}

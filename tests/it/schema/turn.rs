//! The statements of a turn: a block alone, one with something else in its turn, and one of several take three ways, which
//! must store the same.

use cursus::store::turn::{Claim, NewBlock, NewPlace, PART_BYTES, TurnInput, Used, run};
use cursus::store::{Era, LaneId, Offset, SubscriptionId};
use cursus::store::{hot_payload, hot_payload::SLOTS};
use sqlx::Row;

use crate::harness::invariants::check_invariants;
use crate::harness::log::{Log, hot, noise};

/// A claim of nothing, to be in a turn.
const CLAIM: Claim = Claim {
    lane: LaneId::new(1),
    subscription: SubscriptionId::new(1_000),
    wanted: 1,
    fresh: 1,
    visibility_seconds: 30,
    max_attempts: None,
    scan: None,
};

/// Commits blocks in one turn; returns their first offsets.
async fn turn(log: &Log, slot: i16, blocks: &[&NewBlock]) -> Vec<Option<Offset>> {
    turn_with(log, slot, blocks, &[]).await
}

/// The same in a turn that also has claims.
async fn turn_with(
    log: &Log,
    slot: i16,
    blocks: &[&NewBlock],
    claims: &[Claim],
) -> Vec<Option<Offset>> {
    let input = TurnInput {
        blocks: blocks.iter().copied().cloned().collect(),
        claims: claims.to_vec(),
        slot,
        ..TurnInput::default()
    };
    let mut session = log.store.session().await.unwrap();
    let output = run(&mut session, log.clock.now(), &input).await.unwrap();
    assert_eq!(Some(output.at), log.clock.now());
    output.first_offsets
}

/// All columns of the blocks of a lane apart from the lane.
async fn stored(log: &mut Log, lane: LaneId) -> Vec<String> {
    let rows = "SELECT (to_jsonb(b) - 'lane_id')::text FROM block b WHERE lane_id = $1 ORDER BY first_offset";
    let rows = sqlx::query(rows).bind(lane).fetch_all(&mut log.sql).await;
    rows.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_block_is_stored_alike_alone_and_with_others() {
    let mut log = Log::new().await;
    let [alone, claimed, beside, other] = [
        log.topic("alone", false, 3_600).await.1,
        log.topic("claimed", false, 3_600).await.1,
        log.topic("beside", false, 3_600).await.1,
        log.topic("other", false, 3_600).await.1,
    ];
    let object =
        "INSERT INTO object (key, bytes, created_at) VALUES ('k', 15, now()) RETURNING object_id";
    let object_id = log.one(object).await;
    let lengths = [1, 700, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES];
    let mut places: Vec<(i16, NewPlace)> = (0..SLOTS)
        .flat_map(|slot| lengths.map(|bytes| (slot, NewPlace::Hot(noise(bytes).into()))))
        .collect();
    places.push((
        3,
        NewPlace::Object {
            object_id,
            bytes: 5,
        },
    ));

    let of_other = hot(other, 1, noise(10));
    let count = places.len();
    for ((slot, place), number) in places.into_iter().zip(1..) {
        let block = |lane| NewBlock {
            lane,
            era: Era::FIRST,
            count: number,
            compressed: number % 2 == 0,
            place: place.clone(),
            used: Used {
                units: 2 * number,
                elastic_units: number,
                message_bytes: 900 + i64::from(number),
            },
        };
        let first = turn(&log, slot, &[&block(alone)]).await[0];
        let with_claim = turn_with(&log, slot, &[&block(claimed)], &[CLAIM]).await[0];
        let with_other = turn(&log, slot, &[&block(beside), &of_other]).await[0];
        assert_eq!([with_claim, with_other], [first; 2]);
        let NewPlace::Hot(payload) = place else {
            continue;
        };
        let mut session = log.store.session().await.unwrap();
        for lane in [alone, claimed, beside] {
            let read = hot_payload::read(&mut session, slot, lane, &[first.unwrap()]).await;
            let read = read.unwrap().pop().unwrap().1;
            assert!(read == payload, "{} bytes in slot {slot}", payload.len());
        }
    }
    let blocks = stored(&mut log, alone).await;
    assert_eq!(blocks.len(), count);
    // Blocks have the same bytes of an object only here.
    for (lane, offset) in [(claimed, 5), (beside, 10)] {
        assert_eq!(blocks, stored(&mut log, lane).await);
        log.run(&format!(
            "UPDATE block SET object_offset = {offset} WHERE lane_id = {lane} AND object_id IS NOT NULL"
        ))
        .await;
    }
    check_invariants(&mut log.sql).await;
}

#[tokio::test]
async fn a_lane_that_is_closed_or_gone_takes_no_block() {
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    let block = hot(lane, 1, noise(100));
    assert_eq!(turn(&log, 0, &[&block]).await, [Some(Offset::START)]);
    log.run("UPDATE lane SET closed = true").await;
    assert_eq!(turn(&log, 0, &[&block]).await, [None]);
    let gone = hot(LaneId::new(lane.get() + 1_000), 1, noise(100));
    assert_eq!(turn(&log, 0, &[&gone]).await, [None]);
    assert_eq!(turn(&log, 0, &[&block, &gone]).await, [None, None]);
    assert_eq!(turn_with(&log, 0, &[&block], &[CLAIM]).await, [None]);
    assert_eq!(stored(&mut log, lane).await.len(), 1);
    assert_eq!(log.one("SELECT count(*) FROM hot_payload_0").await, 1);
    check_invariants(&mut log.sql).await;
}

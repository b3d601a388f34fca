//! The ring of hot slots: when it moves on, and reading blocks by offset and by time.

use std::ops::Range;
use std::time::Duration;

use cursus::engine::lifecycle::rotate::{Rotate, RotateSettings};
use cursus::store::{LaneId, Offset, Session, block};
use time::macros::datetime;

use crate::harness::log::{AT_ONCE, Log};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_slot_is_left_when_it_is_full_or_old_but_never_empty() {
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    let settings = RotateSettings {
        slot_bytes: 1_000_000,
        slot_window: MINUTE,
    };
    let mut rotate = Rotate::new(settings);
    log.clock.advance(2 * MINUTE);
    assert_eq!(log.run_duty(&mut rotate).await.unwrap(), 0, "empty");
    assert_eq!(log.slot().await, 0);

    log.publish(&[lane], 1, 100).await;
    let moved = log.run_duty(&mut rotate).await.unwrap();
    let free = rotate.slots_free();
    assert_eq!((moved, free, log.slot().await), (1, 6, 1), "old");

    log.publish(&[lane], 1, 100).await;
    assert_eq!(
        log.run_duty(&mut rotate).await.unwrap(),
        0,
        "young and small"
    );
    log.publish(&[lane], 1, 1_000_000).await;
    assert_eq!(log.run_duty(&mut rotate).await.unwrap(), 1, "full");
    assert_eq!(log.slot().await, 2);
}

#[tokio::test]
async fn publishes_go_on_in_the_current_slot_while_no_other_is_free() {
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    for _ in 0..7 {
        log.publish(&[lane], 1, 100).await;
        log.rotate().await;
    }
    log.publish(&[lane], 1, 100).await;
    let mut rotate = Rotate::new(AT_ONCE);
    let moved = log.run_duty(&mut rotate).await.unwrap();
    let free = rotate.slots_free();
    assert_eq!((moved, free, log.slot().await), (0, 0, 7));
    log.publish(&[lane], 1, 100).await;
    assert_eq!(log.blocks(lane).await.len(), 9);
}

#[tokio::test]
async fn of_many_nodes_one_moves_the_slot() {
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    log.publish(&[lane], 1, 100).await;
    let all = (0..6).map(|_| async { log.run_duty(&mut Rotate::new(AT_ONCE)).await.unwrap() });
    let moved: u64 = futures_util::future::join_all(all).await.into_iter().sum();
    // The slot it moved to is empty, so a node that comes later does not move it again.
    assert_eq!((moved, log.slot().await), (1, 1));
}

/// First offsets of the blocks that hold these offsets.
async fn firsts(session: &mut Session, lane: LaneId, of: Range<i64>, limit: i64) -> Vec<i64> {
    let (from, until) = (Offset::new(of.start), Offset::new(of.end));
    let blocks = block::covering(session, lane, from, until, limit);
    let blocks = blocks.await.unwrap();
    blocks.iter().map(|b| b.first_offset.get()).collect()
}

#[tokio::test]
async fn blocks_are_found_by_offset_and_by_time() {
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    let mut session = log.store.session().await.unwrap();
    let start = datetime!(2030-01-01 00:00 UTC);
    assert_eq!(
        block::end(&mut session, lane).await.unwrap(),
        Some(Offset::new(0))
    );
    assert_eq!(
        block::after_time(&mut session, lane, start).await.unwrap(),
        Some(Offset::new(0))
    );
    for _ in 0..20 {
        log.publish(&[lane], 10, 100).await;
        log.clock.advance(MINUTE);
    }
    assert_eq!(
        firsts(&mut session, lane, 35..61, 100).await,
        [30, 40, 50, 60]
    );
    assert_eq!(firsts(&mut session, lane, 40..50, 100).await, [40]);
    assert_eq!(firsts(&mut session, lane, 0..500, 3).await, [0, 10, 20]);
    assert_eq!(firsts(&mut session, lane, 200..500, 3).await, [0; 0]);
    for (minutes, offset) in [(0, 0), (1, 10), (7, 70), (19, 190), (20, 200)] {
        let at = start + minutes * MINUTE;
        assert_eq!(
            block::after_time(&mut session, lane, at).await.unwrap(),
            Some(Offset::new(offset))
        );
        let just_before = at - Duration::from_secs(1);
        assert_eq!(
            block::after_time(&mut session, lane, just_before)
                .await
                .unwrap(),
            Some(Offset::new(offset))
        );
    }
    assert_eq!(
        block::end(&mut session, lane).await.unwrap(),
        Some(Offset::new(200))
    );
    let none = LaneId::new(lane.get() + 1);
    assert_eq!(block::end(&mut session, none).await.unwrap(), None);

    log.run("DELETE FROM block WHERE first_offset < 50").await;
    log.run("UPDATE lane SET start_offset = 50").await;
    assert_eq!(firsts(&mut session, lane, 35..61, 100).await, [50, 60]);
    assert_eq!(
        block::after_time(&mut session, lane, start).await.unwrap(),
        Some(Offset::new(50))
    );
}

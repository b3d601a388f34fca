//! Offloading: payloads come to object storage in few objects and stay readable at every moment, whatever fails between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cursus::blob::{Blob, Op};
use cursus::engine::duty::DutyError;
use cursus::engine::lifecycle::offload::{Offload, OffloadSettings};
use cursus::store::block::{self, Moved};
use cursus::store::turn::{self, TurnInput};
use cursus::store::{LaneId, Offset, hot_payload, object};
use sqlx::Connection;

use crate::harness::log::{Log, PROMPT, folder, hot, noise};
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::scratch::Scratch;
use crate::harness::seaweed::Seaweed;

/// Publishes 60 blocks of three topics, one of them larger than an object, packs them, and reads them.
async fn packs(blob: &Arc<Blob>) {
    let mut log = Log::new().await;
    let mut lanes = Vec::new();
    for name in ["a", "b", "c"] {
        lanes.push(log.topic(name, false, 3_600).await.1);
    }
    for n in 0..20 {
        log.publish(&lanes, 3, 1 + n * 5_000).await;
    }
    log.publish(&lanes[..1], 1, 1_500_000).await;
    log.rotate().await;
    log.publish(&lanes, 1, 10_000).await;
    assert_eq!(log.offload(blob).await, 61);

    let sizes = log.sizes().await;
    assert_eq!(sizes[0], 0, "the drained slot is truncated");
    assert!(sizes[1] > 0, "the current slot stays");
    // 2.85 MB in objects of 1 MiB, and one of its own.
    assert!(
        (4..=5).contains(&blob.metrics().requests(Op::Put)),
        "{}",
        blob.metrics().requests(Op::Put)
    );
    assert_eq!(
        log.one(
            "SELECT count(DISTINCT lane_id) FROM block GROUP BY object_id ORDER BY 1 DESC LIMIT 1"
        )
        .await,
        3
    );
    assert_eq!(
        log.one("SELECT count(*) FROM block WHERE slot IS NOT NULL")
            .await,
        3
    );
    log.check(blob).await;
}

#[tokio::test]
async fn blocks_of_many_topics_are_packed_into_few_objects() {
    let scratch = Scratch::new("pack");
    packs(&folder(&scratch).await).await;
    let seaweed = Seaweed::shared().await;
    packs(&Arc::new(Blob::s3(seaweed.settings()).await)).await;
}

#[tokio::test]
async fn what_is_consumed_in_the_hot_window_costs_no_put() {
    let scratch = Scratch::new("consumed");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (topic, lane) = log.topic("t", false, 3_600).await;
    let subscription = log.subscription("s", topic).await;
    for _ in 0..50 {
        log.publish(&[lane], 10, 20_000).await;
    }
    log.rotate().await;
    log.publish(&[lane], 10, 20_000).await;
    log.consume(lane, subscription).await;
    assert_eq!(log.expire().await, 50);
    assert_eq!(log.offload(&blob).await, 0);
    assert_eq!(
        (blob.metrics().requests(Op::Put), log.sizes().await[0]),
        (0, 0)
    );
    log.check(&blob).await;
}

#[tokio::test]
async fn payloads_wait_in_postgres_for_the_hot_window_unless_slots_become_scarce() {
    let scratch = Scratch::new("window");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    let settings = OffloadSettings {
        hot_window: Duration::from_secs(30),
        ..PROMPT
    };
    let mut offload = Offload::new(blob.clone(), settings);
    let context = log.context();
    log.publish(&[lane], 1, 100).await;
    log.rotate().await;
    assert_eq!(log.run_duty(&mut offload).await.unwrap(), 0);
    log.clock.advance(Duration::from_secs(31));
    assert!(offload.backlog(&context).await.unwrap().oldest_age_seconds > 30.0);
    assert_eq!(log.run_duty(&mut offload).await.unwrap(), 1);
    assert_eq!(offload.backlog(&context).await.unwrap().bytes, 0);
    for _ in 0..5 {
        log.publish(&[lane], 1, 100).await;
        log.rotate().await;
    }
    assert_eq!(
        log.run_duty(&mut offload).await.unwrap(),
        2,
        "until fewer than half of the slots wait"
    );
    log.check(&blob).await;
}

#[tokio::test]
async fn steady_traffic_is_offloaded_once_the_window_of_its_slot_is_over() {
    let scratch = Scratch::new("steady");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    let settings = OffloadSettings {
        hot_window: Duration::from_secs(60),
        ..PROMPT
    };
    let mut offload = Offload::new(blob.clone(), settings);
    // A slot is left every minute, so there never is a time when the last was left longer ago than the window.
    let mut moved = Vec::new();
    for _ in 0..5 {
        for _ in 0..6 {
            log.publish(&[lane], 1, 100).await;
            moved.push(log.run_duty(&mut offload).await.unwrap());
            log.clock.advance(Duration::from_secs(10));
        }
        log.rotate().await;
    }
    assert_eq!(moved.iter().sum::<u64>(), 18, "{moved:?}");
    assert_eq!(
        moved.iter().filter(|count| **count > 0).count(),
        3,
        "a slot in one walk: {moved:?}"
    );
    assert_eq!(blob.metrics().requests(Op::Put), 3);
    log.check(&blob).await;
}

#[tokio::test]
async fn a_slot_that_fails_does_not_keep_the_next_from_being_emptied() {
    let seaweed = Seaweed::shared().await;
    let proxy = Proxy::before(seaweed.at).await;
    let mut settings = seaweed.settings_through(proxy.at);
    settings.timeouts.overall = Duration::from_secs(2);
    let blob = Arc::new(Blob::s3(settings).await);
    let mut log = Log::new().await;
    let (_, unread) = log.topic("unread", false, 3_600).await;
    let (topic, lane) = log.topic("t", false, 3_600).await;
    let subscription = log.subscription("s", topic).await;
    log.publish(&[unread], 1, 1_000).await;
    log.rotate().await;
    log.publish(&[lane], 1, 1_000).await;
    log.rotate().await;
    log.publish(&[lane], 1, 1_000).await;
    log.consume(lane, subscription).await;
    assert_eq!(log.expire().await, 1);
    proxy.set(Mode::Refuse);
    let error = log.try_offload(&blob).await.unwrap_err();
    assert!(matches!(error, DutyError::Blob(_)), "{error:?}");
    let sizes = log.sizes().await;
    assert!(sizes[0] > 0 && sizes[1] == 0, "{sizes:?}");
    proxy.set(Mode::Pass);
    assert_eq!(log.offload(&blob).await, 1);
    log.check(&blob).await;
}

#[tokio::test]
async fn a_slot_that_takes_too_long_to_scan_is_left_to_a_later_run() {
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    log.publish(&[lane], 1, 100).await;
    let mut tx = log.store.tx("truncate").await.unwrap();
    assert!(hot_payload::lock(&mut tx, 0, 0).await.unwrap());
    for brief in [
        "SET LOCAL statement_timeout = 200",
        "SET LOCAL lock_timeout = 0",
    ] {
        sqlx::query(brief)
            .execute(tx.run("test.brief"))
            .await
            .unwrap();
    }
    let mut other = log.database.connect().await;
    let mut locking = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE block IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *locking)
        .await
        .unwrap();
    assert_eq!(hot_payload::is_needed(&mut tx, 0, "1").await.unwrap(), None);
}

#[tokio::test]
async fn storage_that_is_down_stops_nothing_but_offloading() {
    let seaweed = Seaweed::shared().await;
    let proxy = Proxy::before(seaweed.at).await;
    let mut settings = seaweed.settings_through(proxy.at);
    settings.timeouts.overall = Duration::from_secs(10);
    let blob = Arc::new(Blob::s3(settings).await);
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    for _ in 0..10 {
        log.publish(&[lane], 1, 300_000).await;
    }
    log.rotate().await;
    proxy.set(Mode::Refuse);
    let error = log.try_offload(&blob).await.unwrap_err();
    assert!(matches!(error, DutyError::Blob(_)), "{error:?}");
    let (offload, context) = (Offload::new(blob.clone(), PROMPT), log.context());
    assert!(offload.backlog(&context).await.unwrap().bytes > 3_000_000);
    log.publish(&[lane], 1, 300_000).await;
    assert_eq!(
        log.one("SELECT count(*) FROM block WHERE slot IS NOT NULL")
            .await,
        11
    );
    proxy.set(Mode::Pass);
    assert_eq!(log.offload(&blob).await, 10);
    log.check(&blob).await;
}

#[tokio::test]
async fn a_payload_put_into_an_old_slot_after_the_walk_keeps_the_slot() {
    let scratch = Scratch::new("late");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    log.publish(&[lane], 1, 300).await;
    log.rotate().await;
    let mut session = log.store.session().await.unwrap();
    let walk = hot_payload::begin_walk(&mut session, 0).await.unwrap();
    let live = hot_payload::live(&mut session, 0, 0..walk.pages)
        .await
        .unwrap();
    assert_eq!(live.len(), 1);
    assert_eq!(
        hot_payload::is_needed(&mut session, 0, &walk.horizon)
            .await
            .unwrap(),
        Some(false),
        "it was seen by the walk"
    );
    // On the same page: the place of a row shows nothing.
    log.publish_into(0, &[lane], 1, 300).await;
    assert_eq!(
        hot_payload::is_needed(&mut session, 0, &walk.horizon)
            .await
            .unwrap(),
        Some(true)
    );

    // A transaction that is running when the walk begins.
    let mut late = log.store.tx("late").await.unwrap();
    let payload = noise(300);
    let input = TurnInput {
        blocks: vec![hot(lane, 1, payload.clone())],
        ..TurnInput::default()
    };
    let first = turn::run(&mut late, log.clock.now(), &input)
        .await
        .unwrap()
        .first_offsets[0]
        .unwrap();
    log.payloads.insert((lane, first), payload);
    let walk = hot_payload::begin_walk(&mut session, 0).await.unwrap();
    let mut other = log.store.tx("truncate").await.unwrap();
    assert!(
        !hot_payload::lock(&mut other, 0, walk.pages).await.unwrap(),
        "its lock is in the way"
    );
    drop(other);
    assert_eq!(
        log.offload(&blob).await,
        2,
        "and the offload leaves it at that"
    );
    late.commit().await.unwrap();
    assert_eq!(
        hot_payload::is_needed(&mut session, 0, &walk.horizon)
            .await
            .unwrap(),
        Some(true)
    );
    assert!(log.sizes().await[0] > 0);
    log.check(&blob).await;
    assert_eq!(log.offload(&blob).await, 1);
    assert_eq!(log.sizes().await[0], 0);
    log.check(&blob).await;
}

/// Publishes into any slot until it is stopped, as nodes that lag behind would; returns what it published.
async fn publish_anywhere(
    log: Arc<Log>,
    lane: LaneId,
    stop: Arc<AtomicBool>,
) -> Vec<((LaneId, Offset), Vec<u8>)> {
    let mut published = Vec::new();
    let mut session = log.store.session().await.unwrap();
    while !stop.load(Ordering::Relaxed) {
        let payload = noise(rand::random_range(1..30_000));
        let slot = rand::random_range(0..hot_payload::SLOTS);
        let input = TurnInput {
            blocks: vec![hot(lane, 2, payload.clone())],
            slot,
            ..TurnInput::default()
        };
        let output = turn::run(&mut session, log.clock.now(), &input)
            .await
            .unwrap();
        published.push(((lane, output.first_offsets[0].unwrap()), payload));
    }
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_offload_while_others_publish_into_any_slot_and_nothing_is_lost() {
    let scratch = Scratch::new("race");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let mut lanes = Vec::new();
    for name in ["a", "b", "c"] {
        lanes.push(log.topic(name, false, 3_600).await.1);
    }
    let log = Arc::new(log);
    let stop = Arc::new(AtomicBool::new(false));
    let publishers = lanes
        .iter()
        .map(|lane| tokio::spawn(publish_anywhere(log.clone(), *lane, stop.clone())));
    let publishers: Vec<_> = publishers.collect();
    let mut moved = 0;
    let until = std::time::Instant::now() + Duration::from_secs(4);
    while std::time::Instant::now() < until {
        let both = async { tokio::join!(log.offload(&blob), log.offload(&blob)) };
        let both = tokio::time::timeout(Duration::from_secs(30), both).await;
        let (one, other) = both.expect("offloading gets a slot between publishes");
        moved += one + other;
    }
    stop.store(true, Ordering::Relaxed);
    let mut published = Vec::new();
    for publisher in publishers {
        published.extend(publisher.await.unwrap());
    }
    let mut log = Arc::try_unwrap(log).ok().expect("the publishers are gone");
    let total = published.len() as u64;
    log.payloads.extend(published);
    log.check(&blob).await;
    moved += log.offload(&blob).await;
    log.offload(&blob).await;
    let hot = log
        .one("SELECT count(*) FROM block WHERE slot IS NOT NULL")
        .await;
    assert_eq!(
        moved,
        total - hot.cast_unsigned(),
        "no block is moved twice"
    );
    assert_eq!(
        log.sizes().await.iter().filter(|bytes| **bytes > 0).count(),
        1,
        "all but the current slot are empty"
    );
    log.check(&blob).await;
}

#[tokio::test]
async fn a_block_that_is_being_deleted_is_left_alone_and_not_waited_for() {
    let scratch = Scratch::new("skip");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    log.publish(&[lane], 1, 300).await;
    log.publish(&[lane], 1, 300).await;
    let mut other = log.database.connect().await;
    let mut deleting = other.begin().await.unwrap();
    sqlx::query("DELETE FROM block WHERE first_offset = 0")
        .execute(&mut *deleting)
        .await
        .unwrap();
    let mut tx = log.store.tx("offload").await.unwrap();
    let at = log.clock.now().unwrap();
    let id = object::insert(&mut tx, "x", log.clock.now()).await.unwrap();
    let moved = [0, 1].map(|n| Moved {
        lane_id: lane,
        first_offset: Offset::new(n),
        object_offset: n * 300,
    });
    assert_eq!(block::point(&mut tx, 0, id, &moved, at).await.unwrap(), 1);
    drop(tx);
    deleting.rollback().await.unwrap();
    log.check(&blob).await;
}

//! Retention: what is consumed goes, what is needed stays, what is too old goes in any case and leaves cursors and leases.

use std::time::Duration;

use cursus::engine::lifecycle::expire::Expire;
use cursus::store::retention::PROSPECTS;
use cursus::store::{CursorKey, lane};
use sqlx::Connection;
use time::OffsetDateTime;

use crate::harness::log::{EXPIRE_AT_ONCE, Log, folder};
use crate::harness::scratch::Scratch;
use crate::harness::until;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn consumed_blocks_go_up_to_the_slowest_subscription_and_its_leases() {
    let scratch = Scratch::new("slowest");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (topic, lane) = log.topic("t", false, 3_600).await;
    let fast = log.subscription("fast", topic).await;
    let slow = log.subscription("slow", topic).await;
    for _ in 0..10 {
        log.publish(&[lane], 10, 100).await;
    }
    log.consume(lane, fast).await;
    assert_eq!(log.expire().await, 0, "the slow one has not begun");

    let leased = log.claim(lane, slow, 35).await;
    assert_eq!(log.expire().await, 0, "its lease holds them");
    log.settle(&leased[0], (1 << 34) - 1).await;
    assert_eq!(log.expire().await, 0, "one message of the lease is left");
    log.settle(&leased[0], u64::MAX).await;
    assert_eq!(
        log.expire().await,
        3,
        "the fourth block has messages that are not handed out"
    );
    log.check(&blob).await;
}

#[tokio::test]
async fn the_last_block_of_a_lane_stays_though_it_is_consumed() {
    let scratch = Scratch::new("last");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (topic, lane) = log.topic("t", false, 3_600).await;
    let subscription = log.subscription("s", topic).await;
    for _ in 0..10 {
        log.publish(&[lane], 10, 100).await;
    }
    log.consume(lane, subscription).await;
    assert_eq!(log.expire().await, 9);
    assert_eq!(log.blocks(lane).await, [(90, 100)]);
    assert_eq!(log.one("SELECT start_offset FROM lane").await, 90);
    assert_eq!(log.expire().await, 0);
    log.publish(&[lane], 10, 100).await;
    assert_eq!(log.claim(lane, subscription, 10).await.len(), 1);
    assert_eq!(log.expire().await, 1, "it went when there was a newer one");
    log.check(&blob).await;
}

#[tokio::test]
async fn a_topic_without_subscription_or_that_keeps_what_is_consumed_goes_by_age_only() {
    let scratch = Scratch::new("keep");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (_, unread) = log.topic("unread", false, 3_600).await;
    let (topic, kept) = log.topic("kept", true, 3_600).await;
    let subscription = log.subscription("s", topic).await;
    for _ in 0..3 {
        log.publish(&[unread, kept], 10, 100).await;
        log.clock.advance(MINUTE);
    }
    log.consume(kept, subscription).await;
    assert_eq!(log.expire().await, 0);
    log.clock.advance(58 * MINUTE + Duration::from_secs(1));
    assert_eq!(log.expire().await, 4, "two of each are over an hour old");
    log.clock.advance(MINUTE);
    assert_eq!(log.expire().await, 2);
    assert_eq!(
        log.one("SELECT sum(start_offset)::bigint FROM lane").await,
        60,
        "and the next offsets are kept"
    );
    log.publish(&[unread, kept], 1, 100).await;
    assert_eq!(log.blocks(kept).await, [(30, 31)]);
    log.check(&blob).await;
}

#[tokio::test]
async fn messages_that_are_too_old_leave_cursors_and_leases() {
    let scratch = Scratch::new("old");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (topic, lane) = log.topic("t", false, 3_600).await;
    let busy = log.subscription("busy", topic).await;
    let idle = log.subscription("idle", topic).await;
    for _ in 0..4 {
        log.publish(&[lane], 50, 100).await;
        log.clock.advance(MINUTE);
    }
    // Leases of 64, 64 and 42: all gone, gone up to the cut at 100, untouched.
    assert_eq!(log.claim(lane, busy, 170).await.len(), 3);
    log.clock.advance(57 * MINUTE + Duration::from_secs(1));
    assert_eq!(log.expire().await, 2);
    assert_eq!(
        log.one(&format!(
            "SELECT next_offset FROM cursor WHERE subscription_id = {idle}"
        ))
        .await,
        100
    );
    assert_eq!(
        log.one(&format!(
            "SELECT next_offset FROM cursor WHERE subscription_id = {busy}"
        ))
        .await,
        170
    );
    let left = "SELECT string_agg(base || ':' || length(replace(pending::bit(64)::text, '0', '')), ' ' ORDER BY base) FROM lease";
    let left: String = sqlx::query_scalar(left)
        .fetch_one(&mut log.sql)
        .await
        .unwrap();
    assert_eq!(left, "64:28 128:42");
    log.check(&blob).await;
    assert_eq!(
        log.expire().await,
        0,
        "a lease that straddles the start is no work"
    );
    log.clock.advance(60 * MINUTE);
    assert_eq!(log.expire().await, 2);
    assert_eq!(log.one("SELECT count(*) FROM lease").await, 0);
    log.check(&blob).await;
}

#[tokio::test]
async fn a_lease_that_a_settle_holds_is_trimmed_in_the_next_round() {
    let scratch = Scratch::new("held");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (topic, lane) = log.topic("t", false, 60).await;
    let subscription = log.subscription("s", topic).await;
    log.publish(&[lane], 10, 100).await;
    log.clock.advance(2 * MINUTE);
    log.publish(&[lane], 10, 100).await;
    assert_eq!(log.expire().await, 1);
    // As if a redelivery had been under way.
    log.run(&format!(
        "INSERT INTO lease (lane_id, subscription_id, lease_id, part, base, pending, deadline, attempt, delayed)
         VALUES ({lane}, {subscription}, 1000000, 0, 3, 7, '2030-01-01 00:02:30Z', 2, false)"
    ))
    .await;
    assert_eq!(log.expire().await, 0);
    assert_eq!(log.one("SELECT count(*) FROM lease").await, 0);
    log.check(&blob).await;
}

#[tokio::test]
async fn a_closed_lane_is_cleared_to_the_last_row() {
    let scratch = Scratch::new("closed");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (topic, lane_id) = log.topic("t", false, 3_600).await;
    let (_, other) = log.topic("other", false, 3_600).await;
    let subscription = log.subscription("s", topic).await;
    for _ in 0..2_500 {
        log.publish(&[lane_id], 1, 10).await;
    }
    log.publish(&[other], 1, 10).await;
    log.claim(lane_id, subscription, 10).await;
    let mut session = log.store.session().await.unwrap();
    lane::close(&mut session, topic).await.unwrap();
    log.run(&format!(
        "DELETE FROM subscription WHERE topic_id = {topic}"
    ))
    .await;
    log.run(&format!("DELETE FROM topic WHERE topic_id = {topic}"))
        .await;
    assert_eq!(log.expire().await, 2_500);
    for table in ["lane", "cursor", "lease", "block"] {
        assert_eq!(
            log.one(&format!(
                "SELECT count(*) FROM {table} WHERE lane_id = {lane_id}"
            ))
            .await,
            0,
            "{table}"
        );
    }
    assert_eq!(log.blocks(other).await.len(), 1);
    log.check(&blob).await;
}

#[tokio::test]
async fn a_lane_that_a_publish_holds_is_waited_for_and_the_others_are_not() {
    let scratch = Scratch::new("wait");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let mut lanes = Vec::new();
    for name in ["a", "b", "c"] {
        let (topic, lane) = log.topic(name, false, 3_600).await;
        let subscription = log.subscription(name, topic).await;
        lanes.push((lane, subscription));
    }
    for _ in 0..2_200 {
        log.publish(
            &lanes.iter().map(|(lane, _)| *lane).collect::<Vec<_>>(),
            1,
            10,
        )
        .await;
    }
    for (lane, subscription) in &lanes {
        log.consume(*lane, *subscription).await;
    }
    let mut other = log.database.connect().await;
    let mut publish = other.begin().await.unwrap();
    sqlx::query("SELECT FROM lane WHERE lane_id = $1 FOR UPDATE")
        .bind(lanes[1].0)
        .execute(&mut *publish)
        .await
        .unwrap();
    let mut look = log.database.connect().await;
    let release = async {
        until(
            "the lanes that are not locked are cut to their ends",
            async || {
                let left: i64 =
                    sqlx::query_scalar("SELECT count(*) FROM block WHERE lane_id <> $1")
                        .bind(lanes[1].0)
                        .fetch_one(&mut look)
                        .await
                        .unwrap();
                (left == 2).then_some(())
            },
        )
        .await;
        publish.rollback().await.unwrap();
    };
    let (deleted, ()) = tokio::join!(log.expire(), release);
    assert_eq!(deleted, 3 * 2_199, "in batches, each to its end");
    log.check(&blob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_expire_while_messages_are_published_and_consumed() {
    let scratch = Scratch::new("both");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (topic, lane) = log.topic("t", false, 60).await;
    let subscription = log.subscription("s", topic).await;
    let mut node = Log {
        expire: Expire::new(EXPIRE_AT_ONCE),
        sql: log.database.connect().await,
        ..Log::new().await
    };
    node.store = log.database.store();
    node.clock = log.clock.clone();
    for n in 0..300 {
        log.publish(&[lane], 7, 200).await;
        if n % 3 == 0 {
            let leased = log.claim(lane, subscription, 15).await;
            for lease in leased.iter().take(usize::from(n % 2 == 0)) {
                log.settle(lease, u64::MAX).await;
            }
        }
        log.clock.advance(Duration::from_secs(1));
        if n % 10 == 0 {
            tokio::join!(log.expire(), node.expire());
        }
    }
    log.check(&blob).await;
    assert!(log.blocks(lane).await.len() <= 75, "a minute's worth");
}

/// Pages that a scan for work in one lane reads, the leases from now on included unless they are not read before
/// `again`.
async fn pages_read(log: &mut Log, key: CursorKey, again: Option<OffsetDateTime>) -> u64 {
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "EXPLAIN (ANALYZE, BUFFERS) {PROSPECTS}"
    )))
    .bind([key.lane])
    .bind([log.clock.now()])
    .bind([again])
    .bind([None::<OffsetDateTime>])
    .bind(0.0)
    .bind(log.clock.now())
    .bind([3_600])
    .bind([false])
    .bind([1])
    .bind([1])
    .bind([key.subscription])
    .fetch_all(&mut log.sql)
    .await
    .unwrap();
    let buffers = plan
        .iter()
        .find_map(|line| line.trim().strip_prefix("Buffers: shared "))
        .expect("buffers");
    let numbers = buffers.split([' ', '=']);
    numbers
        .filter_map(|number| number.parse::<u64>().ok())
        .sum()
}

#[tokio::test]
async fn a_transaction_that_holds_back_vacuum_does_not_slow_the_round() {
    let scratch = Scratch::new("vacuum");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (topic, lane) = log.topic("t", false, 3_600).await;
    let subscription = log.subscription("s", topic).await;
    let mut other = log.database.connect().await;
    let mut old = other
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await
        .unwrap();
    sqlx::query("SELECT count(*) FROM block")
        .execute(&mut *old)
        .await
        .unwrap();
    for _ in 0..30 {
        for _ in 0..40 {
            log.publish(&[lane], 64, 50).await;
        }
        log.consume(lane, subscription).await;
        assert!(log.expire().await >= 39);
        log.clock.advance(Duration::from_secs(31));
    }
    let key = CursorKey { lane, subscription };
    // All that was ever there is dead and still in the indices: 1,170 blocks, 1,200 leases, 60 versions of the cursor.
    let now = log.clock.now().unwrap();
    let look = pages_read(&mut log, key, Some(now + MINUTE)).await;
    let walk = pages_read(&mut log, key, None).await;
    println!("{look} pages without the leases, {walk} with them");
    assert!(look < 60, "{look} pages for a lane that is not walked");
    assert!(walk < 100, "{walk} pages for a lane that is walked");
    // A lease an hour old holds the deadline down. It is found again and again, but not by every scan.
    log.run(&format!(
        "WITH dead AS (INSERT INTO lease (lane_id, subscription_id, lease_id, part, base, pending, deadline, attempt, delayed)
             SELECT {lane}, {subscription}, 5000000 + n, 0, 0, 1, '{now}'::timestamptz + n * interval '0.5 ms', 1, false
             FROM generate_series(1, 300000) n)
         SELECT 1"
    ))
    .await;
    log.run("DELETE FROM lease WHERE lease_id > 5000000").await;
    let look = pages_read(&mut log, key, Some(now + MINUTE)).await;
    let began = std::time::Instant::now();
    let walk = pages_read(&mut log, key, None).await;
    println!(
        "{look} pages without 300,000 dead leases, {walk} with them in {:?}",
        began.elapsed()
    );
    assert!(look < 60, "{look} pages for a lane that is not walked");
    old.rollback().await.unwrap();
    log.check(&blob).await;
}

//! Counting below HTTP: blocks are counted once, whichever duty counts, deletes or moves them (I8), and so is a flush of
//! a node.

use std::time::Duration;

use cursus::engine::meter::blocks::Meter;
use cursus::store::TenantId;
use cursus::store::turn::{self, TurnInput, Used};
use cursus::store::usage::{Flushed, flush};
use futures_util::future::join_all;
use sqlx::{Connection, Executor};
use uuid::Uuid;

use crate::harness::log::{Log, folder, hot};
use crate::harness::scratch::Scratch;

async fn count(log: &Log) -> u64 {
    log.run_duty(&mut Meter::without_pauses()).await.unwrap()
}

/// All published units and messages, wherever they stand.
const PUBLISHED: &str = "SELECT sum(units * 1000000 + messages)::bigint FROM (
     SELECT units, messages FROM usage_minute UNION ALL SELECT units, messages FROM usage_hour
     UNION ALL SELECT units, messages FROM usage_day) u";

#[tokio::test]
async fn a_flush_whose_answer_was_lost_counts_once() {
    let mut log = Log::new().await;
    let node = Uuid::new_v4();
    let rows = |units| {
        let row = Flushed {
            tenant: TenantId::new(1),
            meter: "deliver_pull",
            topic: "t".to_owned(),
            subscription: "s".to_owned(),
            units,
            elastic_units: 0,
            messages: units,
            bytes: 1,
        };
        // Two of one name, as after a subscription was made anew.
        [row.clone(), row]
    };
    let (store, now) = (log.store.clone(), log.clock.now());
    let send = async |sequence, units| {
        let mut session = store.session().await.unwrap();
        flush(&mut session, node, sequence, &rows(units), now).await
    };
    send(1, 1).await.unwrap();
    send(1, 1).await.unwrap();
    // Another transaction has the row while the node gives up waiting; the server does not know, and commits in the end.
    let mut other = log.database.connect().await;
    let mut theirs = other.begin().await.unwrap();
    theirs
        .execute("SELECT FROM usage_minute FOR UPDATE")
        .await
        .unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(300), send(2, 10)).await;
    assert!(given_up.is_err());
    let retried = send(2, 10);
    let (retried, ()) = tokio::join!(retried, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        theirs.rollback().await.unwrap();
    });
    retried.unwrap();
    send(3, 100).await.unwrap();
    send(2, 10).await.unwrap();
    assert_eq!(log.one("SELECT units FROM usage_minute").await, 222);
}

#[tokio::test]
async fn retention_counts_what_it_deletes() {
    let scratch = Scratch::new("usage-retention");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let (topic, lane) = log.topic("t", false, 3_600).await;
    let (_, unread) = log.topic("unread", false, 60).await;
    let subscription = log.subscription("s", topic).await;
    for round in 1..=3 {
        for _ in 0..10 {
            log.publish(&[lane, unread], 7, 100).await;
        }
        log.consume(lane, subscription).await;
        log.clock.advance(Duration::from_secs(120));
        let deleted = if round == 1 { 9 + 10 } else { 10 + 10 };
        assert_eq!(log.expire().await, deleted);
        log.check(&blob).await;
    }
    assert_eq!(
        log.one("SELECT sum(messages)::bigint FROM usage_minute")
            .await,
        29 * 7 + 30 * 7,
        "all but the block that is kept"
    );
    assert_eq!(count(&log).await, 1);
    assert_eq!(log.one(PUBLISHED).await, 1_000_001 * 60 * 7);
    log.check(&blob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn which_node_counts_makes_no_difference() {
    let scratch = Scratch::new("usage-races");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    let mut lanes = Vec::new();
    for n in 0..4 {
        let (topic, lane) = log.topic(&format!("t{n}"), false, 60).await;
        log.subscription(&format!("s{n}"), topic).await;
        lanes.push(lane);
    }
    for _ in 0..5 {
        for _ in 0..20 {
            log.publish(&lanes, 3, 50).await;
        }
        log.clock.advance(Duration::from_secs(50));
        let nodes = join_all((0..3).map(|_| count(&log)));
        let offload = log.try_offload(&blob);
        let (counted, _) = tokio::join!(nodes, offload);
        assert_eq!(counted.iter().sum::<u64>(), 80, "{counted:?}");
        log.rotate().await;
        log.expire().await;
    }
    assert_eq!(log.one(PUBLISHED).await, 1_000_001 * 5 * 20 * 4 * 3);
    log.check(&blob).await;
}

#[tokio::test]
async fn usage_above_the_guarantee_is_counted_apart() {
    let mut log = Log::new().await;
    let (_, lane) = log.topic("t", false, 3_600).await;
    let mut session = log.store.session().await.unwrap();
    for (units, elastic_units) in [(5, 0), (5, 3), (7, 7)] {
        let mut block = hot(lane, 4, vec![0; 10]);
        block.used = Used {
            units,
            elastic_units,
            message_bytes: 10,
        };
        let input = TurnInput {
            blocks: vec![block],
            ..TurnInput::default()
        };
        turn::run(&mut session, log.clock.now(), &input)
            .await
            .unwrap();
    }
    assert_eq!(count(&log).await, 3);
    let found = "SELECT units * 100 + elastic_units FROM usage_minute WHERE meter = 'publish'";
    assert_eq!(log.one(found).await, 1_710);
}

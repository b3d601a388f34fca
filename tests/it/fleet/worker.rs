//! The loops around the duties: one node has a duty, the next takes it over, all end when they are stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cursus::clock::Clock;
use cursus::engine::lifecycle::offload::OffloadSettings;
use cursus::engine::lifecycle::rotate::RotateSettings;
use cursus::engine::{Engine, Parts};
use cursus::outbound::Outbound;
use cursus::store::{duty, node};
use cursus::worker::{self, Context, Metrics, Settings};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::harness::log::{Log, folder};
use crate::harness::scratch::Scratch;
use crate::harness::until;

const PATIENCE: Duration = Duration::from_secs(20);

#[expect(clippy::too_many_lines, reason = "one story, told in order")]
#[tokio::test]
async fn the_duties_run_drain_and_are_counted() {
    let scratch = Scratch::new("worker");
    let blob = folder(&scratch).await;
    let mut log = Log::new().await;
    log.clock = Clock::default();
    log.run("UPDATE installation SET rotated_at = now() - interval '1 hour'")
        .await;
    let (topic, lane) = log.topic("t", false, 3_600).await;
    let (_, unread) = log.topic("unread", false, 3_600).await;
    let subscription = log.subscription("s", topic).await;
    for _ in 0..20 {
        log.publish(&[lane, unread], 5, 1_000).await;
    }
    log.consume(lane, subscription).await;
    let mut settings = Settings {
        rotate: RotateSettings {
            slot_bytes: 1,
            slot_window: Duration::ZERO,
        },
        offload: OffloadSettings {
            hot_window: Duration::ZERO,
            ..OffloadSettings::default()
        },
        ..Settings::default()
    };
    settings.expire.consumed_age = Duration::ZERO;
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let parts = Parts {
        store: log.store.clone(),
        blob: blob.clone(),
        outbound: Outbound::new().unwrap(),
        clock: log.clock.clone(),
        open: true,
        cache_bytes: 1 << 20,
        hot_limit_bytes: 256 << 10,
        turn_loops: 1,
    };
    let engine = Engine::start(parts, &tracker, CancellationToken::new(), stop.clone());
    let engine = engine.await.unwrap();
    let context = Context {
        store: log.store.clone(),
        blob: blob.clone(),
        clock: log.clock.clone(),
        node: engine.node(),
        engine,
        settings,
        metrics: Metrics::default(),
    };
    let triggers = worker::start(&context, &tracker, &stop);
    let started = Instant::now();
    while log
        .one("SELECT count(*) FROM block WHERE lane_id = 1 OR slot IS NOT NULL")
        .await
        > 1
        || log.sizes().await[0] > 0
    {
        assert!(started.elapsed() < PATIENCE, "{:?}", log.sizes().await);
        triggers.expire.notify_one();
        triggers.rotate.notify_one();
        triggers.offload.notify_one();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut registry = Registry::with_prefix("cursus");
    context.metrics.register(&mut registry);
    // A run counts what it did after it has done it.
    let text = until("the run that expired is counted", async || {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let counted = "cursus_duty_done_total{duty=\"expire\"} 19";
        text.contains(counted).then_some(text)
    })
    .await;
    assert!(
        text.contains("cursus_duty_failures_total{duty=\"offload\"} 0"),
        "{text}"
    );
    assert_eq!(
        log.one("SELECT count(*) FROM duty WHERE name IN ('expire', 'offload', 'rotate')")
            .await,
        3,
        "the others come up later"
    );
    stop.cancel();
    tracker.close();
    tokio::time::timeout(Duration::from_secs(5), tracker.wait())
        .await
        .expect("the duties drain");
    assert_eq!(
        log.one("SELECT count(*) FROM duty").await,
        0,
        "and are free for the next node"
    );
    log.check(&blob).await;
}

#[tokio::test]
async fn a_duty_is_held_by_one_node_until_it_dies_or_lets_go() {
    let log = Arc::new(Log::new().await);
    let mut session = log.store.session().await.unwrap();
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    let minute = Duration::from_secs(60);
    let mut hold = async |node, after: u64| {
        log.clock.advance(Duration::from_secs(after));
        duty::hold(&mut session, "expire", node, minute, log.clock.now())
            .await
            .unwrap()
    };
    assert!(hold(one, 0).await);
    assert!(!hold(other, 59).await);
    assert!(hold(one, 0).await, "kept");
    assert!(!hold(other, 59).await);
    assert!(hold(other, 1).await, "let go by time");
    assert!(!hold(one, 0).await);
    node::delete(&mut session, other).await.unwrap();
    assert!(
        duty::hold(&mut session, "expire", one, minute, log.clock.now())
            .await
            .unwrap(),
        "let go by stopping"
    );

    node::heartbeat(&mut session, one, "1", log.clock.now())
        .await
        .unwrap();
    log.clock.advance(minute);
    node::heartbeat(&mut session, other, "1", log.clock.now())
        .await
        .unwrap();
    assert_eq!(
        node::count_alive(&mut session, minute, log.clock.now())
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        node::delete_stale(&mut session, minute / 2, log.clock.now())
            .await
            .unwrap(),
        1
    );
}

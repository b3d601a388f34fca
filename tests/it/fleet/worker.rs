//! The loops around the duties: one node has a duty, the next takes it over, all end when they are stopped. And the list of
//! duties, which is complete.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cursus::clock::Clock;
use cursus::disk::Room;
use cursus::engine::lifecycle::expire::ExpireSettings;
use cursus::engine::lifecycle::offload::OffloadSettings;
use cursus::engine::lifecycle::rotate::RotateSettings;
use cursus::engine::{Engine, Parts};
use cursus::store::{duty, node};
use cursus::worker::{self, Settings};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use reqwest::Method;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::harness::authority::outbound;
use crate::harness::log::{Log, folder};
use crate::harness::scratch::Scratch;
use crate::harness::{Fleet, until};

const PATIENCE: Duration = Duration::from_secs(60);

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
    let settings = Settings {
        rotate: RotateSettings {
            slot_bytes: 1,
            slot_window: Duration::ZERO,
        },
        offload: OffloadSettings {
            hot_window: Duration::ZERO,
            ..OffloadSettings::default()
        },
        expire: ExpireSettings {
            consumed_age: Duration::ZERO,
        },
        ..Settings::default()
    };
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let parts = Parts {
        store: log.store.clone(),
        blob: blob.clone(),
        outbound: outbound(),
        clock: log.clock.clone(),
        room: Room::default(),
        open: true,
        trusted_proxies: Vec::new(),
        cache_bytes: 1 << 20,
        hot_limit_bytes: 256 << 10,
        turn_loops: 1,
    };
    let engine = Engine::start(parts, &tracker, CancellationToken::new(), stop.clone());
    let engine = engine.await.unwrap();
    let mut registry = Registry::with_prefix("cursus");
    worker::start(&engine, settings, &mut registry, (&tracker, &stop));
    let started = Instant::now();
    while log
        .one("SELECT count(*) FROM block WHERE lane_id = 1 OR slot IS NOT NULL")
        .await
        > 1
        || log.sizes().await[0] > 0
    {
        assert!(started.elapsed() < PATIENCE, "{:?}", log.sizes().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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

/// The names of all duties that the engine has, from its sources.
fn names(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for duty in text.split("\nimpl Duty for ").skip(1) {
            let name = duty.split("const NAME: &'static str = \"").nth(1).unwrap();
            let name = name.split('"').next().unwrap().to_owned();
            assert!(found.insert(name), "{} has a name twice", path.display());
        }
    }
}

#[tokio::test]
async fn every_duty_of_the_engine_is_started_and_shown() {
    let mut duties = BTreeSet::new();
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine");
    names(&engine, &mut duties);
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let shown = node.request(Method::GET, "/metrics").send().await.unwrap();
    let shown = shown.text().await.unwrap();
    for metric in ["runs", "failures", "done"] {
        let start = format!("cursus_duty_{metric}_total{{duty=\"");
        let labels = shown.lines().filter_map(|line| line.strip_prefix(&start));
        let labels = labels.filter_map(|line| Some(line.split_once('"')?.0.to_owned()));
        assert_eq!(labels.collect::<BTreeSet<_>>(), duties, "{metric}");
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_duty_is_held_by_one_node_until_it_dies_or_lets_go() {
    let mut log = Log::new().await;
    let clock = log.clock.clone();
    let mut session = log.store.session().await.unwrap();
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    let minute = Duration::from_secs(60);
    for node in [one, other] {
        node::heartbeat(&mut session, node, "1", None)
            .await
            .unwrap();
    }
    let mut hold = async |node, after: u64| {
        clock.advance(Duration::from_secs(after));
        duty::hold(&mut session, "expire", node, minute, clock.now())
            .await
            .unwrap()
    };
    assert!(hold(one, 0).await);
    assert!(!hold(other, 59).await);
    assert!(hold(one, 0).await, "kept");
    assert!(!hold(other, 59).await);
    assert!(hold(other, 1).await, "let go by time");
    assert!(!hold(one, 0).await);
    log.run("UPDATE node SET seen_at = seen_at - interval '10 seconds'")
        .await;
    assert!(hold(one, 0).await, "its holder sends no heartbeats");
    assert!(hold(other, 0).await);
    node::delete(&mut session, other).await.unwrap();
    assert!(
        duty::hold(&mut session, "expire", one, minute, clock.now())
            .await
            .unwrap(),
        "let go by stopping"
    );

    node::heartbeat(&mut session, one, "1", clock.now())
        .await
        .unwrap();
    clock.advance(minute);
    node::heartbeat(&mut session, other, "1", clock.now())
        .await
        .unwrap();
    assert_eq!(
        node::count_alive(&mut session, minute, clock.now())
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        node::delete_stale(&mut session, minute / 2, clock.now())
            .await
            .unwrap(),
        1
    );
}

//! Reading from object storage: what it costs, what it must not hold up, and what becomes of payloads on the way there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cursus::blob::{Blob, Op};
use cursus::clock::Clock;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use reqwest::{Body, Method};
use serde_json::{Value, json};

use crate::harness::log::noise;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::seaweed::Seaweed;
use crate::harness::{Fleet, all, send, text, until};

const RAW: &str = "/v1/topics/t/messages";

/// A fleet over S3 behind a proxy.
async fn over_s3() -> (Fleet, Proxy, Arc<Seaweed>) {
    let seaweed = Seaweed::shared().await;
    let proxy = Proxy::before(seaweed.at).await;
    let blob = Arc::new(Blob::s3(seaweed.settings_through(proxy.at)).await);
    (Fleet::over(blob).await, proxy, seaweed)
}

async fn count(fleet: &Fleet, sql: &'static str) -> i64 {
    let mut connection = fleet.database.connect().await;
    sqlx::query_scalar(sql)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_large_message_that_was_compressed_is_read_as_a_whole_from_object_storage() {
    let mut fleet = Fleet::new().await;
    fleet.hot_limit_bytes = 1 << 20;
    let writer = fleet.node().await;
    writer.topic_and_subscription(json!({})).await;
    // More than the head that is read of a large message, also after it was compressed.
    let mut body = noise(500_000);
    body.extend([7; 300_000]);
    let publish = writer
        .request(Method::POST, RAW)
        .header("content-type", "application/x-noise")
        .body(body.clone());
    let (status, published) = send(publish).await;
    assert_eq!(status, 200, "{published}");
    let packed = "SELECT count(*) FROM block WHERE compressed AND bytes BETWEEN 400000 AND 600000";
    assert_eq!(count(&fleet, packed).await, 1);
    assert_eq!(fleet.offload().await, 1);

    // Another node, which has nothing in memory.
    let reader = fleet.node().await;
    let received = reader.receive(1).await;
    let url = text(&received[0]["body_url"]);
    let fetched = reader.request(Method::GET, &url).send().await.unwrap();

    assert_eq!(fetched.status(), 200);
    assert!(fetched.bytes().await.unwrap() == body);
    fleet.finish([writer, reader]).await;
}

#[tokio::test]
async fn blocks_that_lie_side_by_side_in_an_object_are_read_with_one_request() {
    let fleet = Fleet::new().await;
    let writer = fleet.node().await;
    writer.topic_and_subscription(json!({})).await;
    let bodies: Vec<String> = (0..40)
        .map(|n| format!("{n} {}", "z".repeat(n * 50)))
        .collect();
    for body in &bodies {
        writer.publish(body).await;
    }
    assert_eq!(fleet.offload().await, 40, "each in a block of its own");

    let reader = fleet.node().await;
    let received = reader.receive(100).await;

    assert!(all(&received, "body") == bodies.iter().map(String::as_str).collect::<Vec<_>>());
    let requests = fleet.blob.metrics().requests(Op::Get);
    assert_eq!(requests, 1, "for 40 blocks");
    fleet.finish([writer, reader]).await;
}

/// All topics together have more than the cache takes, so what is read ahead for one must not evict that of the others.
#[tokio::test]
async fn many_topics_that_are_read_in_turn_are_read_once_each() {
    const TOPICS: u64 = 32;
    const MESSAGES: u64 = 64;
    let mut fleet = Fleet::new().await;
    fleet.cache_bytes = 1 << 20;
    let writer = fleet.node().await;
    let put = async |n| {
        writer.topic(&format!("t{n}")).await;
        let settings = json!({"topic": format!("t{n}")});
        writer
            .put(&format!("/v1/subscriptions/s{n}"), settings)
            .await
    };
    join_all((0..TOPICS).map(put)).await;
    for _ in 0..MESSAGES {
        let publish = |n| {
            let topic = format!("/v1/topics/t{n}/messages");
            send(writer.request(Method::POST, &topic).body(noise(1_000)))
        };
        join_all((0..TOPICS).map(publish)).await;
    }
    let blocks = TOPICS * MESSAGES;
    assert_eq!(fleet.offload().await, blocks, "a block each");

    let reader = fleet.node().await;
    for _ in 0..MESSAGES {
        let receive = async |n| {
            let receive = format!("/v1/subscriptions/s{n}/receive");
            let (_, received) = reader.post(&receive, json!({"max_messages": 1})).await;
            assert_eq!(received["messages"].as_array().unwrap().len(), 1);
        };
        join_all((0..TOPICS).map(receive)).await;
    }

    let requests = fleet.blob.metrics().requests(Op::Get);
    assert!(requests < blocks / 4, "{requests} for {blocks} blocks");
    fleet.finish([writer, reader]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_just_published_is_received_while_other_reads_hang_in_object_storage() {
    let (fleet, proxy, _seaweed) = over_s3().await;
    let writer = fleet.node().await;
    writer.topic_and_subscription(json!({})).await;
    let others = 12;
    for n in 0..others {
        writer.topic(&format!("cold{n}")).await;
        let settings = json!({"topic": format!("cold{n}")});
        writer
            .put(&format!("/v1/subscriptions/cold{n}"), settings)
            .await;
        let message = json!({"messages": [{"body": "cold"}]});
        writer
            .post(&format!("/v1/topics/cold{n}/messages/batch"), message)
            .await;
    }
    assert_eq!(fleet.offload().await, others);
    let reader = Arc::new(fleet.node().await);

    proxy.set(Mode::Blackhole);
    let hanging: Vec<_> = (0..others)
        .map(|n| {
            let reader = reader.clone();
            tokio::spawn(async move {
                let path = format!("/v1/subscriptions/cold{n}/receive");
                reader.post(&path, json!({"max_messages": 1})).await
            })
        })
        .collect();
    until("all of them have claimed", async || {
        let leases = count(&fleet, "SELECT count(*) FROM lease").await;
        (leases.unsigned_abs() == others).then_some(())
    })
    .await;
    writer.publish("hot").await;
    let received = tokio::time::timeout(Duration::from_secs(4), reader.receive(1)).await;
    assert!(hanging.iter().all(|other| !other.is_finished()));
    proxy.set(Mode::Pass);

    assert_eq!(
        all(&received.expect("it waits for nobody"), "body"),
        ["hot"]
    );
    for other in hanging {
        let (status, answer) = other.await.unwrap();
        assert_eq!(status, 200, "{answer}");
    }
    let reader = Arc::into_inner(reader).expect("the others have ended");
    fleet.finish([writer, reader]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_in_time_is_given_back_without_an_attempt_and_holds_up_nothing() {
    let (mut fleet, proxy, _seaweed) = over_s3().await;
    fleet.clock = Clock::default();
    let writer = fleet.node().await;
    let settings =
        json!({"visibility_timeout_seconds": 4, "max_attempts": 2, "dead_letter_topic": "dead"});
    writer.topic("dead").await;
    writer.topic_and_subscription(settings).await;
    for n in 0..3 {
        writer.publish(&format!("cold {n}")).await;
    }
    assert_eq!(fleet.offload().await, 3);
    writer.publish("hot").await;
    // Another node, which has nothing in memory.
    let reader = fleet.node().await;
    proxy.set(Mode::Blackhole);

    let began = Instant::now();
    let received = reader.receive(10).await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "at once: {:?}",
        began.elapsed()
    );
    assert_eq!(all(&received, "body"), ["hot"]);
    assert_eq!(reader.ack(&all(&received, "receipt")).await, [json!({})]);
    // More often than they may be attempted.
    for _ in 0..3 {
        let ask = json!({"max_messages": 10, "wait_seconds": 8});
        let began = Instant::now();
        let (status, answer) = reader.post("/v1/subscriptions/s/receive", ask).await;
        assert_eq!(
            (status, &answer["code"]),
            (503, &json!("unavailable")),
            "{answer}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(12),
            "{:?}",
            began.elapsed()
        );
    }
    proxy.set(Mode::Pass);

    let mut bodies = Vec::new();
    while bodies.len() < 3 {
        let received = reader
            .receive_with(json!({"max_messages": 10, "wait_seconds": 8}))
            .await;
        assert_ne!(received, [] as [Value; 0], "{bodies:?}");
        for message in &received {
            assert_eq!(message["attempt"], 1, "{message}");
            bodies.push(text(&message["body"]));
        }
        reader.ack(&all(&received, "receipt")).await;
    }
    bodies.sort();
    assert_eq!(bodies, ["cold 0", "cold 1", "cold 2"]);
    fleet.finish([writer, reader]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_ahead_of_a_fair_subscription_holds_up_nothing_until_it_is_visible_again() {
    let (mut fleet, proxy, _seaweed) = over_s3().await;
    fleet.clock = Clock::default();
    let writer = fleet.node().await;
    writer
        .topic_and_subscription(json!({"fairness": {}, "visibility_timeout_seconds": 4}))
        .await;
    // Another node, which has in memory what failed once, and nothing of what is ahead of the cursor.
    let reader = fleet.node().await;
    writer.publish("due").await;
    let failed = &reader.receive(1).await[0]["receipt"];
    reader
        .settle(json!([{"receipt": failed, "action": "nack"}]))
        .await;
    writer.publish("cold").await;
    assert_eq!(fleet.offload().await, 2);
    proxy.set(Mode::Blackhole);

    let began = Instant::now();
    let received = reader.receive(10).await;
    let took = began.elapsed();
    assert_eq!(all(&received, "body"), ["due"]);
    assert!(took < Duration::from_secs(3), "within its time: {took:?}");
    assert_eq!(reader.ack(&all(&received, "receipt")).await, [json!({})]);
    // Nothing is leased, and the receiver does not wait for longer than a lease would last.
    let began = Instant::now();
    let ask = json!({"max_messages": 10});
    let (status, answer) = reader.post("/v1/subscriptions/s/receive", ask).await;
    let took = began.elapsed();
    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")));
    assert!(took < Duration::from_secs(4), "{took:?}");
    proxy.set(Mode::Pass);

    let received = reader.receive_with(json!({"wait_seconds": 8})).await;
    assert_eq!(all(&received, "body"), ["cold"]);
    assert_eq!(received[0]["attempt"], 1);
    fleet.finish([writer, reader]).await;
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_read_takes_nothing_from_the_receiver() {
    let (fleet, proxy, _seaweed) = over_s3().await;
    let writer = fleet.node().await;
    writer.topic("dead").await;
    writer
        .topic_and_subscription(json!({"dead_letter_topic": "dead", "max_attempts": 2}))
        .await;
    let poison = writer.publish("poison").await;
    for attempt in 1..=2 {
        assert_eq!(writer.receive(1).await[0]["attempt"], attempt);
        if attempt == 1 {
            fleet.advance(31);
        }
    }
    assert_eq!(fleet.offload().await, 1);
    writer.publish("good").await;
    assert_eq!(all(&writer.receive(1).await, "body"), ["good"]);
    fleet.advance(31);

    // Another node, which must read the dead letter from object storage.
    let reader = fleet.node().await;
    proxy.set(Mode::Refuse);
    let received = reader.receive(10).await;
    assert_eq!(all(&received, "body"), ["good"]);
    assert_eq!(reader.ack(&all(&received, "receipt")).await, [json!({})]);
    proxy.set(Mode::Pass);

    let dead = until("the dead letter is moved", async || {
        fleet.advance(31);
        assert_eq!(reader.receive(10).await, [] as [Value; 0]);
        let (_, dead) = reader.get("/v1/topics/dead/messages").await;
        (dead["items"] != json!([])).then_some(dead)
    })
    .await;
    assert_eq!(dead["items"].as_array().unwrap().len(), 1);
    let attributes = &dead["items"][0]["attributes"];
    assert_eq!(attributes["cursus-dead-letter-id"], json!(poison));
    fleet.finish([writer, reader]).await;
}

#[tokio::test]
async fn an_upload_that_was_given_up_is_not_published() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let (go_on, gone_on) = tokio::sync::oneshot::channel::<()>();
    let first = Bytes::from(noise(1 << 20));
    let last = first.clone();
    let rest = stream::once(async move {
        gone_on.await.ok();
        Ok::<_, std::io::Error>(last)
    });
    let body = Body::wrap_stream(stream::iter([Ok(first)]).chain(rest));
    let publish = tokio::spawn(send(node.request(Method::POST, RAW).body(body)));
    let mut connection = fleet.database.connect().await;
    until("the upload has begun", async || {
        let given_up = sqlx::query("UPDATE object SET deleted_at = now()")
            .execute(&mut connection)
            .await;
        (given_up.unwrap().rows_affected() > 0).then_some(())
    })
    .await;
    go_on.send(()).unwrap();
    let (status, answer) = publish.await.unwrap();

    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")));
    assert_eq!(count(&fleet, "SELECT count(*) FROM block").await, 0);
    fleet.finish([node]).await;
}

//! Large bodies and batches, which are written to object storage, and publishes and receives of all sizes while object
//! storage is down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cursus::blob::Blob;
use futures_util::{StreamExt, stream};
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::log::noise;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::seaweed::Seaweed;
use crate::harness::{Fleet, Node, all, send, text};

const MIB: usize = 1 << 20;
const RAW: &str = "/v1/topics/t/messages";

/// A fleet with object storage behind a proxy.
async fn over_s3() -> (Fleet, Proxy, Arc<Seaweed>) {
    let seaweed = Seaweed::shared().await;
    let proxy = Proxy::before(seaweed.at).await;
    let blob = Arc::new(Blob::s3(seaweed.settings_through(proxy.at)).await);
    (Fleet::over(blob).await, proxy, seaweed)
}

async fn publish_bytes(node: &Node, body: Vec<u8>) -> (u16, Value) {
    send(
        node.request(Method::POST, RAW)
            .header("content-type", "application/x-noise")
            .body(body),
    )
    .await
}

/// The body of a message by its address, with its media type.
async fn fetch(node: &Node, url: &Value) -> (Bytes, String) {
    let response = node
        .request(Method::GET, url.as_str().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    (response.bytes().await.unwrap(), kind)
}

#[tokio::test]
async fn a_large_body_goes_through_object_storage_and_is_fetched_by_its_address() {
    let (fleet, _proxy, _seaweed) = over_s3().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let body = noise(3 * MIB);

    let (status, published) = publish_bytes(&node, body.clone()).await;
    let received = node.receive(1).await;

    assert_eq!(status, 200, "{published}");
    let url = format!("/v1/messages/{}/body", text(&published["id"]));
    assert_eq!(
        (&received[0]["body_url"], received[0].get("body_base64")),
        (&json!(url), None)
    );
    let (fetched, kind) = fetch(&node, &received[0]["body_url"]).await;
    assert!(fetched == body, "{} bytes", fetched.len());
    assert_eq!(kind, "application/x-noise");
    let part = node
        .request(Method::GET, &url)
        .header("range", "bytes=2000000-2000009")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (part.status().as_u16(), part.bytes().await.unwrap()),
        (206, Bytes::from(body[2_000_000..2_000_010].to_vec()))
    );
    assert_eq!(node.ack(&[&received[0]["receipt"]]).await, [json!({})]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_batch_over_the_hot_limit_is_one_object_and_reads_like_any_other() {
    let (fleet, _proxy, _seaweed) = over_s3().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let bodies: Vec<String> = (0..10)
        .map(|n| format!("{n}{}", "x".repeat(100_000)))
        .collect();
    let messages: Vec<Value> = bodies.iter().map(|body| json!({"body": body})).collect();

    let (status, answer) = node
        .post(&format!("{RAW}/batch"), json!({"messages": messages}))
        .await;
    let received = node.receive(100).await;

    assert_eq!(status, 200, "{answer}");
    assert!(all(&received, "body") == bodies.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(
        json!(all(&received, "id")),
        json!(all(answer["results"].as_array().unwrap(), "id"))
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_a_length_or_without() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let zeros = Bytes::from(vec![0; MIB]);
    let endless = Body::wrap_stream(stream::iter(
        (0..101).map(move |_| Ok::<_, std::io::Error>(zeros.clone())),
    ));

    let streamed = node
        .request(Method::POST, RAW)
        .body(endless)
        .send()
        .await
        .unwrap();
    let batch = node
        .request(Method::POST, &format!("{RAW}/batch"))
        .header("content-type", "application/json");
    let (status, answer) = send(batch.body(" ".repeat(10 * MIB + 1))).await;

    assert_eq!(streamed.status(), 413);
    let problem: Value = serde_json::from_slice(&streamed.bytes().await.unwrap()).unwrap();
    assert_eq!(
        (&problem["code"], &problem["retryable"]),
        (&json!("body_too_large"), &json!(false))
    );
    assert!(text(&problem["detail"]).contains("104857600"), "{problem}");
    assert_eq!((status, &answer["code"]), (413, &json!("body_too_large")));
    assert_eq!(node.receive(1).await, [] as [Value; 0]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn while_object_storage_is_down_small_messages_go_on_and_large_ones_are_refused() {
    let (fleet, proxy, _seaweed) = over_s3().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let before = publish_bytes(&node, noise(MIB)).await;

    proxy.set(Mode::Refuse);
    let large = publish_bytes(&node, noise(MIB)).await;
    let small = node.publish("small").await;
    let unready = node.request(Method::GET, "/readyz").send().await.unwrap();
    let (without, _) = node.get("/readyz?exclude=object_storage").await;
    let (of_database, _) = node.get("/readyz?exclude=database").await;
    let refused = node.request(Method::POST, RAW).body(noise(MIB));
    let refused = refused.send().await.unwrap();
    proxy.set(Mode::Pass);
    let after = publish_bytes(&node, noise(MIB)).await;
    let received = node.receive(10).await;

    assert_eq!(
        (large.0, &large.1["code"], &large.1["retryable"]),
        (503, &json!("unavailable"), &json!(true))
    );
    assert_eq!((without, of_database), (200, 503));
    for response in [&refused, &unready] {
        assert_eq!(response.status(), 503);
        let head = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(head("retry-after"), "1");
        assert_eq!(head("ratelimit"), r#""unavailable";r=0;t=1"#);
        assert_eq!(
            head("ratelimit-policy"),
            r#""unavailable";qu="requests";q=0"#
        );
    }
    let parts: Value = unready.json().await.unwrap();
    assert_eq!(parts["ready"], false);
    assert_eq!(
        parts["parts"][1],
        json!({"part": "object_storage", "ready": false, "missing": "object storage does not answer"})
    );
    assert_eq!((before.0, after.0), (200, 200), "{before:?} {after:?}");
    assert_eq!(
        json!(all(&received, "id")),
        json!([before.1["id"], small, after.1["id"]])
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn clients_that_upload_slowly_take_no_room_from_batches() {
    const SLOTS: usize = 16;
    let seaweed = Seaweed::shared().await;
    let mut settings = seaweed.settings();
    settings.timeouts.overall = Duration::from_secs(3);
    let fleet = Fleet::over(Arc::new(Blob::s3(settings).await)).await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let mut slow = JoinSet::new();
    for _ in 0..SLOTS {
        let begun = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![0; MIB]))]);
        let body = Body::wrap_stream(begun.chain(stream::pending()));
        slow.spawn(node.request(Method::POST, RAW).body(body).send());
    }

    // When all slots of uploads are in use, one more upload is refused and may be tried again.
    let began = Instant::now();
    loop {
        let (status, answer) = publish_bytes(&node, noise(MIB)).await;
        if status != 200 {
            assert_eq!(
                (&answer["code"], &answer["retryable"]),
                (&json!("reduced_capacity"), &json!(true))
            );
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "never full");
    }
    let messages: Vec<Value> = (0..10)
        .map(|_| json!({"body": "x".repeat(100_000)}))
        .collect();
    let batch = json!({ "messages": messages });
    let (status, answer) = node.post(&format!("{RAW}/batch"), batch).await;

    assert_eq!(status, 200, "{answer}");
    slow.shutdown().await;
    fleet.finish([node]).await;
}

#[tokio::test]
async fn offloaded_messages_are_received_from_object_storage() {
    let (fleet, _proxy, _seaweed) = over_s3().await;
    let writer = fleet.node().await;
    writer.topic_and_subscription(json!({})).await;
    let bodies: Vec<String> = (0..50)
        .map(|n| format!("{n} {}", "y".repeat(n * 200)))
        .collect();
    for body in &bodies {
        writer.publish(body).await;
    }

    assert!(fleet.offload().await > 0);
    // Another node, which has no blocks in memory.
    let reader = fleet.node().await;
    let received = reader.receive(100).await;
    let (_, browsed) = reader.get(RAW).await;

    assert!(all(&received, "body") == bodies.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(all(browsed["items"].as_array().unwrap(), "body") == all(&received, "body"));
    let receipts = all(&received, "receipt");
    assert!(
        reader
            .ack(&receipts)
            .await
            .iter()
            .all(|result| *result == json!({}))
    );
    fleet.finish([writer, reader]).await;
}

#[tokio::test]
async fn messages_that_could_not_be_read_come_back_and_it_was_no_attempt() {
    let (fleet, proxy, _seaweed) = over_s3().await;
    let writer = fleet.node().await;
    writer.topic_and_subscription(json!({})).await;
    for body in ["a", "b"] {
        writer.publish(body).await;
    }
    assert!(fleet.offload().await > 0);
    let reader = fleet.node().await;

    proxy.set(Mode::Refuse);
    let (status, problem) = reader
        .post("/v1/subscriptions/s/receive", json!({"max_messages": 10}))
        .await;
    writer.publish("hot").await;
    let hot = reader.receive(10).await;
    proxy.set(Mode::Pass);
    fleet.advance(5);
    let received = reader.receive(10).await;

    assert_eq!((status, &problem["code"]), (503, &json!("unavailable")));
    assert_eq!(all(&hot, "body"), ["hot"]);
    assert_eq!(all(&received, "body"), ["a", "b"]);
    assert_eq!(all(&received, "attempt"), [1, 1]);
    fleet.finish([writer, reader]).await;
}

#[tokio::test]
async fn hot_messages_of_a_lease_are_delivered_when_its_cold_ones_cannot_be_read() {
    let (fleet, proxy, _seaweed) = over_s3().await;
    let writer = fleet.node().await;
    writer.topic_and_subscription(json!({})).await;
    writer.publish("cold").await;
    assert!(fleet.offload().await > 0);
    writer.publish("hot").await;
    let reader = fleet.node().await;

    proxy.set(Mode::Refuse);
    let hot = reader.receive(10).await;
    proxy.set(Mode::Pass);
    fleet.advance(5);
    let cold = reader.receive(10).await;

    assert_eq!(all(&hot, "body"), ["hot"]);
    assert_eq!(all(&cold, "body"), ["cold"]);
    assert_eq!(all(&cold, "attempt"), [1]);
    fleet.finish([writer, reader]).await;
}

#[tokio::test]
async fn a_large_dead_letter_keeps_its_body() {
    let (fleet, _proxy, _seaweed) = over_s3().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    node.topic_and_subscription(json!({"dead_letter_topic": "dead"}))
        .await;
    let body = noise(MIB);
    publish_bytes(&node, body.clone()).await;
    let received = node.receive(1).await;

    let results = node
        .settle(json!([{"receipt": received[0]["receipt"], "action": "dead_letter"}]))
        .await;
    let (_, dead) = node.get("/v1/topics/dead/messages").await;

    assert_eq!(results, [json!({})]);
    let letter = &dead["items"][0];
    assert_eq!(
        letter["attributes"]["cursus-dead-letter-id"],
        received[0]["id"]
    );
    assert!(fetch(&node, &letter["body_url"]).await.0 == body);
    fleet.finish([node]).await;
}

/// Five batches of nine messages of 1 MiB each: blocks of 9 MiB.
async fn five_large_batches(node: &Node) {
    let body = "x".repeat(MIB);
    let messages: Vec<Value> = (0..9).map(|_| json!({"body": body})).collect();
    let batch = json!({"messages": messages});
    for _ in 0..5 {
        let (status, answer) = node.post(&format!("{RAW}/batch"), batch.clone()).await;
        assert_eq!(status, 200, "{answer}");
    }
}

#[tokio::test]
async fn a_receive_holds_only_so_much_and_gives_the_rest_back_at_once() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    five_large_batches(&node).await;

    let first = node.receive(100).await;
    let second = node.receive(100).await;

    assert_eq!(
        (first.len(), second.len()),
        (36, 9),
        "blocks of 9 MiB within 32 MiB"
    );
    assert!(all(&second, "attempt").iter().all(|attempt| **attempt == 1));
    assert_eq!(node.receive(100).await, [] as [Value; 0]);
    for messages in [first, second] {
        let results = node.ack(&all(&messages, "receipt")).await;
        assert!(results.iter().all(|result| *result == json!({})));
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_page_of_a_browse_ends_when_it_holds_much_and_its_next_leads_on() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    five_large_batches(&node).await;

    let (mut sizes, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("{RAW}?from=2029-01-01T00:00:00Z&limit=1000{after}");
        let (status, page) = node.get(&path).await;
        assert_eq!(status, 200, "{page}");
        sizes.push(page["items"].as_array().unwrap().len());
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }

    assert_eq!(sizes, [18, 18, 9], "blocks of 9 MiB within 16 MiB");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_range_beyond_the_body_is_refused_with_its_length() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("t").await;
    let id = node.publish("hello").await;
    let ask = async |range: &str| {
        let request = node.request(Method::GET, &format!("/v1/messages/{id}/body"));
        let response = request.header("range", range).send().await.unwrap();
        let range = response.headers().get("content-range");
        let range = range.map(|range| range.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        (status, range, response.text().await.unwrap())
    };

    let (status, range, problem) = ask("bytes=5-").await;
    assert_eq!((status, range.as_deref()), (416, Some("bytes */5")));
    assert!(problem.contains("range_not_satisfiable"), "{problem}");
    let part = (206, Some("bytes 1-3/5".to_owned()), "ell".to_owned());
    assert_eq!(ask("bytes=1-3").await, part);
    fleet.finish([node]).await;
}

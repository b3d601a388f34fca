//! The crate `cursus-sdk`: retries, typed problems, pages and the consumer loop, as a program in Rust uses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use api::ErrorCode;
use api::message::{PublishMessage, ReceivedMessage};
use api::topic::Topic;
use bytes::Bytes;
use cursus_sdk::{Client, Consumer, ConsumerOptions, Error, Failure, Options, Publish};
use futures_util::TryStreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::fleet;
use crate::harness::behaviour::Does;
use crate::harness::endpoint::Endpoint;
use crate::harness::{Node, until};

fn client(node: &Node) -> Client {
    Client::with_options(&format!("http://{}", node.address), Options::default()).unwrap()
}

/// An answer with a problem.
fn problem(code: ErrorCode, headers: &[(&'static str, &str)]) -> Does {
    let body = serde_json::to_vec(&api::Problem::new(code, "as the test says")).unwrap();
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    Does::SaysWith(code.status(), headers.collect(), body.into())
}

#[tokio::test]
async fn a_request_is_repeated_as_it_was_when_the_service_says_so() {
    let server = Endpoint::new().await;
    let published = Bytes::from_static(br#"{"id":"000000010000000002s3"}"#);
    server.next([
        problem(ErrorCode::QuotaExceeded, &[("retry-after", "1")]),
        problem(ErrorCode::Unavailable, &[]),
        Does::Resets,
        Does::says_with(502, &[]),
        Does::SaysWith(200, Vec::new(), published),
    ]);
    let url = server.url();
    let client =
        Client::with_options(url.split("/hook").next().unwrap(), Options::default()).unwrap();
    let began = Instant::now();

    let id = client.publish("orders", "tea").await.unwrap();

    assert_eq!(id.to_string(), "000000010000000002s3");
    assert!(began.elapsed() >= Duration::from_secs(1));
    let sent = server.sent();
    let keys: Vec<&str> = sent
        .iter()
        .map(|request| request.header("idempotency-key"))
        .collect();
    assert!(
        keys.len() == 5 && keys.iter().all(|key| key.len() > 30 && *key == keys[0]),
        "{keys:?}"
    );
    assert!(sent.iter().all(|request| request.body == "tea"));
}

#[tokio::test]
async fn a_request_that_cannot_succeed_is_not_repeated() {
    let server = Endpoint::new().await;
    let url = server.url();
    let client =
        Client::with_options(url.split("/hook").next().unwrap(), Options::default()).unwrap();
    for code in [ErrorCode::NotFound, ErrorCode::Forbidden] {
        server.next([problem(code, &[])]);
        let refused = client.publish("orders", "tea").await.unwrap_err();
        assert_eq!(refused.code(), Some(code));
    }
    server.next([problem(
        ErrorCode::QuotaExceeded,
        &[("retry-after", "3600")],
    )]);
    let later = client.publish("orders", "tea").await.unwrap_err();
    let Error::Problem(later) = later else {
        panic!("{later}");
    };
    assert_eq!(later.retry_after, Some(Duration::from_secs(3_600)));
    assert_eq!(server.received(), 3);
}

#[tokio::test]
async fn publishes_batches_and_pages_have_the_types_of_the_wire() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    for name in ["a", "b", "c", "d", "e"] {
        node.topic(name).await;
    }
    let client = client(&node);

    let topics: Vec<Topic> = client
        .each("/v1/topics?limit=2")
        .try_collect()
        .await
        .unwrap();
    let message = Publish {
        tag: Some("coffee".to_owned()),
        attributes: [("table".to_owned(), "7".to_owned())].into(),
        ..Publish::json(&json!({"cups": 2})).unwrap()
    };
    let id = client.publish("a", message).await.unwrap();
    let text = |body: &'static str| PublishMessage {
        body: Some(body.into()),
        ..PublishMessage::default()
    };
    let batch = client
        .publish_batch("a", vec![text("x"), text("y")])
        .await
        .unwrap();
    let message: api::message::Message = client.get(format!("/v1/messages/{id}")).await.unwrap();

    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert_eq!(
        (message.tag.as_deref(), &*message.attributes["table"]),
        (Some("coffee"), "7")
    );
    assert_eq!(&*message.data().unwrap(), br#"{"cups":2}"#);
    assert!(batch.len() == 2 && batch.iter().all(|result| result.id.is_some()));
    assert_eq!(client.body(batch[1].id.unwrap()).await.unwrap(), "y");
    fleet.finish([node]).await;
}

/// What a handler saw: the body and the attempt of each message.
type Seen = Arc<Mutex<Vec<(String, u32)>>>;

fn note(seen: &Seen, message: &ReceivedMessage) -> String {
    let body = message.message.body.clone().unwrap();
    seen.lock().push((body.clone(), message.attempt));
    body
}

#[tokio::test]
async fn a_consumer_settles_what_its_handler_did() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    let dead = json!({"topic": "dead"});
    node.put("/v1/subscriptions/failed", dead).await;
    node.topic_and_subscription(json!({"dead_letter_topic": "dead"}))
        .await;
    for body in ["good", "retry", "fails", "panics", "hopeless"] {
        node.publish(body).await;
    }
    let (seen, stop) = (Seen::default(), CancellationToken::new());
    let handler = {
        let seen = seen.clone();
        move |message: ReceivedMessage| {
            let (body, attempt) = (note(&seen, &message), message.attempt);
            async move {
                match (&*body, attempt) {
                    ("hopeless", _) => Err(Failure::DeadLetter("no hope".to_owned())),
                    ("retry", 1) => Err(Failure::Retry(Duration::ZERO)),
                    ("fails", 1) => Err(std::io::Error::other("on purpose").into()),
                    ("panics", 1) => panic!("on purpose"),
                    _ => Ok(()),
                }
            }
        }
    };
    let consumer = Consumer::new(client(&node), "s", handler);
    let running = tokio::spawn(consumer.run_until(stop.clone().cancelled_owned()));

    until("all have come", async || {
        (seen.lock().len() == 8).then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();

    let mut seen = seen.lock().clone();
    seen.sort();
    let of = |body: &str, attempt| (body.to_owned(), attempt);
    let twice = ["fails", "panics", "retry"]
        .into_iter()
        .flat_map(|body| [of(body, 1), of(body, 2)]);
    let mut expected: Vec<_> = twice.chain([of("good", 1), of("hopeless", 1)]).collect();
    expected.sort();
    assert_eq!(seen, expected);
    let (_, stats) = node.get("/v1/subscriptions/s/stats").await;
    assert_eq!(
        (&stats["backlog"], &stats["delayed"]),
        (&json!(0), &json!(0))
    );
    let ask = json!({"wait_seconds": 20});
    let (_, failed) = node.post("/v1/subscriptions/failed/receive", ask).await;
    let reason: &Value = &failed["messages"][0]["attributes"]["cursus-dead-letter-reason"];
    assert_eq!(reason, "no hope");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_message_stays_hidden_while_its_handler_runs_and_few_run_at_a_time() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for n in 0..6 {
        node.publish(&n.to_string()).await;
    }
    let (seen, stop) = (Seen::default(), CancellationToken::new());
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (seen, now, most) = (seen.clone(), now.clone(), most.clone());
        move |message: ReceivedMessage| {
            note(&seen, &message);
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                // Longer than two visibility timeouts.
                tokio::time::sleep(Duration::from_secs(5)).await;
                now.fetch_sub(1, SeqCst);
                Ok(())
            }
        }
    };
    let options = ConsumerOptions {
        concurrency: 3,
        visibility_timeout_seconds: 2,
        wait_seconds: 1,
        ..ConsumerOptions::default()
    };
    let consumer = Consumer::new(client(&node), "s", handler).with(options);
    let running = tokio::spawn(consumer.run_until(stop.clone().cancelled_owned()));

    until("all have begun", async || {
        (seen.lock().len() == 6).then_some(())
    })
    .await;
    // The running handlers are waited for.
    stop.cancel();
    running.await.unwrap();

    let seen = seen.lock().clone();
    assert!(
        seen.len() == 6 && seen.iter().all(|(_, attempt)| *attempt == 1),
        "{seen:?}"
    );
    assert_eq!(most.load(SeqCst), 3);
    let (_, stats) = node.get("/v1/subscriptions/s/stats").await;
    assert_eq!(stats["backlog"], 0);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_consumer_that_stops_gives_back_what_it_has_not_begun() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for n in 0..5 {
        node.publish(&n.to_string()).await;
    }
    let (seen, stop) = (Seen::default(), CancellationToken::new());
    let handler = {
        let (seen, stop) = (seen.clone(), stop.clone());
        move |message: ReceivedMessage| {
            note(&seen, &message);
            let stop = stop.clone();
            async move {
                stop.cancelled().await;
                Ok(())
            }
        }
    };
    let options = ConsumerOptions {
        concurrency: 1,
        wait_seconds: 1,
        ..ConsumerOptions::default()
    };
    let consumer = Consumer::new(client(&node), "s", handler).with(options);
    let running = tokio::spawn(consumer.run_until(stop.clone().cancelled_owned()));
    until("one has begun", async || {
        (seen.lock().len() == 1).then_some(())
    })
    .await;
    until("the others wait here", async || {
        let (_, stats) = node.get("/v1/subscriptions/s/stats").await;
        (stats["in_flight"] == 5).then_some(())
    })
    .await;

    stop.cancel();
    running.await.unwrap();

    let back = node.receive(10).await;
    let attempts: Vec<&Value> = back.iter().map(|message| &message["attempt"]).collect();
    assert_eq!(attempts, [2, 2, 2, 2]);
    fleet.finish([node]).await;
}

//! Deliveries to an endpoint: what it gets, and what its answers do to messages.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};

use super::SUBSCRIPTION;
use crate::harness::behaviour::Does;
use crate::harness::endpoint::Endpoint;
use crate::harness::{Fleet, Node, until};

/// A topic `t` and a subscription `s` that is pushed to the endpoint.
pub(super) async fn pushed(node: &Node, endpoint: &Endpoint, settings: Value, push: Value) {
    node.topic("t").await;
    set(node, endpoint, settings, push).await;
}

/// Sets the endpoint of `s`.
pub(super) async fn set(node: &Node, endpoint: &Endpoint, mut settings: Value, mut push: Value) {
    push["url"] = endpoint.url().into();
    settings["topic"] = "t".into();
    settings["push"] = push;
    let (status, answer) = node.put(SUBSCRIPTION, settings).await;
    assert!(status == 200 || status == 201, "{answer}");
}

pub(super) async fn stats(node: &Node) -> Value {
    node.get(&format!("{SUBSCRIPTION}/stats")).await.1
}

/// Waits until nothing is left to deliver.
pub(super) async fn until_delivered(node: &Node) {
    until("all is delivered", async || {
        (stats(node).await["backlog"] == 0).then_some(())
    })
    .await;
}

pub(super) async fn until_sent(endpoint: &Endpoint, count: usize) {
    until("requests were sent", async || {
        (endpoint.sent().len() >= count).then_some(())
    })
    .await;
}

/// Waits until a message that was not taken is to be sent later.
async fn until_delayed(node: &Node) {
    until("a message waits for its next attempt", async || {
        (stats(node).await["delayed"] == 1).then_some(())
    })
    .await;
}

/// The bodies that were sent, in order.
fn bodies(endpoint: &Endpoint) -> Vec<String> {
    let sent = endpoint.sent().into_iter();
    sent.map(|sent| String::from_utf8(sent.body.to_vec()).unwrap())
        .collect()
}

#[tokio::test]
async fn a_message_is_posted_and_acked_and_its_attempt_is_recorded() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    pushed(&node, &endpoint, json!({}), json!({})).await;
    let request = node.request(Method::POST, "/v1/topics/t/messages");
    let request = request
        .header("content-type", "text/csv")
        .header("cursus-tag", "eu");
    let answer: Value = request
        .body("a,b")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let id = answer["id"].as_str().unwrap();
    until_delivered(&node).await;

    let sent = endpoint.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].method.as_str(), &sent[0].body[..]),
        ("POST", &b"a,b"[..])
    );
    assert_eq!(sent[0].path, "/hook?of=cursus");
    for (name, value) in [
        ("content-type", "text/csv"),
        ("cursus-message-id", id),
        ("cursus-topic", "t"),
        ("cursus-subscription", "s"),
        ("cursus-attempt", "1"),
        ("cursus-tag", "eu"),
    ] {
        assert_eq!(sent[0].header(name), value, "{name}");
    }
    assert!(sent[0].header("webhook-signature").starts_with("v1,"));
    let attempts = until("the attempt is recorded", async || {
        let (_, page) = node.get(&format!("/v1/messages/{id}/attempts")).await;
        page["items"]
            .as_array()
            .filter(|items| !items.is_empty())
            .cloned()
    })
    .await;
    assert_eq!(attempts[0]["status"], 204);
    assert_eq!(
        (&attempts[0]["subscription"], &attempts[0]["attempt"]),
        (&json!("s"), &json!(1))
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_delivery_is_metered_and_counted() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    pushed(&node, &endpoint, json!({}), json!({})).await;
    endpoint.next([Does::Says(400)]);
    node.publish("a").await;
    until_delayed(&node).await;
    fleet.advance(10);
    until_delivered(&node).await;
    let usage = until("the delivery is metered", async || {
        let (_, page) = node.get("/v1/usage?by=subscription").await;
        let items = page["items"].as_array().unwrap().iter();
        items
            .clone()
            .find(|item| item["meter"] == "deliver_push")
            .cloned()
    })
    .await;
    assert_eq!(
        (&usage["units"], &usage["subscription"]),
        (&json!(1), &json!("s")),
        "{usage}"
    );
    let push = until("the state is stored", async || {
        let push = stats(&node).await["push"].take();
        (push["succeeded"] == 1).then_some(push)
    })
    .await;
    assert_eq!(
        (&push["state"], &push["failed"]),
        (&json!("active"), &json!(1))
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn what_is_not_taken_comes_again_by_policy_and_then_is_a_dead_letter() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    node.topic("dead").await;
    let retry = json!({"policy": "list", "delays_seconds": [10, 60]});
    let settings = json!({"dead_letter_topic": "dead"});
    pushed(&node, &endpoint, settings, json!({"retry": retry})).await;
    node.put("/v1/subscriptions/d", json!({"topic": "dead"}))
        .await;
    let plain = vec![("content-type", "text/plain".to_owned())];
    let last = Does::SaysWith(500, plain, Bytes::from_static(b"no such order"));
    // On a connection that was used before, the second request may be sent again at once.
    endpoint.next([Does::Closes(500), Does::Resets, last]);
    let id = node.publish("a").await;
    until_sent(&endpoint, 1).await;
    until_delayed(&node).await;
    fleet.advance(9);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(endpoint.sent().len(), 1, "not before its time");
    fleet.advance(1);
    until_sent(&endpoint, 2).await;
    until_delayed(&node).await;
    fleet.advance(59);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(endpoint.sent().len(), 2, "not before its time");
    fleet.advance(1);
    let dead = until("it is a dead letter", async || {
        let ask = json!({"max_messages": 1});
        let (_, got) = node.post("/v1/subscriptions/d/receive", ask).await;
        got["messages"]
            .as_array()
            .and_then(|all| all.first().cloned())
    })
    .await;
    assert_eq!(dead["body"], "a");
    let reason = dead["attributes"]["cursus-dead-letter-reason"]
        .as_str()
        .unwrap();
    assert_eq!(
        reason,
        "status 500; content-type: text/plain; body: no such order"
    );
    let sent = endpoint.sent();
    let attempts: Vec<_> = sent
        .iter()
        .map(|sent| sent.header("cursus-attempt"))
        .collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    let ids: Vec<_> = sent.iter().map(|sent| sent.header("webhook-id")).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && !id.contains('.')));
    let recorded = until("all attempts are recorded", async || {
        let (_, page) = node.get(&format!("/v1/messages/{id}/attempts")).await;
        page["items"]
            .as_array()
            .filter(|items| items.len() == 3)
            .cloned()
    })
    .await;
    assert_eq!(
        recorded[1]["error"],
        "the connection was closed before the response"
    );
    assert_eq!(recorded[2]["answer"], "no such order");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_endpoint_that_settles_later_keeps_the_lease() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    pushed(
        &node,
        &endpoint,
        json!({"visibility_timeout_seconds": 60}),
        json!({}),
    )
    .await;
    let later = vec![("cursus-settle", "later".to_owned())];
    endpoint.always(Does::SaysWith(202, later, Bytes::new()));
    node.publish("a").await;
    node.publish("b").await;
    until_sent(&endpoint, 2).await;
    let sent = endpoint.sent();
    let receipts = [sent[0].header("cursus-receipt")];
    let (_, acked) = node
        .post(
            &format!("{SUBSCRIPTION}/ack"),
            json!({"receipts": receipts}),
        )
        .await;
    assert_eq!(acked["results"], json!([{}]));
    assert_eq!(stats(&node).await["in_flight"], 1);
    endpoint.always(Does::Says(200));
    fleet.advance(61);
    until_sent(&endpoint, 3).await;
    until_delivered(&node).await;
    assert_eq!(endpoint.sent()[2].header("cursus-attempt"), "2");
    assert_eq!(endpoint.sent()[2].body, sent[1].body);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_gets_nothing_until_it_is_resumed() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    pushed(&node, &endpoint, json!({}), json!({})).await;
    endpoint.next([Does::Says(410)]);
    node.publish("a").await;
    let push = until("it is disabled", async || {
        let push = stats(&node).await["push"].take();
        (push["state"] == "disabled").then_some(push)
    })
    .await;
    assert_eq!(push["disabled_reason"], "answered with status 410");
    node.publish("b").await;
    fleet.advance(3_600);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bodies(&endpoint), ["a"]);
    let (status, _) = node
        .post(&format!("{SUBSCRIPTION}/push/resume"), json!({}))
        .await;
    assert_eq!(status, 200);
    until_delivered(&node).await;
    let mut sent = bodies(&endpoint);
    sent.sort();
    assert_eq!(sent, ["a", "a", "b"]);
    assert_eq!(stats(&node).await["push"]["state"], "active");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_endpoint_that_fails_for_long_is_disabled() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    let retry = json!({"policy": "list", "delays_seconds": [5]});
    let push = json!({"disable_after_seconds": 600, "retry": retry});
    pushed(&node, &endpoint, json!({}), push).await;
    endpoint.always(Does::Says(503));
    node.publish("a").await;
    until_sent(&endpoint, 1).await;
    until_delayed(&node).await;
    fleet.advance(590);
    until_sent(&endpoint, 2).await;
    until_delayed(&node).await;
    assert_ne!(stats(&node).await["push"]["state"], "disabled");
    fleet.advance(20);
    let push = until("it is disabled", async || {
        let push = stats(&node).await["push"].take();
        (push["state"] == "disabled").then_some(push)
    })
    .await;
    assert_eq!(
        push["disabled_reason"],
        "every request has failed for 600 seconds"
    );
    endpoint.always(Does::Says(200));
    node.post(&format!("{SUBSCRIPTION}/push/resume"), json!({}))
        .await;
    fleet.advance(10);
    until_delivered(&node).await;
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_paused_endpoint_gets_nothing_and_then_its_backlog() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    pushed(&node, &endpoint, json!({}), json!({})).await;
    node.publish("a").await;
    until_delivered(&node).await;
    node.post(&format!("{SUBSCRIPTION}/push/pause"), json!({}))
        .await;
    until("its driver has ended", async || {
        node.publish("probe").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        (stats(&node).await["ready"].as_u64() > Some(0)).then_some(())
    })
    .await;
    let before = endpoint.sent().len();
    node.publish("b").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(endpoint.sent().len(), before);
    assert_eq!(stats(&node).await["push"]["state"], "paused");
    node.post(&format!("{SUBSCRIPTION}/push/resume"), json!({}))
        .await;
    until_delivered(&node).await;
    assert_eq!(bodies(&endpoint).last().unwrap(), "b");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn messages_come_in_batches() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    node.topic_and_subscription(json!({})).await;
    for number in 0..25 {
        node.publish(&number.to_string()).await;
    }
    let push =
        json!({"format": "json_batch", "batch_max_messages": 10, "limits": {"concurrency": 1}});
    set(&node, &endpoint, json!({}), push).await;
    until_delivered(&node).await;
    let mut seen = Vec::new();
    for sent in endpoint.sent() {
        let batch = sent.json();
        let batch = batch["messages"].as_array().unwrap();
        assert!((1..=10).contains(&batch.len()));
        seen.extend(
            batch
                .iter()
                .map(|message| message["body"].as_str().unwrap().to_owned()),
        );
    }
    seen.sort_by_key(|number| number.parse::<u32>().unwrap());
    assert_eq!(
        seen,
        (0..25)
            .map(|number: u32| number.to_string())
            .collect::<Vec<_>>()
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn no_more_requests_run_than_the_limit_allows() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    endpoint.always(Does::Late(200, Duration::from_millis(20)));
    let push = json!({"limits": {"concurrency": 3}});
    pushed(&node, &endpoint, json!({}), push).await;
    for number in 0..40 {
        node.publish(&number.to_string()).await;
    }
    until_delivered(&node).await;
    assert_eq!((endpoint.sent().len(), endpoint.max_at_once()), (40, 3));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_overloaded_endpoint_is_left_alone_for_as_long_as_it_asks() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    let retry = json!({"policy": "list", "delays_seconds": [1]});
    pushed(&node, &endpoint, json!({}), json!({"retry": retry})).await;
    let after = vec![("retry-after", "2".to_owned())];
    endpoint.next([Does::SaysWith(429, after, Bytes::new())]);
    node.publish("a").await;
    until_sent(&endpoint, 1).await;
    until_delayed(&node).await;
    node.publish("b").await;
    fleet.advance(5);
    until_delivered(&node).await;
    let sent = endpoint.sent();
    let waited = sent[1].at - sent[0].at;
    assert!(waited >= Duration::from_millis(1_900), "{waited:?}");
    assert_eq!(sent.len(), 3);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_sample_is_sent_on_request() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    let auth = json!({"type": "bearer", "token": "secret-token"});
    pushed(&node, &endpoint, json!({}), json!({"auth": auth})).await;
    endpoint.next([Does::SaysWith(
        400,
        vec![("x-why", "no".to_owned())],
        Bytes::from_static(b"bad"),
    )]);
    let (status, test) = node
        .post(&format!("{SUBSCRIPTION}/push/test"), json!({}))
        .await;
    assert_eq!(status, 200, "{test}");
    assert_eq!(
        (&test["status"], &test["accepted"]),
        (&json!(400), &json!(false))
    );
    assert_eq!(
        (&test["answer_body"], &test["answer_headers"]["x-why"]),
        (&json!("bad"), &json!("no"))
    );
    assert_eq!(test["request_headers"]["authorization"], "***");
    assert_eq!(
        endpoint.sent()[0].header("authorization"),
        "Bearer secret-token"
    );
    assert_eq!(stats(&node).await["backlog"], 0);
    fleet.finish([node]).await;
}

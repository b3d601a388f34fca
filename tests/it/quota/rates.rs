//! Quotas of one tenant: rates and concurrent requests, what is refused and with which words, what is given back. How nodes
//! share a quota is `fleet`'s, what is counted `caps`'.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::harness::{Fleet, Node, send, until};

/// The headers that name what stood against a request, in order: when to come back, the policy, what is left.
pub(crate) fn said(response: &Response) -> [String; 3] {
    ["retry-after", "ratelimit-policy", "ratelimit"].map(|name| {
        let value = response.headers().get(name);
        value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
    })
}

/// Acks a receipt that is none: the cheapest request there is.
async fn ask(node: &Node) -> Response {
    let request = node.request(Method::POST, "/v1/subscriptions/s/ack");
    let request = request.json(&json!({"receipts": ["none"]}));
    request.send().await.unwrap()
}

/// Looks at a subscription: a request that yields when the service is short of capacity.
async fn see(node: &Node) -> Response {
    let request = node.request(Method::GET, "/v1/subscriptions/s");
    request.send().await.unwrap()
}

/// The metrics of a node have this text.
async fn assert_shows(node: &Node, text: &str) {
    let request = node.request(Method::GET, "/metrics");
    let metrics = request.send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(text), "{text} in {metrics}");
}

/// Sets a quota and waits until the node goes by it.
pub(crate) async fn set(fleet: &Fleet, node: &Node, quota: Value) {
    fleet.quota("default", quota.clone()).await;
    tokio::time::sleep(Duration::from_millis(1_900)).await;
    let (status, answer) = node.get("/v1/quota").await;
    assert_eq!((status, &answer["limits"]), (200, &quota));
}

#[tokio::test]
async fn a_request_above_the_ceiling_is_refused_with_when_to_come_back() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let unlimited = ask(&node).await;
    assert_eq!(
        (unlimited.status().as_u16(), said(&unlimited)),
        (200, ["", "", ""].map(String::from))
    );

    set(
        &fleet,
        &node,
        json!({"requests_per_second": {"guaranteed": 5, "ceiling": 10}}),
    )
    .await;
    let mut admitted = None;
    let refused = until("it is refused", async || {
        let response = ask(&node).await;
        if response.status().as_u16() == 200 {
            admitted = Some(said(&response));
            return None;
        }
        Some(response)
    })
    .await;

    let policy = r#""requests";q=10;w=1"#.to_owned();
    assert_eq!(refused.status().as_u16(), 429);
    assert_eq!(
        said(&refused),
        [
            "1".to_owned(),
            policy.clone(),
            r#""requests";r=0;t=1"#.to_owned()
        ]
    );
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(
        problem,
        json!({
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Quota exceeded",
            "status": 429,
            "detail": "the quota is 10 requests a second",
            "code": "quota_exceeded",
            "retryable": true,
            "violated-policies": ["requests"],
        })
    );
    if let Some([retry, told, left]) = admitted {
        assert_eq!((retry.as_str(), told), ("", policy));
        assert!(
            left.starts_with(r#""requests";r="#) && left.ends_with(";t=1"),
            "{left}"
        );
    }
    assert_shows(
        &node,
        r#"cursus_throttled_requests_total{policy="requests"}"#,
    )
    .await;
    assert_shows(
        &node,
        r#"cursus_http_shed_requests_total{limit="requests"}"#,
    )
    .await;
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_quota_that_is_taken_away_limits_nothing_any_more() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    set(
        &fleet,
        &node,
        json!({"requests_per_second": {"ceiling": 5}}),
    )
    .await;

    fleet.quota("default", json!({})).await;
    until("the quota is gone", async || {
        let answers = futures_util::future::join_all((0..30).map(|_| ask(&node))).await;
        let all = answers.iter().all(|answer| answer.status().as_u16() == 200);
        all.then_some(())
    })
    .await;
    assert_eq!(said(&ask(&node).await), ["", "", ""].map(String::from));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_batch_that_is_larger_than_the_bucket_is_admitted_and_paid_for_later() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    set(
        &fleet,
        &node,
        json!({"messages_per_second": {"ceiling": 20}}),
    )
    .await;
    let batch = |count: usize| {
        let messages = vec![json!({"body": "m"}); count];
        node.post("/v1/topics/t/messages/batch", json!({"messages": messages}))
    };

    let began = Instant::now();
    let (status, answer) = batch(60).await;
    assert_eq!(status, 200, "{answer}");
    let request = node
        .request(Method::POST, "/v1/topics/t/messages")
        .body("one");
    let refused = request.send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 429);
    let [again, policy, left] = said(&refused);
    assert_eq!(
        (policy.as_str(), again.as_str()),
        (r#""messages";qu="messages";q=20;w=1"#, "3")
    );
    assert_eq!(left, r#""messages";r=0;t=3"#);
    until("it is paid for", async || {
        (batch(1).await.0 == 200).then_some(())
    })
    .await;
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(2_600),
        "three seconds of messages, not {took:?}"
    );

    // A receive is a request, not messages.
    assert_eq!(node.receive(100).await.len(), 61);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_publish_that_stores_nothing_uses_up_no_quota() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    set(
        &fleet,
        &node,
        json!({"messages_per_second": {"ceiling": 8}, "bytes_per_second": {"ceiling": 1_000_000}}),
    )
    .await;
    let batch = |body: &str| {
        let messages = vec![json!({"body": body}); 8];
        let request = node.request(Method::POST, "/v1/topics/t/messages/batch");
        let request = request.header("idempotency-key", "\"k\"");
        send(request.json(&json!({"messages": messages})))
    };

    assert_eq!(batch("a").await.0, 200);
    until("there is room again", async || {
        (batch("b").await.0 == 422).then_some(())
    })
    .await;
    for _ in 0..5 {
        let (status, answer) = batch("b").await;
        assert_eq!(status, 422, "{answer}");
    }

    assert_eq!(node.receive(100).await.len(), 8);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn bytes_are_counted_also_of_a_body_that_streams() {
    let mut fleet = Fleet::new().await;
    fleet.hot_limit_bytes = 1_000;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    set(&fleet, &node, json!({"messages_per_second": {"ceiling": 1_000}, "bytes_per_second": {"ceiling": 100_000}})).await;
    let publish = |bytes: usize| {
        let request = node.request(Method::POST, "/v1/topics/t/messages");
        request.body(vec![b'x'; bytes]).send()
    };

    assert_eq!(publish(300_000).await.unwrap().status().as_u16(), 200);
    let refused = publish(100).await.unwrap();
    assert_eq!(refused.status().as_u16(), 429);
    let [_, policy, _] = said(&refused);
    assert_eq!(policy, r#""bytes";qu="content-bytes";q=100000;w=1"#);
    let (_, status) = node.get("/v1/quota").await;
    assert!(status["used"]["messages_per_second"].is_u64(), "{status}");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_place_is_given_back_by_an_answer_and_by_a_client_that_goes_away() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    set(&fleet, &node, json!({"concurrent_requests": 2})).await;
    let poll = || {
        let request = node.request(Method::POST, "/v1/subscriptions/s/receive");
        tokio::spawn(request.json(&json!({"wait_seconds": 20})).send())
    };

    let polls = [poll(), poll()];
    // This request takes a place itself, so it must not come before both have theirs.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let refused = until("both places are taken", async || {
        let response = ask(&node).await;
        (response.status().as_u16() == 429).then_some(response)
    })
    .await;
    let policy = r#""concurrent-requests";qu="concurrent-requests";q=2"#.to_owned();
    assert_eq!(
        said(&refused),
        [
            "1".to_owned(),
            policy,
            r#""concurrent-requests";r=0;t=1"#.to_owned()
        ]
    );
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["violated-policies"], json!(["concurrent-requests"]));

    polls[0].abort();
    until("the place of the one that went away is free", async || {
        (ask(&node).await.status().as_u16() == 200).then_some(())
    })
    .await;
    let (status, answer) = node.post("/v1/topics/t/messages", json!("m")).await;
    assert_eq!(status, 200, "{answer}");
    let [_, answered] = polls;
    assert_eq!(answered.await.unwrap().unwrap().status().as_u16(), 200);
    let both = tokio::join!(ask(&node), ask(&node));
    assert_eq!(
        (both.0.status().as_u16(), both.1.status().as_u16()),
        (200, 200)
    );
    fleet.finish([node]).await;
}

/// A node of a fleet with tenants of these names, a topic and a subscription each; and their keys.
async fn tenants<const N: usize>(names: [&str; N]) -> (Fleet, Node, [String; N]) {
    let fleet = Fleet::closed().await;
    let mut node = fleet.node().await;
    let mut keys = [const { String::new() }; N];
    for (key, name) in keys.iter_mut().zip(names) {
        *key = fleet.key(name).await;
        node.with_key(key);
        node.topic_and_subscription(json!({})).await;
    }
    (fleet, node, keys)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_database_is_short_only_what_is_guaranteed_is_served() {
    let (fleet, mut node, [sure, free, none]) = tenants(["sure", "free", "none"]).await;
    let rate = |guaranteed: u32| json!({"requests_per_second": {"guaranteed": guaranteed, "ceiling": 2_000}});
    fleet.quota("sure", rate(1_000)).await;
    fleet.quota("free", rate(0)).await;
    tokio::time::sleep(Duration::from_millis(1_900)).await;
    node.with_key(&free);
    assert_eq!(
        see(&node).await.status().as_u16(),
        200,
        "above its guarantee, while there is room"
    );

    // Turns that wait for a lock.
    let mut other = fleet.database.connect().await;
    let mut lock = other.begin().await.unwrap();
    let everything = "LOCK TABLE block IN SHARE ROW EXCLUSIVE MODE";
    sqlx::query(everything).execute(&mut *lock).await.unwrap();
    node.with_key(&none);
    let stuck = node
        .request(Method::POST, "/v1/topics/t/messages")
        .body("m");
    let stuck = tokio::spawn(stuck.send());
    node.with_key(&free);
    let shed = until("the wait is noticed", async || {
        let response = see(&node).await;
        (response.status().as_u16() == 503).then_some(response)
    })
    .await;

    let headers = ["1", r#""requests";q=0;w=1"#, r#""requests";r=0;t=1"#];
    assert_eq!(said(&shed), headers.map(String::from));
    let problem: Value = shed.json().await.unwrap();
    let kind = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
    assert_eq!(problem["type"], kind);
    assert_eq!(problem["code"], "reduced_capacity");
    assert_eq!(problem["violated-policies"], json!(["requests"]));
    for key in [&sure, &none] {
        node.with_key(key);
        for _ in 0..20 {
            assert_eq!(
                see(&node).await.status().as_u16(),
                200,
                "inside the guarantee"
            );
        }
    }
    assert_eq!(
        said(&see(&node).await),
        ["", "", ""].map(String::from),
        "it has no quota"
    );
    // A settle makes room, so it is served above the guarantee as well.
    node.with_key(&free);
    for verb in ["ack", "visibility", "settle"] {
        let nothing = node
            .post(&format!("/v1/subscriptions/s/{verb}"), json!({}))
            .await;
        assert_eq!(nothing.0, 400, "{verb}: {}", nothing.1);
    }
    assert_eq!(see(&node).await.status().as_u16(), 503);
    assert_shows(&node, "cursus_capacity_short 1").await;
    lock.commit().await.unwrap();
    assert_eq!(stuck.await.unwrap().unwrap().status().as_u16(), 200);
    node.with_key(&free);
    until("it is over", async || {
        (see(&node).await.status().as_u16() == 200).then_some(())
    })
    .await;
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_body_that_streams_keeps_its_place_until_it_is_read() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let large = node.request(Method::POST, "/v1/topics/t/messages");
    let (_, published) = send(large.body(vec![b'x'; 32 << 20])).await;
    set(&fleet, &node, json!({"concurrent_requests": 1})).await;
    let path = format!("/v1/messages/{}/body", published["id"].as_str().unwrap());

    let unread = node.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(unread.status().as_u16(), 200);
    assert_eq!(ask(&node).await.status().as_u16(), 429);
    drop(unread);
    until("its place is free", async || {
        (ask(&node).await.status().as_u16() == 200).then_some(())
    })
    .await;
    fleet.finish([node]).await;
}

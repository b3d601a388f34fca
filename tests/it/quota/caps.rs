//! What a quota counts: topics, subscriptions, bytes kept and messages in flight, over all nodes; and quotas that are refused
//! because more is in use.

use api::quota::Quota;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Fleet, is, refusal, send, until};
use crate::quota::rates::{said, set};

#[tokio::test]
async fn of_two_nodes_that_make_topics_at_the_limit_one_is_refused() {
    let fleet = Fleet::new().await;
    let nodes = [fleet.node().await, fleet.node().await];
    fleet
        .quota("default", json!({"topics": 3, "subscriptions": 1}))
        .await;
    for name in ["a", "b"] {
        nodes[0].topic(name).await;
    }
    for round in 0..5 {
        let (x, y) = (
            format!("/v1/topics/x{round}"),
            format!("/v1/topics/y{round}"),
        );
        let made = tokio::join!(nodes[0].put(&x, json!({})), nodes[1].put(&y, json!({})));
        let refused = match (made.0.0, made.1.0) {
            (201, 429) => made.1.1,
            (429, 201) => made.0.1,
            other => panic!("one of them, not {other:?}"),
        };
        assert_eq!(refused["detail"], "the quota is 3 topics, and 3 are in use");
        assert_eq!(refused["violated-policies"], json!(["topics"]));
        nodes[0].delete(&x).await;
        nodes[1].delete(&y).await;
    }
    // What exists is changed as before.
    assert_eq!(
        nodes[1]
            .put("/v1/topics/a", json!({"keep_consumed": true}))
            .await
            .0,
        200
    );
    let subscribe = |name: &str| format!("/v1/subscriptions/{name}");
    assert_eq!(
        nodes[0].put(&subscribe("s"), json!({"topic": "a"})).await.0,
        201
    );
    let request = nodes[1].request(Method::PUT, &subscribe("r"));
    let refused = request.json(&json!({"topic": "a"})).send().await.unwrap();
    let policy = r#""subscriptions";qu="subscriptions";q=1"#.to_owned();
    assert_eq!(
        said(&refused),
        [
            "60".to_owned(),
            policy,
            r#""subscriptions";r=0;t=60"#.to_owned()
        ]
    );
    assert_eq!(nodes[0].get(&subscribe("r")).await.0, 404);
    let (_, status) = nodes[0].get("/v1/quota").await;
    assert_eq!(
        (&status["used"]["topics"], &status["used"]["subscriptions"]),
        (&json!(2), &json!(1))
    );
    fleet.finish(nodes).await;
}

#[tokio::test]
async fn a_quota_below_what_is_in_use_is_refused() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    node.topic("u").await;
    node.publish("something that is kept").await;
    let try_set = async |tenant: &str, quota: Value| {
        let quota: Quota = serde_json::from_value(quota).unwrap();
        fleet
            .try_quota(tenant, &quota)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let below = |used: &str, of: &str, cap: u32| {
        Err(format!(
            "tenant default uses {used} of {of}, more than a quota of {cap}; what is above must be deleted first"
        ))
    };
    assert_eq!(
        try_set("default", json!({"topics": 1})).await,
        below("2", "topics", 1)
    );
    let (_, before) = node.get("/v1/quota").await;
    assert_eq!(before["limits"], json!({}), "nothing of it is applied");
    assert!(
        try_set("default", json!({"stored_bytes": 5}))
            .await
            .unwrap_err()
            .contains("of stored-bytes")
    );
    assert_eq!(
        try_set("nobody", json!({})).await,
        Err("tenant nobody does not exist".to_owned())
    );
    let invalid = json!({"requests_per_second": {"guaranteed": 2, "ceiling": 1}});
    let (status, problem) = node.put("/v1/admin/tenants/default/quota", invalid).await;
    let pointer = "/requests_per_second/guaranteed";
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (400, &json!(pointer))
    );
    assert_eq!(
        try_set("default", json!({"topics": 2, "subscriptions": 1})).await,
        Ok(())
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn what_is_kept_and_what_is_in_flight_is_bounded() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({"visibility_timeout_seconds": 30}))
        .await;
    set(
        &fleet,
        &node,
        json!({"stored_bytes": 3_000, "in_flight_messages": 3}),
    )
    .await;
    for _ in 0..5 {
        node.publish("a message").await;
    }

    let first = node.receive(2).await;
    let second = node.receive(2).await;
    assert_eq!((first.len(), second.len()), (2, 1), "no more than fit");
    let refused = refusal(node.post("/v1/subscriptions/s/receive", json!({})).await);
    assert_eq!(refused, is(429, "quota_exceeded", Value::Null));
    assert_eq!(node.ack(&[&first[0]["receipt"]]).await, [json!({})]);
    let third = until("there is room again", async || {
        let (status, answer) = node
            .post("/v1/subscriptions/s/receive", json!({"max_messages": 9}))
            .await;
        (status == 200).then_some(answer)
    })
    .await;
    assert_eq!(third["messages"].as_array().unwrap().len(), 1);
    // What was handed out and not settled comes again, however full it is.
    fleet.advance(31);
    let again = until("they come again", async || {
        let (status, answer) = node
            .post("/v1/subscriptions/s/receive", json!({"max_messages": 9}))
            .await;
        (status == 200).then_some(answer)
    })
    .await;
    assert_eq!(again["messages"].as_array().unwrap().len(), 3);

    let body: String = (0..2_000)
        .map(|n| char::from(b'a' + u8::try_from(n * n % 26).unwrap()))
        .collect();
    let publish = || {
        send(
            node.request(Method::POST, "/v1/topics/t/messages")
                .body(body.clone()),
        )
    };
    let refused = until("it is full", async || {
        let (status, problem) = publish().await;
        (status != 200).then_some((status, problem))
    })
    .await;
    assert_eq!(refused.1["violated-policies"], json!(["stored-bytes"]));
    fleet.finish([node]).await;
}

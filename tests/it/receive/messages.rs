//! The life of a message over HTTP: it is published, received, settled and redelivered, and never lost. Time moves by
//! the manual clock of the fleet.

use serde_json::{Value, json};

use crate::harness::{Fleet, all, code, send, text, until};

#[tokio::test]
async fn a_raw_message_comes_back_as_it_was_sent() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;

    let raw = node
        .request(reqwest::Method::POST, "/v1/topics/t/messages")
        .header("content-type", "image/png")
        .header("cursus-attr-zone", "b")
        .header("cursus-tag", "eu")
        .header("cursus-key", "42")
        .body(vec![0xff, 0x00, 0x7f]);
    let (status, published) = send(raw).await;
    let received = node.receive(10).await;

    assert_eq!(status, 200);
    let receipt = &received[0]["receipt"];
    let expected = json!([{
        "receipt": receipt,
        "id": published["id"],
        "topic": "t",
        "body_base64": "/wB/",
        "content_type": "image/png",
        "attributes": {"zone": "b"},
        "tag": "eu",
        "key": "42",
        "attempt": 1,
        "published_at": "2030-01-01T00:00:00.000Z",
        "visible_until": "2030-01-01T00:00:30.000Z",
    }]);
    assert_eq!(json!(received), expected);
    assert_eq!(node.ack(&[receipt]).await, [json!({})]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_batch_takes_text_bytes_and_json() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;

    let batch = json!({"messages": [
        {"body": "häßlich \"text\"", "attributes": {"a": "1", "b": "2"}, "tag": "x", "key": "k"},
        {"body_base64": "AP8="},
        {"json": {"n": [1, 2.50]}},
        {},
    ]});
    let (status, answer) = node.post("/v1/topics/t/messages/batch", batch).await;
    let received = node.receive(10).await;

    assert_eq!(
        (status, answer["results"].as_array().unwrap().len()),
        (200, 4)
    );
    assert_eq!(
        json!(all(&received, "id")),
        json!(all(answer["results"].as_array().unwrap(), "id"))
    );
    let bodies: Vec<Value> = received
        .iter()
        .map(|m| {
            json!([
                m["content_type"],
                m.get("body").unwrap_or(&m["body_base64"]),
                m["attributes"]
            ])
        })
        .collect();
    assert_eq!(
        bodies[0],
        json!(["text/plain; charset=utf-8", "häßlich \"text\"", {"a": "1", "b": "2"}])
    );
    assert_eq!(bodies[1][0], json!("application/octet-stream"));
    assert_eq!(bodies[1][1], json!("AP8="));
    assert_eq!(bodies[2][0], json!("application/json"));
    assert_eq!(
        serde_json::from_str::<Value>(bodies[2][1].as_str().unwrap()).unwrap(),
        json!({"n": [1, 2.5]})
    );
    assert_eq!(bodies[3][1], json!(""));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_bad_item_of_a_batch_leaves_its_neighbours_unharmed() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;

    let batch = json!({"messages": [
        {"body": "first"},
        {"body": "two", "json": 2},
        {"body_base64": "%"},
        {"body": "long", "tag": "x".repeat(129)},
        {"boddy": "typo"},
        {"body": "last"},
    ]});
    let (status, answer) = node.post("/v1/topics/t/messages/batch", batch).await;
    let received = node.receive(10).await;

    let results = answer["results"].as_array().unwrap();
    assert_eq!((status, results.len()), (200, 6));
    for (index, pointer) in [
        (1, "/messages/1"),
        (2, "/messages/2/body_base64"),
        (3, "/messages/3/tag"),
        (4, "/messages/4/boddy"),
    ] {
        assert_eq!(code(&results[index]), "invalid_request");
        assert_eq!(
            results[index]["error"]["errors"][0]["pointer"], pointer,
            "{}",
            results[index]
        );
    }
    assert_eq!(all(&received, "body"), ["first", "last"]);
    assert_eq!(all(&received, "id"), [&results[0]["id"], &results[5]["id"]]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_expired_lease_makes_the_message_visible_again_and_its_receipt_void() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let id = node.publish("a").await;
    let first = node.receive(1).await;
    assert_eq!(node.receive(1).await, [] as [Value; 0], "hidden");

    fleet.advance(31);
    let second = node.receive(1).await;

    assert_eq!(
        (&second[0]["id"], &second[0]["attempt"]),
        (&json!(id), &json!(2))
    );
    let results = node.ack(&[&first[0]["receipt"]]).await;
    assert_eq!(
        (code(&results[0]), &results[0]["error"]["status"]),
        ("lease_lost", &json!(409))
    );
    assert_eq!(node.ack(&[&second[0]["receipt"]]).await, [json!({})]);
    let results = node
        .ack(&[&second[0]["receipt"], &first[0]["receipt"]])
        .await;
    assert_eq!(results[0], json!({}), "done already");
    assert_eq!(code(&results[1]), "lease_lost", "by another");
    fleet.advance(3_600);
    assert_eq!(node.receive(1).await, [] as [Value; 0]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_receipt_past_its_deadline_works_while_no_other_receiver_has_the_message() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for body in ["a", "b"] {
        node.publish(body).await;
    }
    let received = node.receive(2).await;

    fleet.advance(100);
    let acked = node.ack(&[&received[0]["receipt"]]).await;
    let extended = node
        .results("visibility", json!({"changes": [{"receipt": received[1]["receipt"], "visibility_timeout_seconds": 60}]}))
        .await;

    assert_eq!(acked, [json!({})]);
    assert_eq!(extended[0]["visible_until"], "2030-01-01T00:02:40.000Z");
    assert_eq!(node.receive(2).await, [] as [Value; 0]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn forged_foreign_and_damaged_receipts_are_refused_one_by_one() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    node.put("/v1/subscriptions/other", json!({"topic": "t"}))
        .await;
    node.publish("a").await;
    let good = node.receive(1).await[0]["receipt"].clone();
    let (_, answer) = node
        .post("/v1/subscriptions/other/receive", json!({}))
        .await;
    let foreign = answer["messages"][0]["receipt"].clone();
    let mut damaged = text(&good);
    damaged.replace_range(3..4, if &damaged[3..4] == "A" { "B" } else { "A" });

    let results = node
        .ack(&[&json!("x"), &json!(""), &foreign, &json!(damaged), &good])
        .await;

    for bad in &results[..4] {
        assert_eq!(
            (code(bad), &bad["error"]["status"]),
            ("receipt_invalid", &json!(400))
        );
    }
    assert_eq!(results[4], json!({}));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_extended_message_stays_hidden_and_both_receipts_are_good() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for body in ["a", "b", "c"] {
        node.publish(body).await;
    }
    let old = node.receive(3).await;
    let changes: Vec<Value> = old[..2]
        .iter()
        .map(|m| json!({"receipt": m["receipt"], "visibility_timeout_seconds": 300}))
        .collect();

    let changed = node
        .results("visibility", json!({"changes": changes}))
        .await;
    fleet.advance(31);
    let due = node.receive(3).await;

    assert_eq!(
        all(&changed, "visible_until"),
        ["2030-01-01T00:05:00.000Z"; 2]
    );
    assert_eq!(
        (all(&due, "body"), all(&due, "attempt")),
        (vec![&json!("c")], vec![&json!(2)])
    );
    assert_eq!(
        node.ack(&[&old[0]["receipt"], &changed[1]["receipt"]])
            .await,
        [json!({}), json!({})]
    );
    assert_eq!(node.ack(&[&due[0]["receipt"]]).await, [json!({})]);
    fleet.advance(1_000);
    assert_eq!(node.receive(3).await, [] as [Value; 0]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn visibility_zero_makes_a_message_visible_at_once() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    node.publish("a").await;
    let first = node.receive(1).await;

    let change =
        json!({"changes": [{"receipt": first[0]["receipt"], "visibility_timeout_seconds": 0}]});
    node.results("visibility", change).await;
    let second = node.receive(1).await;

    assert_eq!(second[0]["attempt"], 2);
    assert_eq!(
        code(&node.ack(&[&first[0]["receipt"]]).await[0]),
        "lease_lost"
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_nacked_message_comes_back_after_its_delay() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for body in ["now", "later"] {
        node.publish(body).await;
    }
    let first = node.receive(2).await;

    let items = json!([
        {"receipt": first[0]["receipt"], "action": "nack"},
        {"receipt": first[1]["receipt"], "action": "nack", "delay_seconds": 600},
    ]);
    assert_eq!(node.settle(items).await, [json!({}), json!({})]);
    let now = node.receive(2).await;
    node.ack(&[&now[0]["receipt"]]).await;
    fleet.advance(599);
    let early = node.receive(2).await;
    fleet.advance(1);
    let later = node.receive(2).await;

    assert_eq!(
        (all(&now, "body"), all(&now, "attempt")),
        (vec![&json!("now")], vec![&json!(2)])
    );
    assert_eq!(early, [] as [Value; 0]);
    assert_eq!(
        (all(&later, "body"), all(&later, "attempt")),
        (vec![&json!("later")], vec![&json!(2)])
    );
    let results = node.ack(&[&first[1]["receipt"]]).await;
    assert_eq!(code(&results[0]), "lease_lost");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn one_call_can_mix_all_actions() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    node.topic_and_subscription(json!({"dead_letter_topic": "dead"}))
        .await;
    for body in ["ack", "nack", "extend", "dead_letter"] {
        node.publish(body).await;
    }
    let received = node.receive(10).await;

    let items: Vec<Value> = received
        .iter()
        .map(|m| json!({"receipt": m["receipt"], "action": m["body"]}))
        .collect();
    let results = node.settle(json!(items)).await;
    let again = node.receive(10).await;
    fleet.advance(31);
    let extended = node.receive(1).await;

    assert_eq!([&results[0], &results[1], &results[3]], [&json!({}); 3]);
    assert_eq!(results[2]["visible_until"], "2030-01-01T00:00:30.000Z");
    assert_eq!(all(&again, "body"), ["nack"]);
    assert!(["nack", "extend"].contains(&extended[0]["body"].as_str().unwrap()));
    let (_, dead) = node.get("/v1/topics/dead/messages").await;
    assert_eq!(dead["items"].as_array().unwrap().len(), 1);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_message_whose_attempts_are_used_up_goes_to_the_dead_letter_topic() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    node.topic_and_subscription(json!({"dead_letter_topic": "dead", "max_attempts": 2}))
        .await;
    let batch = json!({"messages": [{"body": "poison", "attributes": {"own": "1"}, "key": "k", "tag": "g"}]});
    let (_, published) = node.post("/v1/topics/t/messages/batch", batch).await;
    let id = &published["results"][0]["id"];

    for attempt in 1..=2 {
        let received = node.receive(1).await;
        assert_eq!(received[0]["attempt"], attempt);
        fleet.advance(31);
    }
    assert_eq!(node.receive(1).await, [] as [Value; 0]);
    let dead = until("the dead letter", async || {
        let (_, dead) = node.get("/v1/topics/dead/messages").await;
        (dead["items"] != json!([])).then_some(dead)
    })
    .await;

    let mut letter = dead["items"][0].clone();
    letter.as_object_mut().unwrap().remove("id");
    let expected = json!({
        "topic": "dead",
        "body": "poison",
        "content_type": "text/plain; charset=utf-8",
        "attributes": {
            "cursus-dead-letter-attempts": "2",
            "cursus-dead-letter-first-failed-at": "2030-01-01T00:00:30.000Z",
            "cursus-dead-letter-id": id,
            "cursus-dead-letter-last-failed-at": "2030-01-01T00:01:01.000Z",
            "cursus-dead-letter-reason": "max_attempts",
            "cursus-dead-letter-topic": "t",
            "own": "1",
        },
        "key": "k",
        "tag": "g",
        "published_at": "2030-01-01T00:01:02.000Z",
    });
    assert_eq!(letter, expected);
    fleet.advance(3_600);
    assert_eq!(
        node.receive(1).await,
        [] as [Value; 0],
        "and is gone from where it failed"
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_consumer_can_give_a_message_up_with_a_reason() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    node.topic_and_subscription(json!({"dead_letter_topic": "dead"}))
        .await;
    for body in ["a", "b"] {
        node.publish(body).await;
    }
    let received = node.receive(2).await;

    let item = json!([{"receipt": received[1]["receipt"], "action": "dead_letter", "reason": "cannot be parsed"}]);
    let results = node.settle(item.clone()).await;
    let again = node.settle(item).await;
    let (_, dead) = node.get("/v1/topics/dead/messages").await;

    assert_eq!(results, [json!({})]);
    assert_eq!(code(&again[0]), "lease_lost");
    assert_eq!(
        (
            dead["items"].as_array().unwrap().len(),
            &dead["items"][0]["body"]
        ),
        (1, &json!("b"))
    );
    let attributes = &dead["items"][0]["attributes"];
    assert_eq!(attributes["cursus-dead-letter-reason"], "cannot be parsed");
    assert_eq!(attributes["cursus-dead-letter-attempts"], "1");
    assert_eq!(
        node.ack(&[&received[0]["receipt"]]).await,
        [json!({})],
        "its neighbour is unharmed"
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn without_a_dead_letter_topic_a_message_is_redelivered_for_ever_and_cannot_be_given_up() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({"max_attempts": 1}))
        .await;
    node.publish("a").await;
    for attempt in 1..=3 {
        let received = node.receive(1).await;
        assert_eq!(received[0]["attempt"], attempt);
        let results = node
            .settle(json!([{"receipt": received[0]["receipt"], "action": "dead_letter"}]))
            .await;
        assert_eq!(code(&results[0]), "conflict");
        fleet.advance(31);
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn receiving_from_an_empty_topic_passes_over_nothing_that_comes_later() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    assert_eq!(node.receive(100).await, [] as [Value; 0]);
    node.publish("a").await;
    assert_eq!(all(&node.receive(100).await, "body"), ["a"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn any_number_of_messages_up_to_a_hundred_fits_into_one_answer() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for count in (1..=100_usize).filter(|count| matches!(count % 64, 0..=2 | 31..=33 | 62..=63)) {
        let messages: Vec<Value> = (0..count).map(|n| json!({"body": n.to_string()})).collect();
        let (status, answer) = node
            .post("/v1/topics/t/messages/batch", json!({"messages": messages}))
            .await;
        assert_eq!(status, 200, "{count}: {answer}");
        let received = node.receive(100).await;
        assert_eq!(received.len(), count);
        assert!(
            node.ack(&all(&received, "receipt"))
                .await
                .iter()
                .all(|result| *result == json!({})),
            "{count}"
        );
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn no_more_is_handed_out_than_may_be_in_flight() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({"max_in_flight": 2}))
        .await;
    for body in ["a", "b", "c"] {
        node.publish(body).await;
    }
    let two = node.receive(10).await;
    assert_eq!((two.len(), node.receive(10).await.len()), (2, 0));
    node.ack(&[&two[0]["receipt"]]).await;
    assert_eq!(all(&node.receive(10).await, "body"), ["c"]);
    fleet.finish([node]).await;
}

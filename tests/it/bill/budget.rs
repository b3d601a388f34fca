//! Budgets: alerts that are sent once, and a hard stop that holds on all nodes and lets go again.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bill::price::priced;
use crate::harness::endpoint::Endpoint;
use crate::harness::{Fleet, Node, all, is, refusal, until};
use crate::quota::rates::said;

const BUDGET: &str = "/v1/budgets/b";
/// Seconds of January 2030.
const MONTH: u64 = 31 * 86_400;

/// A tenant that pays one for each published message.
async fn one_each(node: &Node) {
    let prices = json!({"currency": "EUR", "prices": {"publish_units": {"unit_price": "1"}}});
    priced(node, "2030-01-01", prices).await;
    node.topic_and_subscription(json!({})).await;
}

/// Publishes, counts that, and compares it with the budgets.
async fn spend(fleet: &Fleet, node: &Node, messages: u32) -> u64 {
    for _ in 0..messages {
        node.publish("m").await;
    }
    fleet.meter().await;
    fleet.compare_budgets().await
}

async fn budget(node: &Node) -> Value {
    let (status, budget) = node.get(BUDGET).await;
    assert_eq!(status, 200, "{budget}");
    budget
}

/// The percents and costs of the alerts that were sent.
fn alerts(budget: &Value) -> Vec<(u64, &str)> {
    let alerts = budget["alerts"].as_array().unwrap().iter();
    let short = alerts.map(|alert| {
        let percent = alert["percent"].as_u64().unwrap();
        (percent, alert["cost"].as_str().unwrap())
    });
    short.collect()
}

async fn put(node: &Node, settings: Value) -> Value {
    let (status, budget) = node.put(BUDGET, settings).await;
    assert!(matches!(status, 200 | 201), "{budget}");
    budget
}

#[tokio::test]
async fn a_budget_is_made_shown_changed_and_deleted() {
    let fleet = Fleet::closed().await;
    let node = fleet.node_of("a").await;
    let made = node.put(BUDGET, json!({"amount": "100.00"})).await;
    let times = "2030-01-01T00:00:00.000Z";
    let shown = json!({
        "name": "b", "amount": "100", "alert_percents": [50, 80, 100], "hard_stop": false, "period": "2030-01",
        "cost": null, "currency": null, "percent": null, "alerts": [], "stopped": false, "created_at": times,
        "updated_at": times,
    });
    assert_eq!(
        made,
        (201, shown.clone()),
        "without a plan nothing has a cost"
    );
    assert_eq!(node.get(BUDGET).await, (200, shown.clone()));
    fleet.advance(5);
    let settings = json!({"amount": "7.5", "alert_percents": [90, 10, 90], "hard_stop": true});
    let (status, changed) = node.put(BUDGET, settings.clone()).await;
    assert_eq!(
        (status, &changed["amount"], &changed["alert_percents"]),
        (200, &json!("7.5"), &json!([10, 90]))
    );
    assert_eq!(changed["updated_at"], "2030-01-01T00:00:05.000Z");
    fleet.advance(5);
    assert_eq!(node.put(BUDGET, settings).await, (200, changed));
    for n in 1..20 {
        let path = format!("/v1/budgets/n{n}");
        assert_eq!(node.put(&path, json!({"amount": "1"})).await.0, 201);
    }
    let (_, listed) = node.get("/v1/budgets").await;
    let listed = listed["items"].as_array().unwrap();
    assert_eq!(all(listed, "name")[..2], [&json!("b"), &json!("n1")]);
    let one_more = refusal(node.put("/v1/budgets/o", json!({"amount": "1"})).await);
    assert_eq!(one_more, is(409, "conflict", Value::Null));
    for status in [204, 404] {
        assert_eq!(node.delete(BUDGET).await.0, status);
    }
    assert_eq!(
        refusal(node.get(BUDGET).await),
        is(404, "not_found", Value::Null)
    );

    let operator = fleet.key_for("operators", &["admin"]).await;
    let log = node.ask(&operator, Method::GET, "/v1/admin/audit?tenant=a", None);
    let (_, log) = log.await;
    let entries = log["items"].as_array().unwrap();
    assert_eq!(entries[0]["action"], "budget.delete");
    let puts = all(entries, "action")
        .into_iter()
        .filter(|a| **a == "budget.put");
    assert_eq!(puts.count(), 2 + 19, "what changes nothing is no change");
    // It is about all usage.
    let some = ["usage:orders.*", "manage:orders.*"];
    let some = fleet.key_for("a", &some).await;
    for (method, path) in [
        (Method::GET, "/v1/budgets"),
        (Method::GET, "/v1/budgets/n1"),
        (Method::PUT, "/v1/budgets/n1"),
        (Method::DELETE, "/v1/budgets/n1"),
    ] {
        let body = (method == Method::PUT).then(|| json!({"amount": "1"}));
        let refused = refusal(node.ask(&some, method.clone(), path, body).await);
        assert_eq!(
            refused,
            is(403, "forbidden", Value::Null),
            "{method} {path}"
        );
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_budget_is_named() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    for (settings, pointer) in [
        (json!({}), ""),
        (json!({"amount": 5}), "/amount"),
        (json!({"amount": "0"}), "/amount"),
        (json!({"amount": "-1"}), "/amount"),
        (json!({"amount": "0.00001"}), "/amount"),
        (json!({"amount": "1000000000000"}), "/amount"),
        (
            json!({"amount": "1", "alert_percents": [0]}),
            "/alert_percents/0",
        ),
        (
            json!({"amount": "1", "alert_percents": [5, 1001]}),
            "/alert_percents/1",
        ),
        (
            json!({"amount": "1", "alert_percents": vec![1; 11]}),
            "/alert_percents",
        ),
        (json!({"amount": "1", "hard_stop": "yes"}), "/hard_stop"),
        (json!({"amount": "1", "currency": "EUR"}), "/currency"),
    ] {
        let refused = refusal(node.put(BUDGET, settings.clone()).await);
        assert_eq!(
            refused,
            is(400, "invalid_request", json!(pointer)),
            "{settings}"
        );
    }
    let path = refusal(node.put("/v1/budgets/.b", json!({"amount": "1"})).await);
    assert_eq!(path, is(400, "invalid_request", json!("parameter:budget")));
    assert_eq!(node.get("/v1/budgets").await.1["items"], json!([]));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_alert_is_sent_once_a_month_whichever_node_compares() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    one_each(&node).await;
    put(&node, json!({"amount": "10"})).await;
    assert_eq!(spend(&fleet, &node, 4).await, 0);
    node.publish("m").await;
    fleet.meter().await;
    let sent = join_all((0..4).map(|_| fleet.compare_budgets())).await;
    // The node's own duty may have been first.
    assert!(sent.iter().sum::<u64>() <= 1, "{sent:?}");
    assert_eq!(alerts(&budget(&node).await), [(50, "5")]);
    assert_eq!(spend(&fleet, &node, 2).await, 0, "70 percent");

    node.stop().await;
    let node = fleet.node().await;
    spend(&fleet, &node, 5).await;
    let shown = budget(&node).await;
    assert_eq!(alerts(&shown), [(50, "5"), (80, "12"), (100, "12")]);
    assert_eq!(
        [
            &shown["cost"],
            &shown["percent"],
            &shown["currency"],
            &shown["stopped"]
        ],
        [&json!("12"), &json!(120), &json!("EUR"), &json!(false)]
    );
    assert_eq!(fleet.compare_budgets().await, 0);
    // Raised above what is spent it alerts again; set to what is spent, at once.
    let raised = put(&node, json!({"amount": "20"})).await;
    assert_eq!(alerts(&raised), [(50, "5")]);
    spend(&fleet, &node, 4).await;
    assert_eq!(alerts(&budget(&node).await), [(50, "5"), (80, "16")]);
    let lowered = put(&node, json!({"amount": "16", "alert_percents": [100]})).await;
    assert_eq!(alerts(&lowered), [(50, "5"), (80, "16"), (100, "16")]);

    fleet.advance(MONTH);
    let shown = budget(&node).await;
    assert_eq!(
        (&shown["period"], &shown["cost"], alerts(&shown)),
        (&json!("2030-02"), &json!("0"), vec![])
    );
    spend(&fleet, &node, 16).await;
    assert_eq!(alerts(&budget(&node).await), [(100, "16")]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_alert_is_an_event_for_the_sinks_of_the_tenant() {
    let fleet = Fleet::new().await;
    let (node, other) = (fleet.node().await, fleet.node().await);
    one_each(&node).await;
    let receiver = Endpoint::new().await;
    let sink = json!({"url": receiver.url(), "events": ["budget"]});
    let (status, sink) = node.put("/v1/event-sinks/e", sink).await;
    assert_eq!(status, 201, "{sink}");
    put(
        &node,
        json!({"amount": "4.00", "alert_percents": [50, 100], "hard_stop": true}),
    )
    .await;
    for _ in 0..2 {
        spend(&fleet, &node, 2).await;
        join_all((0..3).map(|_| fleet.compare_budgets())).await;
    }
    let sent = until("both are delivered", async || {
        let sent = receiver.sent();
        (sent.len() >= 2).then_some(sent)
    })
    .await;
    assert_eq!(sent.len(), 2);
    let event = |at: usize| sent[at].json();
    let data = |percent: u32, cost: &str, stopped: bool| {
        json!({
            "budget": "b", "period": "2030-01", "percent": percent, "amount": "4", "cost": cost, "currency": "EUR",
            "stopped": stopped,
        })
    };
    assert_eq!(
        [&event(0)["data"], &event(1)["data"]],
        [&data(50, "2", false), &data(100, "4", true)]
    );
    assert_eq!(
        [&event(0)["type"], &event(0)["subject"]],
        ["cursus.budget", "default"]
    );
    assert_ne!(event(0)["id"], event(1)["id"]);
    fleet.finish([node, other]).await;
}

/// Asks to publish, and to receive.
async fn statuses(node: &Node) -> [u16; 2] {
    let publish = node.post("/v1/topics/t/messages", json!("m")).await;
    let receive = node.post("/v1/subscriptions/s/receive", json!({})).await;
    [publish.0, receive.0]
}

#[tokio::test]
async fn a_hard_stop_refuses_publishes_and_receives_on_all_nodes_until_it_is_lifted() {
    let fleet = Fleet::new().await;
    let (a, b) = (fleet.node().await, fleet.node().await);
    one_each(&a).await;
    put(&a, json!({"amount": "3", "hard_stop": true})).await;
    for _ in 0..3 {
        a.publish("m").await;
    }
    let receipt = a.receive(1).await[0]["receipt"].clone();
    spend(&fleet, &a, 0).await;
    assert_eq!(alerts(&budget(&a).await).len(), 3);
    let stopped = async |node: &Node| (statuses(node).await == [429, 429]).then_some(());
    let lets_go = async |node: &Node| (statuses(node).await == [200, 200]).then_some(());
    for node in [&a, &b] {
        until("it is stopped", async || stopped(node).await).await;
    }
    let batch = json!({"messages": [{"body": "m"}]});
    assert_eq!(b.post("/v1/topics/t/messages/batch", batch).await.0, 429);
    let publish = b.request(Method::POST, "/v1/topics/t/messages").body("m");
    let refused = publish.send().await.unwrap();
    let left = MONTH.to_string();
    assert_eq!(
        said(&refused),
        [
            left.clone(),
            r#""budget";qu="requests";q=0"#.to_owned(),
            format!(r#""budget";r=0;t={left}"#),
        ]
    );
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(
        [&problem["code"], &problem["violated-policies"]],
        [&json!("quota_exceeded"), &json!(["budget"])]
    );
    assert_eq!(
        b.ack(&[&receipt]).await,
        [json!({})],
        "a lease can be ended"
    );
    assert_eq!(b.get("/v1/topics/t").await.0, 200);
    assert_eq!(budget(&b).await["stopped"], true);
    // Limits and the stop leave each other alone.
    fleet.quota("default", json!({"topics": 5})).await;
    assert_eq!(statuses(&a).await, [429, 429]);

    // Whatever lifts it does so on the node at once, and on the others soon.
    for (n, lift) in [
        json!({"amount": "100000", "hard_stop": true}),
        json!({"amount": "3", "hard_stop": false}),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(put(&a, lift).await["stopped"], false);
        assert_eq!(statuses(&a).await, [200, 200], "{n}");
        until("the other lets go", async || lets_go(&b).await).await;
        // What was published meanwhile is known only when it is counted.
        let again = put(&a, json!({"amount": "3", "hard_stop": true})).await;
        assert_eq!(
            (&again["stopped"], statuses(&a).await),
            (&json!(true), [429, 429])
        );
        until("it is stopped", async || stopped(&b).await).await;
    }
    assert_eq!(a.delete(BUDGET).await.0, 204);
    assert_eq!(statuses(&a).await, [200, 200]);
    until("the other lets go", async || lets_go(&b).await).await;
    assert_eq!(a.get("/v1/quota").await.1["limits"], json!({"topics": 5}));
    fleet.finish([a, b]).await;
}

#[tokio::test]
async fn a_new_month_lets_a_stopped_tenant_go_on() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    one_each(&node).await;
    put(&node, json!({"amount": "2", "hard_stop": true})).await;
    spend(&fleet, &node, 2).await;
    until("it is stopped", async || {
        (statuses(&node).await == [429, 429]).then_some(())
    })
    .await;
    fleet.advance(MONTH - 1);
    assert_eq!(statuses(&node).await, [429, 429]);
    fleet.advance(1);
    assert_eq!(statuses(&node).await, [200, 200], "by itself");
    assert_eq!(budget(&node).await["stopped"], false);
    fleet.compare_budgets().await;
    let stopped = "SELECT count(*) FROM quota WHERE stopped_until IS NOT NULL";
    let stopped: i64 = sqlx::query_scalar(stopped)
        .fetch_one(&mut fleet.database.connect().await)
        .await
        .unwrap();
    assert_eq!(stopped, 0);
    fleet.finish([node]).await;
}

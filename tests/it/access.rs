//! Who may do what: keys of a fleet, and tenants that see nothing of each other (I7).

use reqwest::Method;
use serde_json::{Value, json};

use crate::control::{is, refusal};
use crate::harness::node::{Fleet, Node, send};

#[tokio::test]
async fn without_a_key_a_fleet_answers_nobody() {
    let mut fleet = Fleet::new().await;
    fleet.open = false;
    let mut node = fleet.node().await;
    let response = node
        .request(Method::GET, "/v1/topics")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["www-authenticate"]
        ),
        (401, &"Bearer".parse().unwrap())
    );
    node.with_key("csk_wrong");
    assert_eq!(
        refusal(node.get("/v1/topics").await),
        is(401, "unauthenticated", Value::Null)
    );
    assert_eq!(node.get("/healthz").await.0, 200, "probes need none");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_tenant_sees_nothing_of_another() {
    let mut fleet = Fleet::new().await;
    fleet.open = false;
    let (mut a, mut b) = (fleet.node().await, fleet.node().await);
    a.with_key(&fleet.key("a").await);
    b.with_key(&fleet.key("b").await);
    a.topic_and_subscription(json!({})).await;
    let id = a.publish("secret").await;
    let receipt = a.receive(1).await[0]["receipt"].clone();

    for path in [
        "/v1/topics/t",
        "/v1/topics/t/stats",
        "/v1/topics/t/messages",
        "/v1/subscriptions/s",
        "/v1/subscriptions/s/stats",
        &format!("/v1/messages/{id}"),
        &format!("/v1/messages/{id}/body"),
    ] {
        assert_eq!(
            refusal(b.get(path).await),
            is(404, "not_found", Value::Null),
            "{path}"
        );
    }
    assert_eq!(b.get("/v1/topics").await, (200, json!({"items": []})));
    assert_eq!(b.post("/v1/topics/t/messages", json!({})).await.0, 404);
    assert_eq!(
        b.post("/v1/subscriptions/s/receive", json!({})).await.0,
        404
    );
    assert_eq!(b.delete("/v1/topics/t").await.0, 404);
    let linked = b.put("/v1/subscriptions/mine", json!({"topic": "t"})).await;
    assert_eq!(linked.0, 404, "{}", linked.1);

    // The same names are other things, and a receipt or id of the neighbour means nothing there.
    b.topic_and_subscription(json!({})).await;
    let browse = refusal(b.get(&format!("/v1/topics/t/messages?from={id}")).await);
    assert_eq!(browse, is(404, "not_found", Value::Null));
    assert_eq!(
        b.ack(&[&receipt]).await[0]["error"]["code"],
        "receipt_invalid"
    );
    assert_eq!(b.receive(1).await, [] as [Value; 0]);
    assert_eq!(a.ack(&[&receipt]).await, [json!({})]);
    fleet.finish([a, b]).await;
}

#[tokio::test]
async fn a_node_without_keys_serves_no_page_of_another_site() {
    let mut fleet = Fleet::new().await;
    let open = fleet.node().await;
    fleet.open = false;
    let closed = fleet.node().await;
    let ask = async |node: &Node, name: &str, value: &str| {
        let request = node.request(Method::GET, "/v1/topics");
        send(request.header(name, value)).await
    };

    for (name, value) in [("origin", "https://evil.example"), ("host", "evil.example")] {
        let (status, problem) = ask(&open, name, value).await;
        assert_eq!((status, &problem["code"]), (403, &json!("forbidden")));
        assert_eq!(ask(&closed, name, value).await.0, 401, "its key guards it");
    }
    let page = ask(&open, "origin", "http://localhost:3000").await;
    assert_eq!(page.0, 200);
    fleet.finish([open, closed]).await;
}

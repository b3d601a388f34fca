//! Headers of other standards that are sent with a message are returned with it: W3C Trace Context, CloudEvents.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Fleet, all, send};

const PARENT: &str = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";

#[tokio::test]
async fn the_trace_context_of_the_producer_comes_back_untouched() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let state = format!("vendor={}", "x".repeat(505));
    let post = |path: &str| {
        let request = node.request(Method::POST, path);
        request
            .header("traceparent", PARENT)
            .header("tracestate", &state)
    };

    let raw = post("/v1/topics/t/messages").body("raw");
    let large = post("/v1/topics/t/messages").body(vec![b'x'; 300 << 10]);
    let batch = json!({"messages": [{"body": "batch"}]});
    let batch = post("/v1/topics/t/messages/batch").json(&batch);
    for request in [raw, large, batch] {
        let (status, answer) = send(request).await;
        assert_eq!(status, 200, "{answer}");
    }
    node.publish("no trace").await;
    let received = node.receive(10).await;

    assert_eq!(received.len(), 4);
    assert_eq!(all(&received[..3], "traceparent"), [PARENT; 3]);
    assert_eq!(all(&received[..3], "tracestate"), [&*state; 3]);
    assert_eq!(received[3].get("traceparent"), None);
    let path = format!("/v1/messages/{}", received[0]["id"].as_str().unwrap());
    assert_eq!(node.get(&path).await.1["tracestate"], json!(state));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn headers_of_a_cloudevent_are_attributes_with_their_values_decoded() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let event = node.request(Method::POST, "/v1/topics/t/messages");
    let event = event
        .header("ce-id", "1")
        .header("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80");
    let broken = node.request(Method::POST, "/v1/topics/t/messages");

    let (status, answer) = send(event.body("{}")).await;
    let (refused, problem) = send(broken.header("ce-subject", "%E2%82").body("{}")).await;
    let received = node.receive(10).await;

    assert_eq!(status, 200, "{answer}");
    let header: &Value = &problem["errors"][0]["header"];
    assert_eq!((refused, header), (400, &json!("ce-subject")));
    assert_eq!(
        json!(all(&received, "attributes")),
        json!([{"ce-id": "1", "ce-subject": "Euro € 😀"}])
    );
    fleet.finish([node]).await;
}

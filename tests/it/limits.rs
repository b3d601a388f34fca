//! Limits over HTTP: what is just allowed works, what is just beyond is refused with the limit, its field and nothing
//! stored, and a hostile request costs the node no more than an honest one.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::node::{Fleet, Node, send};

const RAW: &str = "/v1/topics/t/messages";
const BATCH: &str = "/v1/topics/t/messages/batch";

/// Status, code, and the first invalid field with what is said of it.
fn refused((status, problem): &(u16, Value)) -> (u16, &str, &str, &str) {
    let text = |value: &'static str| problem.pointer(value).and_then(Value::as_str);
    (
        *status,
        text("/code").unwrap_or(""),
        text("/errors/0/pointer").unwrap_or(""),
        text("/errors/0/detail").unwrap_or(""),
    )
}

async fn batch_text(node: &Node, text: String) -> (u16, Value) {
    let request = node
        .request(Method::POST, BATCH)
        .header("content-type", "application/json");
    send(request.body(text)).await
}

#[tokio::test]
async fn hundreds_of_thousands_of_attributes_make_one_short_error() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let names: Vec<String> = (0..700_000).map(|n| format!(r#""{n}":"""#)).collect();
    let one = format!(r#"{{"attributes":{{{}}}}}"#, names.join(","));

    let alone = batch_text(&node, format!(r#"{{"messages":[{one}]}}"#)).await;
    let beside = batch_text(&node, format!(r#"{{"messages":[{{"body":"a"}},{one}]}}"#)).await;
    let unknown = format!(r#"{{"messages":[{{"{}":1}}]}}"#, "x".repeat(1 << 20));
    let unknown = batch_text(&node, unknown).await;

    assert_eq!(
        refused(&alone),
        (
            400,
            "invalid_request",
            "/messages/0/attributes",
            "at most 32 attributes, has more"
        )
    );
    assert_eq!(alone.1["errors"].as_array().unwrap().len(), 1);
    assert_eq!(beside.0, 200);
    let error = &beside.1["results"][1]["error"]["errors"];
    assert_eq!(error.as_array().unwrap().len(), 1);
    assert_eq!(error[0]["pointer"], "/messages/1/attributes");
    assert!(unknown.1.to_string().len() < 2_000);
    assert_eq!(node.receive(10).await.len(), 1);
    fleet.finish([node]).await;
}

//! Limits over HTTP: what is just allowed works, what is just beyond is refused with the limit, its field and nothing
//! stored, and a hostile request costs the node no more than an honest one.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Fleet, Node, send};

const RAW: &str = "/v1/topics/t/messages";
const BATCH: &str = "/v1/topics/t/messages/batch";

/// Status, code, and the first invalid field with its detail.
fn refused((status, problem): &(u16, Value)) -> (u16, &str, &str, &str) {
    let text = |value: &'static str| problem.pointer(value).and_then(Value::as_str);
    (
        *status,
        text("/code").unwrap_or(""),
        ["pointer", "parameter", "header"]
            .iter()
            .find_map(|kind| problem.pointer(&format!("/errors/0/{kind}"))?.as_str())
            .unwrap_or(""),
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

/// The answer to a request as text, over a socket of its own.
async fn speak(node: &Node, head: &str) -> String {
    let mut peer = TcpStream::connect(node.address).await.unwrap();
    peer.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = peer.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused_in_both_protocols() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let h2 = reqwest::Client::builder().no_proxy();
    let h2 = h2.http2_prior_knowledge().build().unwrap();
    let url = format!("http://{}/healthz", node.address);
    let long = "x".repeat(70 << 10);
    let many = (0..101).map(|n| format!("x-{n}: 1\r\n"));
    let many: String = many.collect();

    let head = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let long1 = speak(&node, &format!("{head}x-long: {long}\r\n\r\n")).await;
    let many1 = speak(&node, &format!("{head}{many}\r\n")).await;
    let long2 = h2.get(&url).header("x-long", &long).send().await.unwrap();
    let many2 = (0..101).fold(h2.get(&url), |get, n| get.header(format!("x-{n}"), "1"));
    let many2 = send(many2).await;

    assert!(long1.starts_with("HTTP/1.1 431 "), "{long1}");
    assert!(long1.contains("headers_too_large"), "{long1}");
    assert!(many1.starts_with("HTTP/1.1 431 "), "{many1}");
    assert_eq!(long2.status(), 431);
    assert!(long2.text().await.unwrap().contains("headers_too_large"));
    assert_eq!(
        (many2.0, &many2.1["code"]),
        (431, &json!("headers_too_large"))
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_query_parameter_that_no_route_reads_is_refused_by_name() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for path in [
        format!("{RAW}?delay_seconds=5"),
        format!("{BATCH}?delay_seconds=5"),
        "/v1/subscriptions/s/receive?delay_seconds=5".to_owned(),
        "/v1/subscriptions/s/ack?delay_seconds=5".to_owned(),
    ] {
        let answer = node.post(&path, json!({})).await;
        let pointer = "delay_seconds";
        assert_eq!(refused(&answer).2, pointer, "{path}: {answer:?}");
    }
    let answer = node.put("/v1/topics/t?retention=1", json!({})).await;
    assert_eq!(refused(&answer).2, "retention");
    assert_eq!(
        node.receive(1).await,
        [] as [Value; 0],
        "nothing was published"
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn attributes_are_bounded_in_number_name_and_size() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let batch = async |attributes: Value| {
        let message = json!({"body": "a", "attributes": attributes});
        node.post(BATCH, json!({"messages": [message]})).await
    };
    let numbered = |count: usize| {
        let names = (0..count).map(|n| (format!("n{n}"), json!("")));
        Value::Object(names.collect())
    };
    let name =
        |chars: usize| Value::Object([("ä".repeat(chars), json!("v"))].into_iter().collect());
    let at = "/messages/0/attributes";

    for good in [
        numbered(32),
        name(128),
        json!({"n": "x".repeat((16 << 10) - 1)}),
    ] {
        assert_eq!(batch(good).await.0, 200);
    }
    let many = batch(numbered(33)).await;
    assert_eq!(refused(&many).2, at);
    let large = batch(json!({"n": "x".repeat(16 << 10)})).await;
    assert_eq!(
        refused(&large),
        (
            400,
            "invalid_request",
            at,
            "at most 16384 bytes together, has 16385"
        )
    );
    let long = batch(name(129)).await;
    assert_eq!(refused(&long).3, "must have 1 to 128 characters, has 129");
    let headers = (0..33).fold(node.request(Method::POST, RAW), |request, n| {
        request.header(format!("cursus-attr-{n}"), "v")
    });
    let headers = send(headers.body("a")).await;
    assert_eq!(refused(&headers).2, "cursus-attr");
    let long = node.request(Method::POST, RAW);
    let long = long.header(format!("cursus-attr-{}", "x".repeat(129)), "v");
    assert_eq!(refused(&send(long.body("a")).await).0, 400);
    assert_eq!(
        node.receive(10).await.len(),
        3,
        "what was refused is not stored"
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_idempotency_key_is_taken_plain_and_up_to_its_limit() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let publish = async |key: &str| {
        let request = node.request(Method::POST, RAW);
        send(request.header("idempotency-key", key).body("a")).await
    };

    let plain = publish("8e03978e").await;
    let quoted = publish("\"8e03978e\"").await;
    let longest = publish(&format!("\"{}\"", "k".repeat(255))).await;
    let longer = publish(&format!("\"{}\"", "k".repeat(256))).await;
    let broken = publish("\"8e03").await;

    assert_eq!(plain.0, 200);
    assert_eq!(plain, quoted, "the same key, so the first answer again");
    assert_eq!(longest.0, 200);
    assert_eq!(
        refused(&longer),
        (
            400,
            "invalid_request",
            "idempotency-key",
            "must have 1 to 255 characters, has 256"
        )
    );
    assert_eq!(refused(&broken).2, "idempotency-key");
    assert_eq!(node.receive(10).await.len(), 2);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn settings_and_settles_keep_to_their_ranges() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for (path, field, good, bad) in [
        (
            "/v1/topics/t",
            "dedup_window_seconds",
            [60, 86_400],
            [59, 86_401],
        ),
        (
            "/v1/topics/t",
            "retention_seconds",
            [60, 2_678_400],
            [59, 2_678_401],
        ),
        (
            "/v1/subscriptions/s",
            "max_in_flight",
            [1, 1_000_000],
            [0, 1_000_001],
        ),
        (
            "/v1/subscriptions/s",
            "max_attempts",
            [1, 1_000],
            [0, 1_001],
        ),
    ] {
        for value in good {
            let answer = node.put(path, json!({field: value})).await;
            assert_eq!((answer.0, &answer.1[field]), (200, &json!(value)));
        }
        for value in bad {
            let answer = node.put(path, json!({field: value})).await;
            assert_eq!(refused(&answer).2, format!("/{field}"), "{answer:?}");
        }
    }
    let reason = "x".repeat(513);
    for (item, field) in [
        (
            json!({"receipt": "r", "action": "dead_letter", "reason": reason}),
            "reason",
        ),
        (
            json!({"receipt": "r", "action": "nack", "delay_seconds": 43_201}),
            "delay_seconds",
        ),
        (
            json!({"receipt": "r", "action": "ack", "delay_seconds": 1}),
            "delay_seconds",
        ),
    ] {
        let path = "/v1/subscriptions/s/settle";
        let answer = node.post(path, json!({"items": [item]})).await;
        assert_eq!(refused(&answer).2, format!("/items/0/{field}"));
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn json_is_bounded_and_the_error_points_to_where_it_is_broken() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("t").await;
    let put = async |text: String| {
        let request = node.request(Method::PUT, "/v1/topics/t");
        let request = request.header("content-type", "application/json");
        send(request.body(text)).await
    };

    let full = put(format!("{{}}{}", " ".repeat((1 << 20) - 2))).await;
    let over = put(format!("{{}}{}", " ".repeat((1 << 20) - 1))).await;
    let broken = put(r#"{"retention_seconds":60,"keep_consumed":,}"#.to_owned()).await;
    let batch = batch_text(&node, r#"{"messages":[{"body":"a"},{"body":"#.to_owned()).await;

    assert_eq!(full.0, 200);
    assert_eq!((over.0, &over.1["code"]), (413, &json!("body_too_large")));
    let (_, code, pointer, detail) = refused(&broken);
    assert_eq!((code, pointer), ("invalid_request", "/keep_consumed"));
    assert!(detail.starts_with("is not JSON: expected value at line 1"));
    let (_, code, pointer, detail) = refused(&batch);
    assert_eq!((code, pointer), ("invalid_request", "/messages/1"));
    assert!(detail.starts_with("is not JSON: EOF"), "{detail}");
    fleet.finish([node]).await;
}

//! What the service does apart from messages: probes, metrics, documents, HEAD, codings, digests, links.

use std::time::Duration;

use api::limits::HELD_BODIES_BYTES_MAX;
use async_compression::tokio::bufread::GzipEncoder;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::log::noise;
use crate::harness::{Fleet, Node, all, send, text, until};

const RAW: &str = "/v1/topics/t/messages";

/// Status, a header of the answer, and its body as text.
async fn ask(node: &Node, method: Method, path: &str, name: &str) -> (u16, String, String) {
    let response = node.request(method, path).send().await.unwrap();
    let header = response.headers().get(name);
    let header = header
        .map_or("", |value| value.to_str().unwrap())
        .to_owned();
    let status = response.status().as_u16();
    (status, header, response.text().await.unwrap())
}

#[tokio::test]
async fn probes_metrics_and_documents_are_served_to_everyone() {
    let fleet = Fleet::closed().await;
    let node = fleet.node().await;
    let get = async |path: &str| ask(&node, Method::GET, path, "content-type").await;

    assert_eq!(node.get("/healthz").await, (200, json!({"status": "ok"})));
    let (status, ready) = node.get("/readyz").await;
    assert_eq!((status, &ready["ready"]), (200, &json!(true)));
    let parts = all(ready["parts"].as_array().unwrap(), "part");
    assert_eq!(parts, ["database", "object_storage", "node"]);
    let (status, refused) = node.get("/readyz?exclude=colour").await;
    assert_eq!(
        (status, &refused["errors"][0]["parameter"]),
        (400, &json!("exclude"))
    );
    let (status, kind, metrics) = get("/metrics").await;
    assert!(status == 200 && kind.starts_with("text/plain"));
    assert!(metrics.contains("cursus_http_request_duration_seconds_bucket"));
    assert!(!metrics.contains("# EOF"), "the classic format");
    let request = node.request(Method::GET, "/metrics");
    let request = request.header("accept", "application/openmetrics-text");
    let metrics = request.send().await.unwrap().text().await.unwrap();
    assert!(metrics.ends_with("# EOF\n"));
    let (status, kind, document) = get("/openapi.json").await;
    assert_eq!((status, kind.as_str()), (200, "application/json"));
    assert!(serde_json::from_str::<Value>(&document).is_ok());
    // A client follows the redirect of the root.
    let (status, kind, root) = get("/").await;
    assert!(status == 200 && kind.starts_with("text/html"), "{kind}");
    let (status, kind, page) = get("/docs/").await;
    assert_eq!(root, page);
    assert!(status == 200 && kind.starts_with("text/html"), "{kind}");
    assert!(page.contains("swagger-ui"));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn head_answers_as_get_without_a_body() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("t").await;
    let id = node.publish("hello").await;
    for path in [
        "/healthz".to_owned(),
        "/v1/topics/t".to_owned(),
        format!("/v1/messages/{id}/body"),
    ] {
        let head = ask(&node, Method::HEAD, &path, "content-length").await;
        let (status, length, body) = ask(&node, Method::GET, &path, "content-length").await;
        assert_eq!((status, length.as_str()), (200, &*body.len().to_string()));
        assert_eq!(head, (200, length, String::new()), "{path}");
    }
    let none = ask(&node, Method::HEAD, "/v1/topics/none", "content-type").await;
    assert_eq!((none.0, none.1.as_str()), (404, "application/problem+json"));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_gzip_body_of_several_members_is_stored_whole() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let mut coded = Vec::new();
    for member in ["hello, ", "world"] {
        let mut encoder = GzipEncoder::new(member.as_bytes());
        encoder.read_to_end(&mut coded).await.unwrap();
    }
    let publish = node.request(Method::POST, RAW);
    let publish = publish.header("content-type", "text/plain");

    let (status, answer) = send(publish.header("content-encoding", "gzip").body(coded)).await;

    assert_eq!(status, 200, "{answer}");
    assert_eq!(all(&node.receive(10).await, "body"), ["hello, world"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_body_that_is_not_what_its_digest_says_is_not_stored() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    // Of {"hello": "world"} (RFC 9530, appendix B.1).
    let digest = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
    let post = async |path: &str, body: Vec<u8>| {
        let request = node.request(Method::POST, path);
        send(request.header("content-digest", digest).body(body)).await
    };
    let publish = async |body: Vec<u8>| post(RAW, body).await;

    let (status, published) = publish(br#"{"hello": "world"}"#.to_vec()).await;
    let held = publish(b"{}".to_vec()).await;
    let streamed = publish(noise(1 << 20)).await;

    assert_eq!(status, 200, "{published}");
    // Routes of JSON check it, too.
    let batch = br#"{"messages":[{"body":"a"}]}"#.to_vec();
    let batch = post(&format!("{RAW}/batch"), batch).await;
    let ack = br#"{"receipts":["a"]}"#.to_vec();
    let ack = post("/v1/subscriptions/s/ack", ack).await;
    for (status, problem) in [held, streamed, batch, ack] {
        let header = &problem["errors"][0]["header"];
        assert_eq!((status, header), (400, &json!("content-digest")));
    }
    let path = format!("/v1/messages/{}/body", text(&published["id"]));
    let body = ask(&node, Method::GET, &path, "content-digest").await;
    assert_eq!((body.0, body.1.as_str()), (200, digest));
    assert_eq!(node.receive(10).await.len(), 1);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn the_samples_of_the_document_work_as_they_are() {
    let mut fleet = Fleet::new().await;
    fleet.open = true;
    let node = fleet.node().await;
    let (_, document) = node.get("/openapi.json").await;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.push((path, method.to_uppercase(), operation));
        }
    }
    // What samples refer to is made by samples of these.
    let first = ["put_topic", "put_subscription", "put_tenant"];
    operations.sort_by_key(|(_, _, operation)| {
        let id = text(&operation["operationId"]);
        first
            .iter()
            .position(|one| *one == id)
            .unwrap_or(first.len())
    });
    for (path, method, operation) in operations {
        let contents = operation["requestBody"]["content"].as_object();
        for (media, content) in contents.into_iter().flatten() {
            let sample = &content["example"];
            if sample.is_null() {
                continue;
            }
            let mut path = path.clone();
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = format!("{{{}}}", text(&parameter["name"]));
                if parameter["in"] == "path" {
                    path = path.replace(&name, &text(&parameter["example"]));
                }
            }
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let request = node.request(method, &path).header("content-type", media);
            let body = sample.as_str().map_or(sample.to_string(), str::to_owned);
            let (status, answer) = send(request.body(body)).await;
            let id = text(&operation["operationId"]);
            // Their receipts are none, and the key to rotate does not exist.
            let expected: &[u16] = match id.as_str() {
                "ack" | "change_visibility" | "settle" => &[200, 400],
                "rotate_key" => &[404],
                // The messages of the subscription are received.
                "rotate_push_secret" => &[409],
                _ => &[200, 201],
            };
            assert!(expected.contains(&status), "{id}: {status} {answer}");
        }
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn conditions_are_compared_with_the_etag_of_a_body() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("t").await;
    let id = node.publish("hello").await;
    let path = format!("/v1/messages/{id}/body");
    let etag = format!("\"{id}\"");
    for (name, value, status) in [
        ("if-none-match", &*etag, 304),
        ("if-none-match", "\"other\"", 200),
        ("if-match", &etag, 200),
        ("if-match", "\"other\"", 412),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let request = node.request(method.clone(), &path).header(name, value);
            let response = request.header("range", "bytes=0-1").send().await.unwrap();
            let is_part = status == 200 && method == Method::GET;
            let expected = if is_part { 206 } else { status };
            assert_eq!(response.status(), expected, "{method} {name} {value}");
            let tag = response.headers().get("etag");
            assert_eq!(tag.is_some(), status != 412, "{method} {name} {value}");
        }
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn bodies_in_progress_have_one_budget() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let head = format!(
        "POST {RAW}/batch HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 10000000\r\n\r\n"
    );
    // Clients that announce a long batch and stop. A tenant may hold two thirds of the budget.
    let mut stalled = Vec::new();
    let refused = loop {
        let mut peer = TcpStream::connect(node.address).await.unwrap();
        peer.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 1024];
        let read = tokio::time::timeout(Duration::from_millis(300), peer.read(&mut answer));
        if let Ok(read) = read.await {
            answer.truncate(read.unwrap());
            break String::from_utf8(answer).unwrap();
        }
        stalled.push(peer);
    };
    assert_eq!(stalled.len(), HELD_BODIES_BYTES_MAX / 3 * 2 / 10_000_000);
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("\"bodies\";r=0"), "{refused}");
    // A short body needs none of it.
    node.publish("short").await;
    drop(stalled);
    let batch = json!({"messages": (0..50).map(|_| json!({"body": "x".repeat(100_000)})).collect::<Vec<_>>()});
    until("the budget is free again", async || {
        let request = node.request(Method::POST, &format!("{RAW}/batch"));
        (send(request.json(&batch)).await.0 == 200).then_some(())
    })
    .await;
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_page_links_to_the_next_one() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    for name in ["a", "b", "t"] {
        node.topic(name).await;
    }
    let first = node.publish("1").await;
    node.publish("2").await;

    let list = ask(&node, Method::GET, "/v1/topics?limit=1", "link").await;
    let last = ask(&node, Method::GET, "/v1/topics?limit=1&after=b", "link").await;
    let browse = ask(&node, Method::GET, &format!("{RAW}?limit=1"), "link").await;

    assert_eq!(list.1, "</v1/topics?limit=1&after=a>; rel=\"next\"");
    assert_eq!(last.1, "");
    assert_eq!(
        browse.1,
        format!("<{RAW}?limit=1&after={first}>; rel=\"next\"")
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_full_queue_of_publishes_is_reported_as_reduced_capacity() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    // The turn waits for the lane, so publishes gather behind it.
    let mut sql = fleet.database.connect().await;
    for hold in ["BEGIN", "SELECT FROM lane FOR UPDATE"] {
        sqlx::query(hold).execute(&mut sql).await.unwrap();
    }
    let body = Bytes::from(vec![b'x'; 250_000]);
    let publish = |_| node.request(Method::POST, RAW).body(body.clone()).send();
    let mut answers: FuturesUnordered<_> = (0..400).map(publish).collect();

    // Those in the queue wait, so the first that is answered at all is one that found it full.
    let refused = answers.next().await.unwrap().unwrap();
    sqlx::query("ROLLBACK").execute(&mut sql).await.unwrap();
    let rest: Vec<_> = answers
        .map(|answer| answer.unwrap().status().as_u16())
        .collect()
        .await;

    let head = |name: &str| refused.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(refused.status(), 503);
    assert_eq!(head("retry-after"), "1");
    assert_eq!(head("ratelimit"), r#""queue";r=0;t=1"#);
    assert_eq!(
        head("ratelimit-policy"),
        r#""queue";qu="content-bytes";q=67108864"#
    );
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "reduced_capacity");
    assert_eq!(problem["violated-policies"], json!(["queue"]));
    let kind = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
    assert_eq!(problem["type"], kind);
    let stored = rest.iter().filter(|status| **status == 200).count();
    assert!(stored >= 268, "{stored} of 64 MiB");
    fleet.finish([node]).await;
}

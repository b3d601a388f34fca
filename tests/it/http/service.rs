//! What the service does apart from messages: probes, metrics, documents, HEAD, codings, digests, links.

use async_compression::tokio::bufread::GzipEncoder;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::harness::log::noise;
use crate::harness::{Fleet, Node, all, send, text};

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
    let (status, kind, metrics) = get("/metrics").await;
    assert!(status == 200 && kind.starts_with("application/openmetrics-text"));
    assert!(metrics.contains("cursus_http_request_duration_seconds_bucket"));
    assert!(metrics.ends_with("# EOF\n"));
    let (status, kind, document) = get("/openapi.json").await;
    assert_eq!((status, kind.as_str()), (200, "application/json"));
    assert!(serde_json::from_str::<Value>(&document).is_ok());
    let (status, kind, page) = get("/docs/").await;
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
    let publish = async |body: Vec<u8>| {
        let request = node.request(Method::POST, RAW);
        send(request.header("content-digest", digest).body(body)).await
    };

    let (status, published) = publish(br#"{"hello": "world"}"#.to_vec()).await;
    let held = publish(b"{}".to_vec()).await;
    let streamed = publish(noise(1 << 20)).await;

    assert_eq!(status, 200, "{published}");
    for (status, problem) in [held, streamed] {
        let pointer = &problem["errors"][0]["pointer"];
        assert_eq!((status, pointer), (400, &json!("header:content-digest")));
    }
    let path = format!("/v1/messages/{}/body", text(&published["id"]));
    let body = ask(&node, Method::GET, &path, "content-digest").await;
    assert_eq!((body.0, body.1.as_str()), (200, digest));
    assert_eq!(node.receive(10).await.len(), 1);
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

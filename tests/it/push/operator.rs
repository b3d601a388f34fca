//! What the operator decides about requests to others, by the flags of the real binary.

use std::process::Stdio;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::endpoint::Endpoint;
use crate::harness::process::{Node, Place};
use crate::harness::{client, send};

/// Makes an event sink of a URL.
async fn put(place: &Place, url: &str) -> (u16, Value) {
    let path = format!("http://{}/v1/event-sinks/mine", place.address());
    let request = client().request(Method::PUT, path);
    send(request.json(&json!({ "url": url, "granularity": "minute" }))).await
}

async fn end(node: Node) {
    let ended = tokio::task::spawn_blocking(move || node.end(Signal::TERM));
    assert!(ended.await.unwrap().success());
}

#[tokio::test]
async fn a_node_on_ones_own_machine_calls_it_and_others_when_they_are_allowed() {
    let place = Place::new("outbound");
    let node = place.start();
    let endpoint = Endpoint::new().await;
    for url in [
        endpoint.url(),
        endpoint.url().replace("127.0.0.1", "localhost"),
    ] {
        let (status, body) = put(&place, &url).await;
        assert!(status < 300, "{body}");
    }
    for (url, rule) in [
        (
            "http://10.0.0.1/",
            "10.0.0.1 is not a public address; an operator can allow it with --outbound-allow",
        ),
        ("http://hook.example/", "--outbound-http"),
        (
            "https://hook.example:6379/",
            "port 6379 is that of Redis, not of HTTP",
        ),
    ] {
        let (status, body) = put(&place, url).await;
        assert_eq!(status, 400, "{body}");
        let text = body.to_string();
        assert!(text.contains(rule) && text.contains("/url"), "{text}");
    }
    end(node).await;

    let mut command = place.command();
    command.args(["--outbound-allow=10.0.0.0/8", "--outbound-http"]);
    let node = place.start_by(&mut command);
    for url in [
        "http://10.0.0.1/",
        "http://hook.internal/",
        "https://10.0.0.1:6379/",
    ] {
        let (status, body) = put(&place, url).await;
        assert!(status < 300, "{body}");
    }
    end(node).await;

    let mut command = place.command();
    command
        .arg("--outbound-ca=/missing/ca.pem")
        .stderr(Stdio::piped());
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    let ended = ended.await.unwrap();
    let message = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success());
    assert!(
        message.contains("--outbound-ca: /missing/ca.pem"),
        "{message}"
    );
}

//! Tests of the layer, with small routes.

use std::io::Write;
use std::time::Duration;

use api::limits::HEADER_BYTES_MAX;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::registry::Registry;
use tower::ServiceExt;

use super::*;
use crate::http::answer::problem;
use crate::http::request::body;

fn app(registry: &mut Registry) -> Router {
    let timeouts = Timeouts {
        request: Duration::from_millis(50),
        held_max: 10,
    };
    let rules = Rules {
        timeouts,
        is_open: false,
    };
    let metrics = RequestMetrics::default();
    metrics.register(registry);
    let bounds = (InUse::default(), Budget::new(1 << 20));
    let layer = RequestLayer::new(rules, metrics, bounds);
    let panics = || async {
        assert!(std::hint::black_box(false), "a bug");
    };
    let echo =
        |request: Request| async { body::whole(request.into_body(), ("it", 4096), None).await };
    let slow = || get(std::future::pending::<()>).post(std::future::pending::<()>);
    Router::new()
        .route("/echo", post(echo))
        .route("/long", get(|| async { "x".repeat(5_000) }))
        .route("/panic", get(panics))
        .route("/slow", slow())
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(layer.clone())
        .route("/slow-poll", slow().layer(layer.within(Deadline::LongPoll)))
        .route("/slow-body", slow().layer(layer.within(Deadline::Transfer)))
}

async fn send(request: axum::http::request::Builder, body: Vec<u8>) -> (Response<()>, Bytes) {
    let request = request.header("host", "localhost");
    let request = request.body(Body::from(body)).unwrap();
    let response = app(&mut Registry::default())
        .oneshot(request)
        .await
        .unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(parts, ()), bytes)
}

async fn ask(method: &str, path: &str, header: (&str, &str)) -> (Response<()>, Bytes) {
    let request = Request::builder().method(method).uri(path);
    send(request.header(header.0, header.1), Vec::new()).await
}

fn code(body: &[u8]) -> String {
    let problem: api::Problem = serde_json::from_slice(body).unwrap();
    problem.code.as_str().to_owned()
}

#[tokio::test]
async fn a_request_id_is_taken_over_when_it_is_sane() {
    let (response, _) = ask("GET", "/long", ("x-request-id", "mine-1")).await;
    assert_eq!(response.headers()[REQUEST_ID], "mine-1");
    let (response, _) = ask("GET", "/long", ("x-request-id", "not sane")).await;
    assert_eq!(response.headers()[REQUEST_ID].len(), 19);
}

#[tokio::test]
async fn whatever_goes_wrong_is_a_problem() {
    for (method, path, status, expected) in [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/long", 405, "method_not_allowed"),
        ("GET", "/panic", 500, "internal"),
        ("GET", "/slow", 504, "timeout"),
    ] {
        let (response, body) = ask(method, path, ("accept", "*/*")).await;
        assert_eq!(
            (response.status().as_u16(), code(&body).as_str()),
            (status, expected)
        );
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert!(response.headers().contains_key(REQUEST_ID));
    }
    let long = "x".repeat(HEADER_BYTES_MAX);
    let (response, body) = ask("GET", "/long", ("x", &long)).await;
    assert_eq!(response.status(), 431);
    assert_eq!(code(&body), "headers_too_large");
    let (response, _) = ask("DELETE", "/long", ("accept", "*/*")).await;
    assert_eq!(response.headers()["allow"], "GET,HEAD");
    let (response, _) = ask("OPTIONS", "/long", ("accept", "*/*")).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.headers()["allow"], "GET,HEAD");
}

#[tokio::test]
async fn any_origin_may_ask_and_others_pay_nothing() {
    let request = Request::builder()
        .method("OPTIONS")
        .uri("/echo")
        .header("origin", "https://a.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization");
    let (response, _) = send(request, Vec::new()).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        response.headers()["access-control-allow-headers"],
        "authorization"
    );
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    let (response, _) = ask("GET", "/long", ("origin", "https://a.example")).await;
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    let long = "x".repeat(HEADER_BYTES_MAX);
    for (name, value) in [("content-encoding", "br"), ("x", &long)] {
        let request = Request::builder().uri("/long");
        let request = request.header("origin", "https://a.example");
        let (response, _) = send(request.header(name, value), Vec::new()).await;
        assert!(response.status().is_client_error());
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
    }
    let (response, _) = ask("GET", "/long", ("accept", "*/*")).await;
    assert!(
        !response
            .headers()
            .contains_key("access-control-allow-origin")
    );
}

#[tokio::test]
async fn answers_are_coded_when_asked_and_long() {
    let (response, body) = ask("GET", "/long", ("accept-encoding", "br, zstd")).await;
    assert_eq!(response.headers()["content-encoding"], "zstd");
    assert_eq!(
        zstd::decode_all(&body[..]).unwrap(),
        "x".repeat(5_000).as_bytes()
    );
    let (response, body) = ask("GET", "/long", ("accept-encoding", "br")).await;
    assert!(!response.headers().contains_key("content-encoding"));
    assert_eq!(body.len(), 5_000);
    let (response, _) = ask("GET", "/nowhere", ("accept-encoding", "gzip")).await;
    assert!(!response.headers().contains_key("content-encoding"));
}

#[tokio::test]
async fn requests_are_decoded_and_limits_count_decoded_bytes() {
    let post = |coding: &str| {
        let request = Request::builder().method("POST").uri("/echo");
        request.header("content-encoding", coding)
    };
    let coded = |bytes: usize| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(&vec![b'x'; bytes]).unwrap();
        encoder.finish().unwrap()
    };
    let (response, body) = send(post("zstd"), coded(4_096)).await;
    assert_eq!((response.status(), body.len()), (StatusCode::OK, 4_096));
    let (response, body) = send(post("zstd"), coded(4_097)).await;
    assert_eq!(
        (response.status().as_u16(), code(&body).as_str()),
        (413, "body_too_large")
    );
    let (response, body) = send(post("gzip"), b"no gzip".to_vec()).await;
    assert_eq!(
        (response.status().as_u16(), code(&body).as_str()),
        (400, "invalid_request")
    );
    let (response, body) = send(post("br"), Vec::new()).await;
    assert_eq!(
        (response.status().as_u16(), code(&body).as_str()),
        (415, "unsupported_media_type")
    );
    assert_eq!(response.headers()["accept-encoding"], "gzip, zstd");
}

#[tokio::test]
async fn durations_are_counted_by_the_pattern_of_the_route() {
    let mut registry = Registry::with_prefix("cursus");
    let app = app(&mut registry);
    for path in ["/long", "/nowhere"] {
        let request = Request::builder().uri(path).header("host", "localhost");
        let request = request.body(Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap();
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for (route, class) in [("/long", "2xx"), ("unknown", "4xx")] {
        let series = format!(
            "cursus_http_request_duration_seconds_count{{method=\"GET\",route=\"{route}\",status_class=\"{class}\"}} 1"
        );
        assert!(text.contains(&series), "{text}");
    }
}

#[tokio::test]
async fn a_request_is_ended_at_the_deadline_of_its_route() {
    for (path, bytes, is_ended) in [
        ("/slow", 11, true),
        ("/slow-poll", 11, false),
        ("/slow-body", 10, true),
        ("/slow-body", 11, false),
    ] {
        let request = Request::builder().method("POST").uri(path);
        let sent = send(request, vec![0; bytes]);
        // Four times the request timeout, and far below the other deadlines.
        let ended = tokio::time::timeout(Duration::from_millis(200), sent).await;
        assert_eq!(ended.is_ok(), is_ended, "{path} {bytes}");
        if let Ok((response, body)) = ended {
            let expected = (504, "timeout".to_owned());
            assert_eq!((response.status().as_u16(), code(&body)), expected);
        }
    }
}

/// A body that announces five bytes and never sends them.
struct Stalls;

impl HttpBody for Stalls {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(5)
    }
}

#[tokio::test]
async fn a_short_body_that_stalls_is_given_up_at_the_deadline_of_its_request() {
    let request = Request::post("/echo").header("host", "localhost");
    let request = request.body(Body::new(Stalls)).unwrap();
    let app = app(&mut Registry::default());
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&body);
    assert!(
        text.contains("the request has not arrived within"),
        "{text}"
    );
}

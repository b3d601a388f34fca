//! The listener on real sockets: both protocols, slow peers, the connection limit, shutdown.

use std::time::Instant;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

mod readers;

/// Bytes of a response that no buffer on the way can hold.
const LARGE: usize = 64 << 20;

struct Running {
    url: String,
    address: SocketAddr,
    shutdown: Shutdown,
    served: tokio::task::JoinHandle<()>,
}

fn start(change: impl FnOnce(&mut Options)) -> Running {
    let mut options = Options {
        address: "127.0.0.1:0".parse().unwrap(),
        max_connections: 100,
        header_timeout: Duration::from_secs(5),
        pause_max: Duration::from_secs(5),
        drain_timeout: Duration::from_secs(5),
        tls: None,
    };
    change(&mut options);
    let router = Router::new()
        .route("/hello", get(async || "hello"))
        .route("/large", get(async || vec![7_u8; LARGE]))
        .route("/refuse", post(async || axum::http::StatusCode::CONFLICT))
        .route("/echo", post(async |body: axum::body::Bytes| body))
        .route(
            "/slow",
            get(async || {
                sleep(Duration::from_millis(300)).await;
                "slow"
            }),
        );
    let spare = Router::new().route("/healthz", get(async || "well"));
    let routers = Routers { all: router, spare };
    let listener = bind(options).unwrap().listen().unwrap();
    let address = listener.address().unwrap();
    let shutdown = Shutdown::default();
    let ending = shutdown.clone();
    Running {
        url: format!("http://{address}"),
        address,
        shutdown,
        served: tokio::spawn(async move { listener.serve(routers, &ending).await }),
    }
}

fn client(h2: bool) -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy();
    if h2 {
        builder.http2_prior_knowledge()
    } else {
        builder
    }
    .build()
    .unwrap()
}

#[tokio::test]
async fn it_speaks_http1_and_h2c() {
    let server = start(|_| {});
    for h2 in [false, true] {
        let client = client(h2);
        for _ in 0..3 {
            let answer = client
                .get(format!("{}/hello", server.url))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.version() == reqwest::Version::HTTP_2, h2);
            assert_eq!(answer.text().await.unwrap(), "hello");
        }
        let body = vec![7; 3 << 20];
        let echo = client
            .post(format!("{}/echo", server.url))
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(echo.status(), 413, "axum's own limit of 2 MiB");
        let body = vec![7; 1 << 20];
        let echo = client
            .post(format!("{}/echo", server.url))
            .body(body.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(echo.bytes().await.unwrap(), body);
    }
}

#[tokio::test]
async fn requests_in_flight_finish_on_shutdown_and_idle_connections_end() {
    let server = start(|_| {});
    let (one, two) = (client(false), client(true));
    one.get(format!("{}/hello", server.url))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let slow = format!("{}/slow", server.url);
    let in_flight =
        tokio::spawn(async move { tokio::join!(one.get(&slow).send(), two.get(&slow).send()) });
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    server.shutdown.token.cancel();
    sleep(Duration::from_millis(50)).await;
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "no new connections"
    );
    assert_eq!(
        silent.read(&mut [0]).await.unwrap(),
        0,
        "an idle connection is closed"
    );
    let (one, two) = in_flight.await.unwrap();
    let one = one.unwrap();
    assert_eq!(one.headers().get("connection").unwrap(), "close");
    assert_eq!(one.text().await.unwrap(), "slow");
    assert_eq!(two.unwrap().text().await.unwrap(), "slow");
    server.served.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_does_not_finish_is_cut_off_after_the_drain_timeout() {
    let server = start(|options| options.drain_timeout = Duration::from_millis(50));
    let slow = format!("{}/slow", server.url);
    let in_flight = tokio::spawn(async move { client(false).get(&slow).send().await });
    sleep(Duration::from_millis(150)).await;
    server.shutdown.token.cancel();
    server.served.await.unwrap();
    assert!(in_flight.await.unwrap().is_err());
}

#[tokio::test]
async fn a_peer_that_sends_nothing_or_half_a_head_is_closed() {
    let server = start(|options| options.header_timeout = Duration::from_millis(100));
    for sent in ["", "P", "PRI * HT", "GET /hello HTTP/1.1\r\nhost:"] {
        let mut peer = TcpStream::connect(server.address).await.unwrap();
        peer.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(2), peer.read_to_end(&mut answer))
            .await
            .expect(sent)
            .ok();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{sent}");
    }
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let server = start(|_| {});
    let mut peer = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "GET /hello HTTP/1.1\r\nhost: x\r\nx-long: {}",
        "x".repeat(1 << 20)
    );
    let mut answer = Vec::new();
    // Far above the limit that the router would refuse with a problem document. The server closes the connection with
    // bytes unread, which a peer that is still writing may see as a reset.
    let _ = peer.write_all(head.as_bytes()).await;
    let _ = peer.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));
    let request = client(false).get(format!("{}/hello", server.url));
    let answer = request
        .header("x-long", "x".repeat(50 << 10))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
}

/// The status of a GET on a connection of its own.
async fn status(address: SocketAddr, path: &str) -> u16 {
    let url = format!("http://{address}{path}");
    let answer = client(false).get(url).send().await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn connections_above_the_limit_get_health_checks_and_nothing_else() {
    let server = start(|options| options.max_connections = 1);
    let first = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(status(server.address, "/healthz").await, 200);
    assert_eq!(status(server.address, "/hello").await, 404);
    drop(first);
    let began = Instant::now();
    while status(server.address, "/hello").await != 200 {
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn connections_above_the_spare_ones_wait_for_a_seat() {
    let server = start(|options| options.max_connections = 1);
    let mut held = Vec::new();
    for _ in 0..=SPARE_SEATS {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    let address = server.address;
    let waiting = tokio::spawn(async move { status(address, "/healthz").await });
    sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    drop(held.pop());
    assert_eq!(waiting.await.unwrap(), 200);
}

#[tokio::test]
async fn a_connection_of_http2_without_a_request_is_closed_and_a_slow_request_keeps_it() {
    let server = start(|options| options.header_timeout = Duration::from_millis(100));
    let mut peer = TcpStream::connect(server.address).await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    peer.write_all(&settings).await.unwrap();
    let mut received = Vec::new();
    let goaway = async {
        let mut piece = [0; 1024];
        // The type of a frame is its fourth byte; 7 is GOAWAY.
        while !frames(&received).contains(&7) {
            let read = peer.read(&mut piece).await.unwrap();
            assert!(read > 0, "closed without GOAWAY");
            received.extend_from_slice(&piece[..read]);
        }
    };
    timeout(Duration::from_secs(2), goaway).await.unwrap();
    let slow = client(true).get(format!("{}/slow", server.url));
    assert_eq!(slow.send().await.unwrap().text().await.unwrap(), "slow");
}

/// The types of the HTTP/2 frames in `read`.
fn frames(mut read: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [a, b, c, kind, rest @ ..] = read {
        types.push(*kind);
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        read = rest.get(5 + length..).unwrap_or(&[]);
    }
    types
}

#[tokio::test]
async fn a_malformed_head_gets_a_response_before_the_connection_ends() {
    let server = start(|_| {});
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    for (head, status) in [
        ("GET / HTTP/1.1\r\nno colon\r\n", "400"),
        (&*format!("GET / HTTP/1.1\r\n{many}"), "431"),
    ] {
        let mut peer = TcpStream::connect(server.address).await.unwrap();
        peer.write_all(format!("{head}\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        peer.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        let (_, text) = answer.split_once("\r\n\r\n").unwrap();
        let problem: api::Problem = serde_json::from_str(text).unwrap();
        assert_eq!(problem.status.to_string(), status);
    }
}

#[tokio::test]
async fn it_speaks_both_protocols_over_tls() {
    let names = ["localhost".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(names).unwrap();
    let folder = std::env::temp_dir().join(format!("cursus-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let files = crate::config::TlsFiles {
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    std::fs::write(&files.cert, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    let identity = tls::identity(&files).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let server = start(|options| options.tls = Some(identity));

    for h2 in [false, true] {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy();
        let client = client.tls_danger_accept_invalid_certs(true);
        let client = if h2 { client } else { client.http1_only() };
        let client = client.build().unwrap();
        let url = format!("https://localhost:{}/hello", server.address.port());
        let answer = client.get(url).send().await.unwrap();
        assert_eq!(answer.version() == reqwest::Version::HTTP_2, h2);
        assert_eq!(answer.text().await.unwrap(), "hello");
    }
    let plain = client(false).get(format!("{}/hello", server.url)).send();
    assert!(plain.await.is_err(), "plain HTTP is refused");
}

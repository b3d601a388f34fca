//! The client of deliveries: what it makes of an endpoint that is slow, broken or hostile, what it dials, and which
//! connections it keeps.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::limits::PUSH_ANSWER_BYTES_MAX;
use bytes::Bytes;
use cursus::outbound::{
    Error, GetError, HeaderMap, HeaderValue, Options, Outbound, Phase, Post, Reply, Source,
};
use futures_util::future::join_all;
use hyper::Version;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::harness::authority::{self, options, outbound};
use crate::harness::behaviour::Does;
use crate::harness::endpoint::Endpoint;
use crate::harness::scratch::Scratch;
use crate::harness::until;

/// More than any response takes that is not meant to be late.
const PATIENT: Duration = Duration::from_secs(10);
const IMPATIENT: Duration = Duration::from_millis(400);

fn post(url: &str, timeout: Duration) -> Post {
    Post {
        url: url.parse().unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{\"a\":1}"),
        timeout,
    }
}

async fn deliver(outbound: &Outbound, url: &str) -> Result<Reply, Error> {
    outbound.deliver(post(url, PATIENT)).await
}

/// The outcome of a delivery that has little time, and that it took all of it.
async fn in_little_time(outbound: &Outbound, url: &str) -> Result<Reply, Error> {
    let began = Instant::now();
    let outcome = outbound.deliver(post(url, IMPATIENT)).await;
    let took = began.elapsed();
    assert!(took >= IMPATIENT && took < PATIENT / 2, "{took:?}");
    outcome
}

/// Of each kind of endpoint, and the version that it speaks.
async fn of_each_kind() -> [(Endpoint, Version); 3] {
    [
        (Endpoint::new().await, Version::HTTP_11),
        (Endpoint::tls_1(&["localhost"]).await, Version::HTTP_11),
        (Endpoint::tls(&["localhost"]).await, Version::HTTP_2),
    ]
}

#[tokio::test]
async fn a_request_comes_as_it_was_made_and_its_response_comes_back() {
    let outbound = outbound();
    for (endpoint, version) in of_each_kind().await {
        let custom = vec![("x-of", "the endpoint".to_owned())];
        endpoint.next([
            Does::Says(204),
            Does::SaysWith(418, custom, Bytes::from_static(b"\0\xffteapot")),
            Does::Late(503, Duration::from_millis(100)),
        ]);
        let mut sent = post(&endpoint.url(), PATIENT);
        let headers = [
            ("webhook-id", "msg_1"),
            ("content-type", "text/plain"),
            ("host", "elsewhere.example"),
            ("content-length", "1"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
        ];
        for (name, value) in headers {
            sent.headers.insert(name, HeaderValue::from_static(value));
        }
        let first = outbound.deliver(sent).await.unwrap();
        assert_eq!((first.status, first.body.len()), (204, 0));
        let second = deliver(&outbound, &endpoint.url()).await.unwrap();
        assert_eq!(
            (second.status, &second.body[..]),
            (418, &b"\0\xffteapot"[..])
        );
        assert_eq!(second.headers["x-of"], "the endpoint");
        let third = deliver(&outbound, &endpoint.url()).await.unwrap();
        assert_eq!((third.status, &third.body[..]), (503, &b"ok"[..]));
        let [first, second, _] = &endpoint.sent()[..] else {
            panic!("three requests");
        };
        assert_eq!(first.version, version);
        assert_eq!(
            (first.method.as_str(), first.path.as_str()),
            ("POST", "/hook?of=cursus")
        );
        assert_eq!(
            (&first.body[..], first.header("webhook-id")),
            (&b"{\"a\":1}"[..], "msg_1")
        );
        assert_eq!(first.json()["a"], 1);
        assert_eq!(first.header("content-length"), "7");
        assert!(first.header("user-agent").starts_with("cursus/"));
        for of_connection in ["connection", "transfer-encoding", "accept-encoding"] {
            assert_eq!(first.header(of_connection), "", "{of_connection}");
        }
        assert!(!first.header("host").contains("elsewhere"));
        assert_eq!((first.connection, second.connection), (1, 1));
    }
}

#[tokio::test]
async fn a_large_body_comes_whole() {
    let outbound = outbound();
    let body: Bytes = (0..10 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
    for (endpoint, _) in of_each_kind().await {
        let mut large = post(&endpoint.url(), PATIENT);
        large.body = body.clone();
        assert_eq!(outbound.deliver(large).await.unwrap().status, 204);
        assert!(endpoint.sent()[0].body == body);
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (outbound, other) = (outbound(), Endpoint::new().await);
    for (endpoint, _) in of_each_kind().await {
        for status in [301, 302, 303, 307, 308] {
            endpoint.next([Does::Redirects(status, other.url())]);
            let reply = deliver(&outbound, &endpoint.url()).await.unwrap();
            assert_eq!(reply.status, status);
            assert_eq!(reply.headers["location"], other.url());
        }
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn a_body_is_not_decompressed() {
    let outbound = outbound();
    let gzip =
        Bytes::from_static(b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x04\0\x43\xbe\xb7\xe8\x01\0\0\0");
    for (endpoint, _) in of_each_kind().await {
        for encoding in ["gzip", "zstd", "br", "deflate"] {
            let headers = vec![("content-encoding", encoding.to_owned())];
            endpoint.next([Does::SaysWith(200, headers, gzip.clone())]);
            let reply = deliver(&outbound, &endpoint.url()).await.unwrap();
            assert_eq!(reply.body, gzip, "{encoding}");
            assert_eq!(reply.headers["content-encoding"], encoding);
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_hangs_takes_the_time_of_the_delivery_and_no_more() {
    let outbound = outbound();
    for (endpoint, _) in of_each_kind().await {
        endpoint.next([Does::Hangs]);
        let error = in_little_time(&outbound, &endpoint.url())
            .await
            .unwrap_err();
        assert_eq!(error, Error::Timeout(Phase::Head, IMPATIENT));
        assert_eq!(error.to_string(), "no response within 0.4 s");
        // The head counts, also when the body does not end.
        endpoint.next([
            Does::HangsInBody(200),
            Does::Trickles(500, Duration::from_millis(50)),
        ]);
        let reply = in_little_time(&outbound, &endpoint.url()).await.unwrap();
        assert_eq!((reply.status, &reply.body[..]), (200, &b"first bytes"[..]));
        let reply = in_little_time(&outbound, &endpoint.url()).await.unwrap();
        assert_eq!(reply.status, 500);
        assert!((1..10).contains(&reply.body.len()), "{:?}", reply.body);
        // Nothing is left of them.
        until("no request is open", async || {
            (endpoint.open() == 0).then_some(())
        })
        .await;
        assert_eq!(
            deliver(&outbound, &endpoint.url()).await.unwrap().status,
            204
        );
    }
}

#[tokio::test]
async fn no_connection_in_time_is_said_to_be_that() {
    let outbound = outbound();
    // The system accepts for it, and no handshake follows.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let all = (0..3).map(|_| in_little_time(&outbound, &url));
    for outcome in join_all(all).await {
        assert_eq!(outcome, Err(Error::Timeout(Phase::Connect, IMPATIENT)));
    }
}

#[tokio::test]
async fn what_breaks_is_told_apart() {
    let outbound = outbound();
    for (endpoint, _) in of_each_kind().await {
        endpoint.next([Does::Resets, Does::ResetsInBody(200)]);
        let broken = deliver(&outbound, &endpoint.url()).await;
        assert_eq!(broken, Err(Error::Broken));
        let reply = deliver(&outbound, &endpoint.url()).await.unwrap();
        assert_eq!((reply.status, &reply.body[..]), (200, &b"first bytes"[..]));
        assert_eq!(
            deliver(&outbound, &endpoint.url()).await.unwrap().status,
            204
        );
        assert_eq!(endpoint.sent().len(), 3, "none was sent again");
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    assert_eq!(
        deliver(&outbound, &url).await,
        Err(Error::ConnectionRefused)
    );
    let error = deliver(&outbound, "https://nowhere.invalid/")
        .await
        .unwrap_err();
    assert_eq!(error, Error::NameNotFound("nowhere.invalid".to_owned()));
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap();
    let _serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            stream.write_all(b"SSH-2.0-Server\r\n").await.unwrap();
        }
    });
    let error = deliver(&outbound, &format!("http://{address}/")).await;
    assert_eq!(error, Err(Error::NotHttp));
    let error = deliver(&outbound, &format!("https://{address}/"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "TLS: the endpoint does not speak TLS at this port"
    );
}

#[tokio::test]
async fn a_long_response_is_cut_and_costs_its_connection_only_if_it_is_very_long() {
    let outbound = outbound();
    for (endpoint, version) in of_each_kind().await {
        endpoint.next([Does::Huge(200, 16 << 10), Does::Huge(200, 1 << 30)]);
        for _ in 0..2 {
            let reply = deliver(&outbound, &endpoint.url()).await.unwrap();
            assert_eq!(reply.status, 200);
            assert_eq!(reply.body, vec![b'x'; PUSH_ANSWER_BYTES_MAX]);
        }
        until("no request is open", async || {
            (endpoint.open() == 0).then_some(())
        })
        .await;
        deliver(&outbound, &endpoint.url()).await.unwrap();
        let connections: Vec<_> = endpoint.sent().iter().map(|sent| sent.connection).collect();
        let last = if version == Version::HTTP_2 { 1 } else { 2 };
        assert_eq!(connections, [1, 1, last]);
    }
}

#[tokio::test]
async fn certificates_are_verified() {
    let trusting = outbound();
    let endpoint = Endpoint::tls(&["hook.example", "127.0.0.1"]).await;
    let error = deliver(&trusting, &endpoint.url()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "TLS: the certificate is not for localhost"
    );
    let by_address = endpoint.url().replace("localhost", "127.0.0.1");
    assert_eq!(deliver(&trusting, &by_address).await.unwrap().status, 204);
    let by_name = endpoint.url().replace("localhost", "hook.example");
    let everywhere = Source::Function(Arc::new(|_| vec![IpAddr::from([127, 0, 0, 1])]));
    let named = Outbound::new(Options {
        names: everywhere,
        ..options()
    });
    let named = named.unwrap();
    assert_eq!(deliver(&named, &by_name).await.unwrap().status, 204);
    let strict = Outbound::new(Options {
        authorities: Vec::new(),
        ..options()
    });
    let error = deliver(&strict.unwrap(), &by_address).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("TLS: the certificate is signed by an unknown authority"),
        "{text}"
    );
    assert_eq!(endpoint.sent().len(), 2);
    // The client is told of a server that cannot agree with it.
    let plain = Endpoint::new().await;
    let error = deliver(&trusting, &plain.url().replace("http:", "https:"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Tls(_)), "{error}");
}

#[tokio::test]
async fn authorities_are_read_from_a_file() {
    let scratch = Scratch::new("authorities");
    let file = scratch.path().join("ca.pem");
    std::fs::write(&file, authority::pem()).unwrap();
    let found = cursus::outbound::authorities(&file).unwrap();
    let outbound = Outbound::new(Options {
        authorities: found,
        ..options()
    });
    let endpoint = Endpoint::tls(&["localhost"]).await;
    assert!(deliver(&outbound.unwrap(), &endpoint.url()).await.is_ok());
    std::fs::write(&file, "no certificate").unwrap();
    for wrong in [file, scratch.path().join("missing")] {
        let error = cursus::outbound::authorities(&wrong).unwrap_err();
        assert!(error.contains(wrong.to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn the_address_that_is_dialled_is_the_one_that_was_checked() {
    let endpoint = Endpoint::tls_1(&["hook.example"]).await;
    let means: Arc<Mutex<(Vec<IpAddr>, usize)>> = Arc::default();
    let asked = means.clone();
    let names = Source::Function(Arc::new(move |_| {
        let mut means = asked.lock();
        means.1 += 1;
        means.0.clone()
    }));
    let outbound = Outbound::new(Options { names, ..options() });
    let outbound = outbound.unwrap();
    let url = endpoint.url().replace("localhost", "hook.example");
    let means_now = |ips: &[&str]| {
        means.lock().0 = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    };
    // It is accepted when it is set, and delivered to: once with a look-up, once without.
    outbound.check(&url).unwrap();
    means_now(&["127.0.0.1"]);
    for _ in 0..2 {
        assert_eq!(deliver(&outbound, &url).await.unwrap().status, 204);
    }
    assert_eq!(means.lock().1, 1, "one look-up for a connection");
    // Then the name is pointed at what tenants must not reach.
    for forbidden in [
        "10.0.0.1",
        "169.254.169.254",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "fe80::1",
        "0.0.0.0",
    ] {
        endpoint.close_idle();
        until("connections are closed", async || {
            (endpoint.connected() == 0).then_some(())
        })
        .await;
        means_now(&[forbidden]);
        let Err(Error::Refused(text)) = deliver(&outbound, &url).await else {
            panic!("{forbidden} is dialled");
        };
        let ip: IpAddr = forbidden.parse().unwrap();
        assert_eq!(
            text,
            format!("{ip} is not a public address; an operator can allow it with --outbound-allow")
        );
        // An address that is permitted among others that are not is the one that is dialled.
        means_now(&[forbidden, "127.0.0.1"]);
        assert_eq!(deliver(&outbound, &url).await.unwrap().status, 204);
    }
    means_now(&[]);
    endpoint.close_idle();
    until("connections are closed", async || {
        (endpoint.connected() == 0).then_some(())
    })
    .await;
    assert_eq!(
        deliver(&outbound, &url).await,
        Err(Error::NameNotFound("hook.example".to_owned()))
    );
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let endpoint = Endpoint::new().await;
    let names = Source::Function(Arc::new(|_| {
        ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
            .map(|ip| ip.parse().unwrap())
            .to_vec()
    }));
    let outbound = Outbound::new(Options { names, ..options() }).unwrap();
    let url = endpoint.url().replace("127.0.0.1", "localhost");
    assert_eq!(deliver(&outbound, &url).await.unwrap().status, 204);
}

#[tokio::test]
async fn the_environment_names_no_proxy() {
    const NAME: &str = "push::outbound::the_environment_names_no_proxy";
    const URL: &str = "CURSUS_TEST_ENDPOINT";
    if let Some(url) = std::env::var_os(URL) {
        let url = url.into_string().unwrap();
        assert_eq!(deliver(&outbound(), &url).await.unwrap().status, 204);
        outbound().get(&url, 100).await.unwrap();
        return;
    }
    let (endpoint, proxy) = (Endpoint::new().await, Endpoint::new().await);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([NAME, "--exact"]).env(URL, endpoint.url());
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ] {
        child.env(name, proxy.at(""));
    }
    let ended = tokio::task::spawn_blocking(move || child.output().unwrap());
    let ended = ended.await.unwrap();
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stdout)
    );
    assert_eq!((endpoint.sent().len(), proxy.connections()), (2, 0));
}

#[tokio::test]
async fn a_key_set_is_read_whole_or_not_at_all() {
    let outbound = outbound();
    for (endpoint, _) in of_each_kind().await {
        endpoint.next([
            Does::SaysWith(200, vec![], Bytes::from_static(b"0123456789")),
            Does::SaysWith(200, vec![], Bytes::from_static(b"0123456789+")),
            Does::Says(404),
            Does::ResetsInBody(200),
        ]);
        let url = endpoint.url();
        assert_eq!(outbound.get(&url, 10).await.unwrap(), "0123456789");
        let errors = [
            outbound.get(&url, 10).await.unwrap_err(),
            outbound.get(&url, 10).await.unwrap_err(),
            outbound.get(&url, 100).await.unwrap_err(),
        ];
        assert!(
            matches!(
                errors,
                [
                    GetError::TooLong(10),
                    GetError::Status(404),
                    GetError::Failed(Error::Broken)
                ]
            ),
            "{errors:?}"
        );
        assert_eq!(endpoint.sent()[0].method.as_str(), "GET");
    }
}

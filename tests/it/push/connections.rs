//! Which connections deliveries open, keep and close, and what happens to a request whose connection ends.

use std::time::Duration;

use bytes::Bytes;
use cursus::outbound::{Error, HeaderMap, Options, Outbound, Post, Reply};
use futures_util::future::join_all;

use crate::harness::authority::{options, outbound};
use crate::harness::behaviour::Does;
use crate::harness::endpoint::Endpoint;
use crate::harness::until;

async fn deliver(outbound: &Outbound, url: &str, body: impl Into<Bytes>) -> Result<Reply, Error> {
    let post = Post {
        url: url.parse().unwrap(),
        headers: HeaderMap::new(),
        body: body.into(),
        timeout: Duration::from_secs(10),
    };
    outbound.deliver(post).await
}

/// Many deliveries at the same time, all of which are accepted.
async fn deliver_at_once(outbound: &Outbound, endpoint: &Endpoint, count: usize) {
    let url = endpoint.url();
    let all = (0..count).map(|_| deliver(outbound, &url, "a"));
    for reply in join_all(all).await {
        assert_eq!(reply.unwrap().status, 202);
    }
}

async fn until_connected(endpoint: &Endpoint, count: usize) {
    until("connections are closed", async || {
        (endpoint.connected() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_are_as_many_as_requests_at_once_and_are_kept() {
    let outbound = outbound();
    for endpoint in [Endpoint::new().await, Endpoint::tls_1(&["localhost"]).await] {
        endpoint.always(Does::Late(202, Duration::from_millis(300)));
        for _ in 0..3 {
            deliver_at_once(&outbound, &endpoint, 20).await;
        }
        assert_eq!((endpoint.connections(), endpoint.max_at_once()), (20, 20));
        endpoint.always(Does::Says(204));
        for _ in 0..20 {
            deliver(&outbound, &endpoint.url(), "").await.unwrap();
        }
        assert_eq!(endpoint.connections(), 20);
        let one = endpoint.sent()[60].connection;
        assert!(
            endpoint.sent()[60..]
                .iter()
                .all(|sent| sent.connection == one)
        );
    }
}

#[tokio::test]
async fn http_2_carries_all_over_one_connection() {
    let (outbound, endpoint) = (outbound(), Endpoint::tls(&["localhost"]).await);
    endpoint.always(Does::Late(202, Duration::from_millis(300)));
    deliver_at_once(&outbound, &endpoint, 64).await;
    assert_eq!((endpoint.connections(), endpoint.max_at_once()), (1, 64));
    // The server takes 200 at once.
    deliver_at_once(&outbound, &endpoint, 300).await;
    assert_eq!((endpoint.connections(), endpoint.max_at_once()), (2, 300));
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let outbound = Outbound::new(Options {
        idle: Duration::from_millis(300),
        ..options()
    });
    let outbound = outbound.unwrap();
    let endpoints = [
        Endpoint::new().await,
        Endpoint::tls_1(&["localhost"]).await,
        Endpoint::tls(&["localhost"]).await,
    ];
    for endpoint in &endpoints {
        endpoint.always(Does::Late(202, Duration::from_millis(50)));
        deliver_at_once(&outbound, endpoint, 5).await;
        assert!(endpoint.connected() > 0);
    }
    for endpoint in &endpoints {
        until_connected(endpoint, 0).await;
        deliver_at_once(&outbound, endpoint, 1).await;
    }
}

#[tokio::test]
async fn connections_are_bounded_and_idle_ones_make_way() {
    let outbound = Outbound::new(Options {
        connections: 8,
        ..options()
    });
    let outbound = outbound.unwrap();
    let (busy, other) = (Endpoint::new().await, Endpoint::new().await);
    busy.always(Does::Late(202, Duration::from_millis(50)));
    for _ in 0..2 {
        deliver_at_once(&outbound, &busy, 40).await;
        assert_eq!(busy.max_at_once(), 8);
        deliver(&outbound, &other.url(), "a").await.unwrap();
    }
    assert!(busy.connected() + other.connected() <= 8);
}

#[tokio::test]
async fn a_connection_is_closed_before_its_server_closes_it() {
    let (outbound, endpoint) = (outbound(), Endpoint::new().await);
    for (kept, reused) in [("timeout=1, max=9", false), ("timeout=60", true)] {
        let headers = vec![("keep-alive", kept.to_owned())];
        endpoint.next([Does::SaysWith(200, headers, Bytes::new())]);
        let before = endpoint.received();
        for _ in 0..2 {
            deliver(&outbound, &endpoint.url(), "a").await.unwrap();
        }
        let sent = &endpoint.sent()[before..];
        assert_eq!(sent[0].connection == sent[1].connection, reused, "{kept}");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_idle_fails_no_request() {
    let outbound = outbound();
    for endpoint in [
        Endpoint::new().await,
        Endpoint::tls_1(&["localhost"]).await,
        Endpoint::tls(&["localhost"]).await,
    ] {
        for round in 1..=20 {
            deliver(&outbound, &endpoint.url(), "a").await.unwrap();
            assert_eq!(endpoint.connections(), round);
            endpoint.close_idle();
            until_connected(&endpoint, 0).await;
        }
        assert_eq!(endpoint.sent().len(), 20);
        endpoint.next([Does::Closes(200), Does::Closes(200)]);
        for _ in 0..3 {
            deliver(&outbound, &endpoint.url(), "a").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_request_that_was_not_processed_is_sent_over_another_connection() {
    let (outbound, endpoint) = (outbound(), Endpoint::tls(&["localhost"]).await);
    endpoint.turns_away(2);
    assert_eq!(
        deliver(&outbound, &endpoint.url(), "a")
            .await
            .unwrap()
            .status,
        204
    );
    assert_eq!((endpoint.connections(), endpoint.sent().len()), (3, 1));
    endpoint.close_idle();
    until_connected(&endpoint, 0).await;
    endpoint.turns_away(100);
    let error = deliver(&outbound, &endpoint.url(), "a").await;
    assert_eq!(error, Err(Error::Broken));
    assert_eq!((endpoint.connections(), endpoint.sent().len()), (6, 1));
}

/// Delivers 3,200 messages to a server that closes its connections after each 100, as if it was restarted. Returns how many
/// attempts failed; each message is repeated until it is accepted.
async fn deliver_to_a_restless(endpoint: &Endpoint) -> usize {
    let (outbound, url) = (outbound(), endpoint.url());
    let tasks = (0..16).map(async |task| {
        let mut failures = 0;
        for number in 0..200 {
            while let Err(error) = deliver(&outbound, &url, format!("{task}/{number}")).await {
                assert_eq!(error, Error::Broken);
                failures += 1;
            }
        }
        failures
    });
    let closes = async {
        for count in (100..).step_by(100) {
            while endpoint.received() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            endpoint.close_idle();
        }
    };
    let failures = tokio::select! {
        failures = join_all(tasks) => failures.into_iter().sum(),
        () = closes => 0,
    };
    let closed = endpoint.received() / 100;
    assert!(endpoint.connections() > closed / 2);
    let mut bodies: Vec<_> = endpoint.sent().into_iter().map(|sent| sent.body).collect();
    assert_eq!(bodies.len(), 3_200, "none twice");
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 3_200);
    failures
}

#[tokio::test]
async fn goaway_fails_no_request_and_repeats_none() {
    let endpoint = Endpoint::tls(&["localhost"]).await;
    assert_eq!(deliver_to_a_restless(&endpoint).await, 0);
}

#[tokio::test]
async fn http_1_does_not_repeat_what_may_have_been_processed() {
    for endpoint in [Endpoint::new().await, Endpoint::tls_1(&["localhost"]).await] {
        // The server may close a connection while a request is on its way, and then the client cannot know.
        let failures = deliver_to_a_restless(&endpoint).await;
        assert!(failures < 320, "{failures}");
    }
}

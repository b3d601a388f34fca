//! The real binary as a node of a fleet: a Postgres and an S3 that others run, keys, an end in the middle of requests,
//! and secrets that appear neither in `cursus config` nor in a log.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::{Body, Method};
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::oneshot;

use crate::harness::installation::{Installation, PASSWORD, START_WAIT};
use crate::harness::invariants::check_invariants;
use crate::harness::process::kill;
use crate::harness::seaweed::{ACCESS_KEY, SECRET};
use crate::harness::{client, send};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_serves_the_tenant_of_a_key_and_shows_no_secret() {
    let fleet = Installation::new().await;
    let key = fleet.key("shop");
    let (a, b) = tokio::join!(fleet.node(&key), fleet.node(&key));
    a.topic_and_subscription().await;
    let large = "x".repeat(1 << 20);

    let small = send(a.publish("small")).await;
    let stored = send(a.publish(large.clone())).await;
    let mut messages = b.receive(10).await;
    while messages.len() < 2 {
        messages.extend(b.receive(10).await);
    }

    assert_eq!((small.0, stored.0), (200, 200), "{small:?} {stored:?}");
    assert_eq!(messages[0]["body"], "small");
    let body = b.request(Method::GET, messages[1]["body_url"].as_str().unwrap());
    let body = body.send().await.unwrap().text().await.unwrap();
    assert!(body == large, "{} bytes", body.len());
    let receipts: Vec<_> = messages.iter().map(|message| &message["receipt"]).collect();
    let acks = json!({ "receipts": receipts });
    let acked = a.json(Method::POST, "/v1/subscriptions/s/ack", acks).await;
    assert_eq!(acked["results"], json!([{}, {}]));
    let nobody = format!("http://{}/v1/topics", a.address);
    let (_, stranger) = send(a.client.get(nobody)).await;
    assert_eq!(stranger["code"], "unauthenticated");
    a.end().await;
    b.end().await;

    let config = fleet.command(&["config"]).output().unwrap();
    let config = String::from_utf8(config.stdout).unwrap();
    assert!(config.contains("environment DATABASE_URL"), "{config}");
    let logs = fleet.logs();
    assert!(logs.contains("fleet mode"), "{logs}");
    for secret in [PASSWORD, SECRET, &key] {
        assert!(!config.contains(secret), "{config}");
        let told = logs.lines().find(|line| line.contains(secret));
        assert_eq!(told, None);
    }
    // An id rather than a secret: the SDK shows it at `debug`, we nowhere.
    assert!(!config.contains(ACCESS_KEY), "{config}");
    check_invariants(&mut fleet.database.connect().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_a_publish_finish_and_a_waiting_receiver_go() {
    let fleet = Installation::new().await;
    let node = fleet.node(&fleet.key("shop")).await;
    node.topic_and_subscription().await;
    let ask = json!({"wait_seconds": 30});
    let waiting = node.request(Method::POST, "/v1/subscriptions/s/receive");
    let waiting = tokio::spawn(send(waiting.json(&ask)));
    // More than one part, so that the metrics show when it is under way; the rest comes after the signal.
    let (go_on, rest) = oneshot::channel::<()>();
    let begun = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 9 << 20]))]);
    let rest = stream::once(async {
        rest.await.unwrap();
        Ok(Bytes::from_static(b"the end"))
    });
    let publishing = node.publish(Body::wrap_stream(begun.chain(rest)));
    let publishing = tokio::spawn(send(publishing));
    let began = Instant::now();
    while !node
        .metrics()
        .await
        .contains("requests_total{op=\"upload_part\"} 1")
    {
        assert!(began.elapsed() < START_WAIT, "no part was uploaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    kill(node.process.pid(), Signal::TERM);
    let (status, answer) = waiting.await.unwrap();
    assert_eq!((status, &answer["messages"]), (200, &json!([])), "{answer}");
    go_on.send(()).unwrap();
    let (status, answer) = publishing.await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let status = tokio::task::spawn_blocking(|| node.process.wait());
    assert!(status.await.unwrap().success(), "{}", fleet.logs());
    check_invariants(&mut fleet.database.connect().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_asks_the_node_of_the_same_settings() {
    let fleet = Installation::new().await;
    let node = fleet.node(&fleet.key("shop")).await;
    let listen = format!("--listen={}", node.address);

    let said = fleet.said(&["health", &listen]);
    assert!(said.contains("\"ready\":true"), "{said}");
    node.end().await;
    let gone = fleet.command(&["health", &listen]).output().unwrap();
    let said = String::from_utf8_lossy(&gone.stderr);
    assert!(!gone.status.success() && said.contains("refused"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_listen_takes_no_duty_from_the_others() {
    let fleet = Installation::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={}", taken.local_addr().unwrap());

    let node = fleet.command(&["serve", &listen]).output().unwrap();

    let said = String::from_utf8_lossy(&node.stderr);
    assert!(
        !node.status.success() && said.contains("choose another"),
        "{said}"
    );
    let held: i64 = sqlx::query_scalar("SELECT count(*) FROM duty WHERE held_until > now()")
        .fetch_one(&mut fleet.database.connect().await)
        .await
        .unwrap();
    assert_eq!(held, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_object_storage_refuses_is_said_at_the_start_and_to_probes() {
    let fleet = Installation::new().await;
    for (name, value, code, remedy) in [
        (
            "S3_SECRET_ACCESS_KEY",
            "wrong",
            "SignatureDoesNotMatch",
            "check S3_ACCESS_KEY_ID",
        ),
        (
            "S3_BUCKET",
            "no-such-bucket",
            "NoSuchBucket",
            "correct S3_BUCKET",
        ),
    ] {
        let mut command = fleet.command(&["serve", "--listen=127.0.0.1:0"]);
        command.env(name, value);
        let node = fleet.node_by(command, "").await;

        let ready = node.client.get(format!("http://{}/readyz", node.address));
        let (status, ready) = send(ready).await;

        assert_eq!(status, 503, "{ready}");
        let missing = format!("object storage refuses requests: {code}");
        assert_eq!(ready["parts"][1]["missing"], missing, "{ready}");
        let log = fleet.logs();
        assert!(log.contains(code) && log.contains(remedy), "{log}");
        node.end().await;
    }
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cursus"));
    command.arg("config").env_clear();
    let unset = command.output().unwrap();
    for name in [
        "CURSUS_DATA_DIR",
        "CURSUS_LISTEN",
        "CURSUS_DRAIN_TIMEOUT",
        "CURSUS_LOG_FORMAT",
        "DATABASE_URL",
        "S3_FORCE_PATH_STYLE",
    ] {
        command.env(name, "");
    }
    let empty = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(empty.status.success(), "{}", text(&empty.stderr));
    assert_eq!(text(&empty.stdout), text(&unset.stdout));
}

#[tokio::test]
async fn keys_are_listed_and_revoked_without_a_node() {
    let installation = Installation::new().await;
    let (kept, revoked) = (installation.key("shop"), installation.key("shop"));
    let id = |key: &str| key.split('_').nth(1).unwrap().to_owned();
    let revoke = ["key", "revoke", "--tenant", "shop", &id(&revoked)];
    assert!(installation.said(&revoke).contains("is revoked"));
    installation.said(&revoke);
    let list = installation.said(&["key", "list", "--tenant", "shop"]);
    let rows: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(rows.len(), 3, "{list}");
    assert_eq!((rows[0][0], rows[0][6]), ("ID", "REVOKED"));
    let is_revoked = |key: &str| {
        let row = rows.iter().find(|row| row[0] == id(key)).unwrap();
        row[6] != "-"
    };
    assert!(!is_revoked(&kept) && is_revoked(&revoked));
    assert!(!list.contains(&kept) && rows[1][2].contains("publish"));

    let mut other =
        installation.command(&["key", "revoke", "--tenant", "shop", "0123456789abcdef"]);
    let other = other.output().unwrap();
    assert!(!other.status.success());
    let said = String::from_utf8_lossy(&other.stderr);
    assert!(
        said.contains("key 0123456789abcdef does not exist"),
        "{said}"
    );
}

#[tokio::test]
async fn metrics_and_documentation_can_have_an_address_of_their_own() {
    let installation = Installation::new().await;
    let serve = [
        "serve",
        "--listen=127.0.0.1:0",
        "--service-listen=127.0.0.1:0",
    ];
    let key = installation.key("a");
    let node = installation
        .node_by(installation.command(&serve), &key)
        .await;
    let logs = installation.logs();
    let (_, rest) = logs.split_once("metrics and documentation on ").unwrap();
    let service = rest.lines().next().unwrap().trim();
    let status = async |address: &str, path: &str| {
        let url = format!("http://{address}{path}");
        client().get(url).send().await.unwrap().status().as_u16()
    };
    let clients = node.address.to_string();
    for path in ["/metrics", "/docs/", "/openapi.json"] {
        assert_eq!(status(service, path).await, 200, "{path}");
        assert_eq!(status(&clients, path).await, 404, "{path}");
    }
    for address in [service, &clients] {
        assert_eq!(status(address, "/readyz").await, 200);
    }
    assert_eq!(status(service, "/v1/topics").await, 404);
    assert_eq!(status(&clients, "/v1/topics").await, 401);
}

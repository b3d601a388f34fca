//! How commands fail: each kind with an exit code of its own, and a message that says what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Program, Ran, closed_fleet, fleet, with_topic};
use crate::harness::behaviour::Does;
use crate::harness::endpoint::Endpoint;

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_named_with_what_to_do() {
    let cli = Program::at("http://127.0.0.1:1");
    let list = cli.run(&["topic", "list"]).await;
    list.fails(
        5,
        &[
            "cannot reach http://127.0.0.1:1 (from CURSUS_URL)",
            "cursus serve",
            "--profile",
        ],
    );
}

#[tokio::test]
async fn an_answer_of_another_server_is_told_apart() {
    let other = Endpoint::new().await;
    other.always(Does::says_with(404, &[]));
    let url = other.url();
    let cli = Program::at(url.split("/hook").next().unwrap());
    let list = cli.run(&["topic", "list"]).await;
    list.fails(1, &["answers with status 404, and not as Cursus does"]);
}

#[tokio::test]
async fn a_key_that_is_wrong_expired_or_too_weak_is_named_without_its_secret() {
    let fleet = closed_fleet().await;
    let node = fleet.node().await;
    let key = fleet.key_for("default", &["publish"]).await;
    let list = async |key: Option<&str>| {
        let cli = Program {
            key: key.map(str::to_owned),
            ..Program::of(&node)
        };
        cli.run(&["topic", "list"]).await
    };

    list(None).await.fails(4, &["asks for a key", "CURSUS_KEY"]);
    let wrong = list(Some("cursus_0123456789abcdef_wrong")).await;
    wrong.fails(
        4,
        &[
            "the key cursus_0123456789abcdef_…, from CURSUS_KEY",
            "expired or revoked",
        ],
    );
    assert!(!wrong.err.contains("wrong"), "{}", wrong.err);
    let weak = list(Some(&key)).await;
    weak.fails(4, &["forbidden", "lacks the scope"]);
    assert!(!weak.err.contains(&key), "{}", weak.err);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_key_that_has_expired_is_refused() {
    let fleet = closed_fleet().await;
    let node = fleet.node().await;
    let admin = fleet.key_for("default", &["admin"]).await;
    let operator = Program::with_key(&node, &admin);
    let create = ["key", "create", "--expires-in", "1s"];
    let key = operator.says(&create).await;
    let cli = Program::with_key(&node, key.trim());
    cli.says(&["topic", "list"]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let list = cli.run(&["topic", "list"]).await;

    list.fails(4, &["expired or revoked", "cursus key create"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn what_does_not_exist_and_what_is_invalid_have_codes_of_their_own() {
    let (fleet, node, cli) = with_topic().await;
    let cases: [(&[&str], i32, &str); 8] = [
        (&["publish", "nope", "x"], 3, "cursus topic create"),
        (&["receive", "nope"], 3, "cursus subscription list"),
        (&["message", "000000010000000002s3"], 3, "not_found"),
        (&["topic", "create", "a/b"], 2, "A-Z a-z 0-9"),
        (
            &["topic", "create", "t", "--retention", "1s"],
            2,
            "/retention_seconds",
        ),
        (
            &["publish", "t", "x", "--from-line", "3"],
            2,
            "--from-line needs --lines",
        ),
        (&["publish", "t", "--lines", "/nowhere"], 2, "/nowhere"),
        (&["topic", "list", "--url", "nonsense"], 2, "is no URL"),
    ];
    for (args, code, says) in cases {
        cli.run(args).await.fails(code, &[says]);
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_a_refusal_for_now() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    fleet.quota("default", json!({"topics": 1})).await;
    let cli = Program::of(&node);
    cli.says(&["topic", "create", "one"]).await;

    let began = Instant::now();
    let two = cli.run(&["topic", "create", "two"]).await;

    two.fails(6, &["quota_exceeded", "cursus quota"]);
    // The service says to come back in a minute; a person is told at once.
    assert!(began.elapsed() < Duration::from_secs(30));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn messages_that_nobody_reads_any_more_are_given_back() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for body in ["a", "b", "c"] {
        node.publish(body).await;
    }
    let cli = Program::of(&node);

    for args in [&["receive", "s", "-n", "3"][..], &["tail", "s", "--ack"]] {
        let mut child = cli.command(args).spawn().unwrap();
        drop(child.stdout.take());
        let ran = Ran::of(&child.wait_with_output().await.unwrap());
        ran.fails(
            141,
            &["the reader of the output has gone: 0 messages were shown, 3 are given back to s"],
        );
    }

    let again = node.receive(10).await;
    let attempts: Vec<&Value> = again.iter().map(|message| &message["attempt"]).collect();
    assert_eq!(attempts, [3, 3, 3]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn profiles_name_services_and_their_file_is_for_its_owner_alone() {
    let fleet = closed_fleet().await;
    let node = fleet.node().await;
    let key = fleet.key("default").await;
    let url = format!("http://{}", node.address);
    let cli = Program::at("");
    let set = ["profile", "set", "prod", "--url", &url, "--key", "-"];
    cli.fed(&set, format!("{key}\n").as_bytes()).await.done();
    cli.says(&[
        "profile",
        "set",
        "other",
        "--url",
        "http://127.0.0.1:1",
        "--key",
        "x",
    ])
    .await;

    // The first one is the default; a flag names another one.
    cli.says(&["topic", "create", "t"]).await;
    let other = cli.run(&["topic", "list", "--profile", "other"]).await;
    other.fails(5, &["http://127.0.0.1:1 (from profile other)"]);
    let list = cli.says(&["profile", "list"]).await;
    assert!(list.contains("prod") && !list.contains(&key), "{list}");
    cli.run(&["topic", "list", "--profile", "none"])
        .await
        .fails(8, &["there are: other, prod"]);
    let both = cli
        .run(&["topic", "list", "--profile", "prod", "--url", &url])
        .await;
    both.fails(8, &["--url and --profile both name a service"]);
    // The key of a profile goes nowhere else.
    let elsewhere = cli.run(&["topic", "list", "--url", &url]).await;
    elsewhere.fails(4, &["asks for a key"]);

    let file = cli.home.path().join("cursus/profiles.json");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    cli.run(&["topic", "list"])
        .await
        .fails(8, &["other users may read it", "chmod 600"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "{").unwrap();
    cli.run(&["topic", "list"])
        .await
        .fails(8, &["profiles.json"]);
    fleet.finish([node]).await;
}

//! `cursus demo`: all acts, on a node of its own and on another's, and nothing that is left.

use std::fs;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Program, Ran, fleet};
use crate::harness::process::kill;
use crate::harness::scratch::Scratch;

/// What a demo shows.
const SHOWS: [&str; 6] = [
    "curl -X PUT \"$url/v1/topics/orders",
    "\"attempt\":2",
    "\"cursus-dead-letter-reason\":\"max_attempts\"",
    "webhook-signature: v1,",
    "# The signature is that of the subscription's secret.",
    "# That was all.",
];

#[tokio::test]
async fn a_demo_starts_a_node_of_its_own_and_leaves_nothing_behind() {
    let cli = Program::at("");
    let place = Scratch::new("demo");
    let mut command = cli.command(&["demo"]);
    let ran = Ran::of(&command.env("TMPDIR", place.path()).output().await.unwrap());

    let shown = ran.done();

    for text in SHOWS {
        assert!(shown.contains(text), "{text:?} is not in: {shown}");
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing_behind_either() {
    let cli = Program::at("");
    let place = Scratch::new("demo");
    let mut command = cli.command(&["demo"]);
    let mut child = command.env("TMPDIR", place.path()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap().unwrap();

    kill(i32::try_from(child.id().unwrap()).unwrap(), Signal::INT);
    let reads = async { while let Ok(Some(_)) = lines.next_line().await {} };
    let (output, ()) = tokio::join!(child.wait_with_output(), reads);

    Ran::of(&output.unwrap()).fails(130, &["interrupted"]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_demo_on_another_node_deletes_what_it_made() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    let cli = Program::of(&node);

    let shown = cli.says(&["demo"]).await;

    for text in SHOWS {
        assert!(shown.contains(text), "{text:?} is not in: {shown}");
    }
    assert!(cli.json(&["topic", "list"]).await.is_empty());
    assert!(cli.json(&["subscription", "list"]).await.is_empty());
    fleet.finish([node]).await;
}

#[tokio::test]
async fn without_postgres_it_is_said_what_to_install() {
    let cli = Program::at("");
    let place = Scratch::new("demo");
    let mut command = cli.command(&["demo"]);
    command
        .env("TMPDIR", place.path())
        .env("CURSUS_POSTGRES_BIN", "/nowhere");
    let ran = Ran::of(&command.output().await.unwrap());

    ran.fails(1, &["--postgres-bin /nowhere", "no working `postgres`"]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

//! A publish of the lines of a file: nothing is lost, nothing is published twice, whatever happens in the middle.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::process::Child;

use super::{Program, Ran, fleet, published, with_topic};
use crate::harness::Node;
use crate::harness::process::kill;

/// A file with so many lines.
fn file(cli: &Program, lines: u32) -> String {
    let path = cli.home.path().join("lines");
    let text: String = (1..=lines).map(|line| format!("line {line}\n")).collect();
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A publish to `t` that has stored a part of its lines.
async fn begun(cli: &Program, node: &Node, publish: &[&str]) -> Child {
    let child = cli.command(publish).spawn().unwrap();
    while published(node, "t").await < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child
}

async fn bodies(node: &Node) -> Vec<String> {
    let mut bodies = Vec::new();
    let mut path = "/v1/topics/t/messages?limit=1000".to_owned();
    loop {
        let (_, page) = node.get(&path).await;
        let items = page["items"].as_array().unwrap();
        bodies.extend(
            items
                .iter()
                .map(|item| item["body"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/topics/t/messages?limit=1000&after={next}"),
            None => return bodies,
        }
    }
}

#[tokio::test]
async fn the_same_file_is_published_once_under_any_name() {
    let (fleet, node, cli) = with_topic().await;
    let path = file(&cli, 250);

    let first = cli.json(&["publish", "t", "--lines", &path]).await;
    let copy = format!("{path}-copy");
    fs::copy(&path, &copy).unwrap();
    let second = cli.json(&["publish", "t", "--lines", &copy]).await;
    fs::write(&path, "line 1\nanother\n").unwrap();
    let other = cli.json(&["publish", "t", "--lines", &path]).await;

    assert_eq!(
        (&first[0]["lines"], &first[0]["duplicates"]),
        (&json!(250), &json!(0))
    );
    assert_eq!(
        (&second[0]["lines"], &second[0]["duplicates"]),
        (&json!(250), &json!(250))
    );
    assert_eq!(
        (&other[0]["lines"], &other[0]["duplicates"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(published(&node, "t").await, 252);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn one_request_at_a_time_keeps_the_order_of_lines() {
    let (fleet, node, cli) = with_topic().await;
    let path = file(&cli, 350);

    cli.says(&["publish", "t", "--lines", &path, "--in-flight", "1"])
        .await;

    let expected: Vec<String> = (1..=350).map(|line| format!("line {line}")).collect();
    assert_eq!(bodies(&node).await, expected);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_interrupted_publish_says_how_far_it_got_and_goes_on_there() {
    const LINES: u32 = 20_000;
    let (fleet, node, cli) = with_topic().await;
    let path = file(&cli, LINES);

    let publish = ["publish", "t", "--lines", &path, "--batch", "3"];
    let child = begun(&cli, &node, &publish).await;
    kill(i32::try_from(child.id().unwrap()).unwrap(), Signal::INT);
    let ran = Ran::of(&child.wait_with_output().await.unwrap());
    ran.fails(130, &["interrupted: the", "--from-line"]);
    let stored = published(&node, "t").await;
    assert!(
        stored < u64::from(LINES),
        "{stored} lines: it was not interrupted"
    );

    let resume = ran
        .err
        .lines()
        .find(|line| line.contains("--from-line"))
        .unwrap();
    let resume: Vec<&str> = resume
        .split_whitespace()
        .skip(1)
        .map(|arg| arg.trim_matches('\''))
        .collect();
    let from = resume.iter().position(|arg| *arg == "--from-line").unwrap() + 1;
    // What was in flight has been waited for: all lines before this one, and no other, are published.
    assert_eq!(resume[from].parse::<u64>().unwrap(), stored + 1);
    cli.says(&resume).await;
    let again = cli.json(&publish).await;

    assert_eq!(again[0]["duplicates"], LINES);
    let all = bodies(&node).await;
    assert_eq!(all.len(), LINES as usize);
    assert_eq!(
        all.into_iter().collect::<BTreeSet<_>>().len(),
        LINES as usize
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_publish_that_is_killed_is_repeated_without_duplicates() {
    const LINES: u32 = 5_000;
    let (fleet, node, cli) = with_topic().await;
    let path = file(&cli, LINES);

    let publish = ["publish", "t", "--lines", &path, "--batch", "3"];
    let mut child = begun(&cli, &node, &publish).await;
    child.kill().await.unwrap();
    cli.says(&publish).await;

    assert_eq!(published(&node, "t").await, u64::from(LINES));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_line_that_is_refused_is_named_and_those_before_it_are_published() {
    let (fleet, node, cli) = with_topic().await;
    let long = format!("one\ntwo\n{}\nfour\n", "x".repeat((1 << 20) + 1));

    let ran = cli
        .fed(&["publish", "t", "--lines", "-"], long.as_bytes())
        .await;

    ran.fails(7, &["line 3 has 1048577 bytes", "--from-line 3"]);
    assert_eq!(bodies(&node).await, ["one", "two"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn lines_from_a_pipe_are_named_by_their_source() {
    let (fleet, node, cli) = with_topic().await;

    let named = ["publish", "t", "--lines", "-", "--source", "export-7"];
    for _ in 0..2 {
        cli.fed(&named, b"a\r\nb\n\nc").await.done();
    }
    let from = [&named[..], &["--from-line", "4"]].concat();
    cli.fed(&from, b"a\nb\n\nc\nd").await.done();

    assert_eq!(bodies(&node).await, ["a", "b", "", "c", "d"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_rate_that_is_limited_is_waited_for() {
    let fleet = fleet().await;
    let rate = json!({"messages_per_second": {"guaranteed": 200, "ceiling": 200}});
    let node = fleet.node().await;
    fleet.quota("default", rate).await;
    node.topic("t").await;
    let cli = Program::of(&node);
    let path = file(&cli, 1_000);

    let ran = cli.run(&["publish", "t", "--lines", &path]).await;

    ran.done();
    assert_eq!(published(&node, "t").await, 1_000);
    fleet.finish([node]).await;
}

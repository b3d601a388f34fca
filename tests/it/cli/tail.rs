//! `cursus tail`: it looks without consuming, and consumes only when it is told to.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Program, fleet};

#[tokio::test]
async fn a_tail_shows_what_comes_and_takes_nothing_away() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    node.topic_and_subscription(serde_json::json!({})).await;
    node.publish("before").await;
    let cli = Program::of(&node);

    let mut tail = cli.command(&["tail", "-f", "s", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    // Published until one is seen: the tail begins at some time after its start.
    let mut count = 0;
    let first = loop {
        node.publish(&format!("news {count}")).await;
        count += 1;
        let next = tokio::time::timeout(std::time::Duration::from_secs(2), lines.next_line()).await;
        if let Ok(line) = next {
            break line.unwrap().unwrap();
        }
    };
    node.publish("the end").await;
    let mut seen = vec![first];
    while !seen.last().unwrap().contains("the end") {
        seen.push(lines.next_line().await.unwrap().unwrap());
    }
    tail.kill().await.unwrap();

    let mut bodies: Vec<String> = Vec::new();
    for line in &seen {
        let message: Value = serde_json::from_str(line).unwrap();
        bodies.push(message["body"].as_str().unwrap().to_owned());
    }
    assert!(!bodies.contains(&"before".to_owned()), "{bodies:?}");
    let mut unique = bodies.clone();
    unique.dedup();
    assert_eq!(unique, bodies);
    assert_eq!(node.receive(100).await.len(), count + 2);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_tail_that_acks_shows_each_message_once() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    node.topic_and_subscription(serde_json::json!({})).await;
    for body in ["a", "b", "c"] {
        node.publish(body).await;
    }
    let cli = Program::of(&node);

    let looked = cli.json(&["tail", "s"]).await;
    let two = cli.json(&["tail", "s", "--ack", "-n", "2"]).await;
    let rest = cli.json(&["tail", "s", "--ack"]).await;

    let bodies = |messages: &[Value]| {
        messages
            .iter()
            .map(|m| m["body"].as_str().unwrap().to_owned())
            .collect::<String>()
    };
    assert_eq!(
        (bodies(&looked), bodies(&two), bodies(&rest)),
        ("abc".into(), "ab".into(), "c".into())
    );
    assert!(node.receive(10).await.is_empty());
    fleet.finish([node]).await;
}

//! A database that has lost what it had committed: a replica that took over before it knew all, and a backup that was
//! restored while nodes run. Nodes forget what they remember of it, and no id or receipt of a lost message becomes one of
//! another message. A crash loses nothing, and nothing is forgotten.

use api::MessageId;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::harness::backup::Backup;
use crate::harness::{Fleet, Node, send, text, until};

#[derive(Clone, Copy, Debug)]
enum Loss {
    FailOver,
    Restore,
}

#[tokio::test]
async fn a_replica_that_takes_over_without_the_last_commits_begins_a_new_era() {
    lose(Loss::FailOver).await;
}

#[tokio::test]
async fn a_backup_restored_under_running_nodes_begins_a_new_era() {
    lose(Loss::Restore).await;
}

async fn lose(loss: Loss) {
    let backup = Backup::of_new_server().await;
    let fleet = Fleet::on(backup.database()).await;
    let (one, other) = (fleet.node().await, fleet.node().await);
    one.topic_and_subscription(json!({})).await;
    let kept = keyed(&one, "kept", "kept").await;
    let kept_receipt = one.receive(1).await.remove(0)["receipt"].clone();
    backup.take().await;
    for node in [&one, &other] {
        answers(node).await;
        heartbeat_follows(&fleet, node).await;
    }
    // Both nodes know messages that will be lost, the first one by their blocks.
    let lost = keyed(&one, "lost", "lost").await;
    let second = one.publish("second").await;
    let received = other.receive(10).await;
    assert_eq!(ids(&received), [lost.as_str(), second.as_str()]);
    match loss {
        Loss::FailOver => backup.fail_over().await,
        Loss::Restore => backup.restore().await,
    }

    answers(&one).await;
    answers(&other).await;
    // The key was lost with its message. The new message is where the lost one was.
    let new = keyed(&other, "lost", "new").await;
    let (old_id, new_id): (MessageId, MessageId) = (lost.parse().unwrap(), new.parse().unwrap());
    assert_eq!((old_id.lane, old_id.offset), (new_id.lane, new_id.offset));
    assert!(old_id.era == 0 && new_id.era > 0, "{new}");
    assert_eq!(
        keyed(&one, "lost", "new").await,
        new,
        "a repeat has the id of the first"
    );
    assert_eq!(keyed(&one, "kept", "kept").await, kept);
    for node in [&one, &other] {
        assert_eq!(body(node, &kept).await.as_deref(), Some("kept"));
        assert_eq!(body(node, &new).await.as_deref(), Some("new"));
        for gone in [&lost, &second] {
            assert_eq!(body(node, gone).await, None, "{gone}");
        }
        // A receipt of a lease that is still there settles it; those of lost leases settle nothing.
        for message in &received {
            let results = node.ack(&[&message["receipt"]]).await;
            assert_eq!(results[0]["error"]["code"], "lease_lost", "{results:?}");
        }
    }
    let got = one.receive(10).await;
    assert_eq!(ids(&got), [new.as_str()]);
    assert_eq!(got[0]["body"], "new");
    let results = other.ack(&[&got[0]["receipt"], &kept_receipt]).await;
    assert!(
        results.iter().all(|result| result["error"].is_null()),
        "{results:?}"
    );
    fleet.finish([one, other]).await;
}

#[tokio::test]
async fn a_crash_of_the_database_forgets_nothing() {
    let backup = Backup::of_new_server().await;
    let fleet = Fleet::on(backup.database()).await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    node.publish("first").await;
    heartbeat_follows(&fleet, &node).await;
    backup.crash().await;
    let id: MessageId = keyed(&node, "second", "second").await.parse().unwrap();
    assert_eq!((id.era, id.offset), (0, 1));
    assert_eq!(node.receive(10).await.len(), 2);
    fleet.finish([node]).await;
}

/// Waits until a node serves requests again. There is nothing to receive.
async fn answers(node: &Node) {
    let nothing = until("the node answers", async || {
        let ask = json!({"max_messages": 1});
        let (status, answer) = node.post("/v1/subscriptions/s/receive", ask).await;
        (status == 200).then(|| answer["messages"].clone())
    });
    assert_eq!(nothing.await, json!([]));
}

/// Waits until the database has confirmed a heartbeat of a node that begins from now on, and one before it.
async fn heartbeat_follows(fleet: &Fleet, node: &Node) {
    let mut sql = fleet.database.connect().await;
    for _ in 0..2 {
        let seen = "SELECT seen_at::text FROM node WHERE node_id = $1";
        let mut seen = async || -> Option<String> {
            sqlx::query_scalar(seen)
                .bind(node.engine.node())
                .fetch_optional(&mut sql)
                .await
                .unwrap()
        };
        let before = seen().await;
        until("a heartbeat", async || {
            seen().await.filter(|at| Some(at) != before.as_ref())
        })
        .await;
    }
    sql.close().await.unwrap();
}

/// Publishes to `t` with a key until it succeeds; returns the id.
async fn keyed(node: &Node, key: &str, body: &str) -> String {
    until("a publish", async || {
        let request = node
            .request(Method::POST, "/v1/topics/t/messages")
            .header("idempotency-key", format!("\"{key}\""))
            .header("content-type", "text/plain")
            .body(body.to_owned());
        let (status, answer) = send(request).await;
        assert!([200, 503].contains(&status), "{answer}");
        (status == 200).then(|| text(&answer["id"]))
    })
    .await
}

/// The body of a message; `None`: there is none of this id.
async fn body(node: &Node, id: &str) -> Option<String> {
    let (status, message) = node.get(&format!("/v1/messages/{id}")).await;
    assert!([200, 404].contains(&status), "{message}");
    (status == 200).then(|| text(&message["body"]))
}

fn ids(messages: &[Value]) -> Vec<&str> {
    let ids = messages.iter().map(|message| message["id"].as_str());
    ids.map(Option::unwrap).collect()
}

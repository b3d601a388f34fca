//! Backups of a running fleet, taken and restored as infra/operate/backup-and-restore.md says: the database first, then the
//! bucket within the hour for which objects without references are kept. What was answered before the backup is there, and
//! what came later is not mistaken for anything else.

use bytes::Bytes;
use cursus::engine::lifecycle::collect::{Collect, CollectSettings};
use cursus::engine::lifecycle::offload::Offload;
use cursus::store::hot_payload;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::backup::{Backup, Program, lock_slots};
use crate::harness::log::{PROMPT, folder, noise};
use crate::harness::postgres::copy;
use crate::harness::scratch::Scratch;
use crate::harness::{Fleet, Node, send, text};

/// Seconds for which objects without references are kept, as the page says.
const HOUR: u64 = 3_600;

#[tokio::test]
async fn a_dump_and_a_copy_of_the_bucket_after_it_restore_the_moment_of_the_dump() {
    restore(Program::Dump).await;
}

#[tokio::test]
async fn a_base_backup_and_a_copy_of_the_bucket_after_it_restore_the_end_of_the_backup() {
    restore(Program::BaseBackup).await;
}

async fn restore(program: Program) {
    let backup = Backup::of_new_server().await;
    let (objects, copied) = (Scratch::new("objects"), Scratch::new("copied"));
    let mut fleet = Fleet::on(backup.database()).await;
    fleet.blob = folder(&objects).await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let acked = node.publish("acked").await;
    let held = node.publish("held").await;
    let packed = node.publish("packed").await;
    let large = publish(&node, noise(1 << 20)).await;
    assert!(fleet.offload().await > 0);
    let hot = node.publish("hot").await;
    let received = node.receive(2).await;
    assert_eq!(
        (text(&received[0]["id"]), text(&received[1]["id"])),
        (acked.clone(), held.clone())
    );
    assert_eq!(node.ack(&[&received[0]["receipt"]]).await, [json!({})]);

    let mut bodies = Vec::new();
    for id in [&acked, &held, &packed, &large, &hot] {
        bodies.push((id.clone(), body_of(&node, id).await.unwrap()));
    }
    // Old enough to be collected as soon as no block refers to them.
    fleet.advance(2 * HOUR);

    backup.take_by(program).await;

    // Life goes on: all is consumed, other messages come, and the collection runs until just before the copy.
    let rest = node.receive(10).await;
    let receipts: Vec<&Value> = rest.iter().map(|message| &message["receipt"]).collect();
    node.ack(&receipts).await;
    fleet.expire().await;
    let collect = || Collect::new(fleet.blob.clone(), CollectSettings::default());
    fleet.run(collect()).await;
    fleet.advance(HOUR - 1);
    let late = [
        node.publish("late").await,
        publish(&node, noise(1 << 20)).await,
    ];
    let late_receipt = node.receive(1).await.remove(0)["receipt"].clone();
    assert_eq!(fleet.run(collect()).await, 0);
    std::fs::remove_dir_all(copied.path()).unwrap();
    copy(objects.path(), copied.path());
    // An hour after the backup it would have been too late.
    fleet.advance(2);
    assert!(fleet.run(collect()).await > 0);

    let mut other = Fleet::on(backup.restored(program).await).await;
    other.blob = folder(&copied).await;
    other.clock = fleet.clock.clone();
    let again = other.node().await;
    for (id, body) in bodies {
        assert_eq!(body_of(&again, &id).await, Some(body), "{id}");
    }
    for id in &late {
        assert_eq!(again.get(&format!("/v1/messages/{id}")).await.0, 404);
    }
    // A receipt of a lease that the backup has settles it; one of a later lease settles nothing.
    let results = again.ack(&[&received[1]["receipt"], &late_receipt]).await;
    assert_eq!(results[0], json!({}));
    assert_eq!(results[1]["error"]["code"], "lease_lost", "{results:?}");
    // What was acked after the backup comes again, what was acked before does not.
    let delivered = again.receive(10).await;
    let mut ids: Vec<String> = delivered
        .iter()
        .map(|message| text(&message["id"]))
        .collect();
    ids.sort_unstable();
    let mut expected = [packed, large, hot];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    // No id of a later message is given out again.
    let new = again.publish("new").await;
    assert!(!late.contains(&new), "{new}");
    fleet.finish([node]).await;
    other.finish([again]).await;
}

#[tokio::test]
async fn while_a_dump_locks_the_slots_publishes_and_offloading_go_on_and_no_slot_is_truncated() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let before = node.publish("before").await;
    let mut dump = fleet.database.connect().await;
    lock_slots(&mut dump).await;

    let meanwhile = node.publish("meanwhile").await;
    assert_eq!(fleet.offload().await, 2);
    let store = fleet.database.store();
    let filled = async || {
        let mut session = store.session().await.unwrap();
        let sizes = hot_payload::sizes(&mut session).await.unwrap();
        sizes.iter().filter(|bytes| **bytes > 0).count()
    };
    assert_eq!(filled().await, 1);
    sqlx::Connection::close(dump).await.unwrap();
    fleet.run(Offload::new(fleet.blob.clone(), PROMPT)).await;
    assert_eq!(filled().await, 0);
    store.close().await;
    for id in [before, meanwhile] {
        assert!(body_of(&node, &id).await.is_some(), "{id}");
    }
    fleet.finish([node]).await;
}

async fn publish(node: &Node, body: Vec<u8>) -> String {
    let request = node.request(Method::POST, "/v1/topics/t/messages");
    let (status, answer) = send(request.body(body)).await;
    assert_eq!(status, 200, "{answer}");
    text(&answer["id"])
}

/// The body of a message; `None`: there is none of this id.
async fn body_of(node: &Node, id: &str) -> Option<Bytes> {
    let request = node.request(Method::GET, &format!("/v1/messages/{id}/body"));
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    assert!([200, 404].contains(&status), "{id}: {status}");
    let body = answer.bytes().await.unwrap();
    (status == 200).then_some(body)
}

//! What each command of messages does, in tables and in JSON.

use std::fs;

use serde_json::json;

use super::{Program, fleet, lines_of, with_topic};

#[tokio::test]
async fn a_message_goes_from_publish_through_receive_to_ack() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    let cli = Program::of(&node);
    cli.says(&["topic", "create", "orders", "--retention", "7d"])
        .await;
    cli.says(&["subscription", "create", "billing", "--topic", "orders"])
        .await;
    let publish = [
        "publish",
        "orders",
        "two espressos",
        "tea",
        "--tag",
        "coffee",
        "--attribute",
        "Table=7",
    ];
    let ids = cli.says(&publish).await;

    let received = cli
        .says(&["receive", "billing", "-n", "10", "--json"])
        .await;
    let acked = cli
        .fed(&["ack", "billing", "-"], received.as_bytes())
        .await
        .done();
    let rest = cli.says(&["receive", "billing"]).await;

    let messages = lines_of(&received);
    let bodies: Vec<_> = messages.iter().map(|message| &message["body"]).collect();
    assert_eq!(bodies, ["two espressos", "tea"]);
    assert_eq!(messages[0]["attributes"], json!({"Table": "7"}));
    assert_eq!(messages[0]["tag"], "coffee");
    let of_messages: Vec<_> = messages
        .iter()
        .map(|message| message["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.lines().collect::<Vec<_>>(), of_messages);
    assert_eq!((&*acked, &*rest), ("2 settled\n", ""));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_message_is_given_back_kept_and_dead_lettered() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    let cli = Program::of(&node);
    for topic in ["orders", "dead"] {
        cli.says(&["topic", "create", topic]).await;
    }
    let create = [
        "subscription",
        "create",
        "billing",
        "--topic",
        "orders",
        "--dead-letter-topic",
        "dead",
    ];
    cli.says(&create).await;
    cli.says(&["subscription", "create", "failed", "--topic", "dead"])
        .await;
    cli.says(&["publish", "orders", "cake"]).await;
    let receive = async || {
        let got = cli.json(&["receive", "billing", "--wait", "20s"]).await;
        (
            got[0]["attempt"].as_u64().unwrap(),
            got[0]["receipt"].as_str().unwrap().to_owned(),
        )
    };

    let (first, receipt) = receive().await;
    cli.says(&["nack", "billing", &receipt, "--delay", "1s"])
        .await;
    let (second, receipt) = receive().await;
    let extend = [
        "settle",
        "billing",
        &receipt,
        "--action",
        "extend",
        "--visibility",
        "10m",
    ];
    let extended = cli.json(&extend).await;
    let dead = [
        "settle",
        "billing",
        &receipt,
        "--action",
        "dead-letter",
        "--reason",
        "no cake",
    ];
    cli.says(&dead).await;
    let buried = cli.json(&["receive", "failed", "--wait", "20s"]).await;
    let late = cli.run(&["ack", "billing", &receipt]).await;

    assert_eq!((first, second), (1, 2));
    assert!(extended[0]["visible_until"].is_string());
    assert_eq!(
        buried[0]["attributes"]["cursus-dead-letter-reason"],
        "no cake"
    );
    late.fails(7, &["lease_lost"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn tables_are_for_people_and_json_is_for_pipes() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    let cli = Program::of(&node);
    cli.says(&["topic", "create", "orders"]).await;
    let create = [
        "subscription",
        "create",
        "billing",
        "--topic",
        "orders",
        "--max-attempts",
        "3",
    ];
    cli.says(&create).await;
    cli.says(&["publish", "orders", "a"]).await;
    node.get("/v1/topics").await;

    let topics = cli.says(&["topic", "list"]).await;
    let (head, row) = topics.split_once('\n').unwrap();
    assert_eq!(
        head,
        "NAME    RETENTION (S)  DEDUP WINDOW (S)  KEEPS CONSUMED  CREATED"
    );
    assert!(
        row.starts_with("orders  345600         600               false           20"),
        "{row}"
    );
    let list = cli.says(&["subscription", "list"]).await;
    assert_eq!(
        list.lines().nth(1).unwrap(),
        "billing  orders  30              3         -             -"
    );
    let stats = cli.json(&["stats"]).await;
    assert_eq!(
        (&stats[0]["subscription"], &stats[0]["stats"]["ready"]),
        (&json!("billing"), &json!(1))
    );
    let shown = cli.json(&["subscription", "show", "billing"]).await;
    assert_eq!(shown[0]["max_attempts"], 3);
    let deleted = cli.says(&["subscription", "delete", "billing"]).await;
    assert_eq!(deleted, "subscription billing is deleted\n");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn bodies_are_bytes_and_come_back_as_they_were() {
    let (fleet, node, cli) = with_topic().await;
    let large: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.to_le_bytes()[0] ^ 0x9c)
        .collect();
    let file = cli.home.path().join("photo");
    fs::write(&file, &large).unwrap();

    let photo = [
        "publish",
        "t",
        "--file",
        file.to_str().unwrap(),
        "--content-type",
        "image/jpeg",
        "--tag",
        "photo",
    ];
    let photo = cli.says(&photo).await;
    let piped = cli.fed(&["publish", "t"], &[0, 255, b'\n']).await.done();

    for (id, expected) in [(photo.trim(), &large[..]), (piped.trim(), &[0, 255, b'\n'])] {
        let output = cli
            .command(&["message", id, "--body"])
            .output()
            .await
            .unwrap();
        assert!(output.stdout == expected, "{} bytes", output.stdout.len());
    }
    let shown = cli.json(&["message", photo.trim()]).await;
    assert_eq!(shown[0]["content_type"], "image/jpeg");
    let tagged = cli.json(&["browse", "t", "--tag", "photo"]).await;
    assert_eq!(tagged.len(), 1);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_publish_with_an_idempotency_key_is_one_message() {
    let (fleet, node, cli) = with_topic().await;

    let publish = ["publish", "t", "once", "--idempotency-key", "order-7"];
    let first = cli.says(&publish).await;
    let second = cli.says(&publish).await;

    assert_eq!(first, second);
    assert_eq!(super::published(&node, "t").await, 1);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn the_bench_measures_and_deletes_what_it_made() {
    let fleet = fleet().await;
    let node = fleet.node().await;
    let cli = Program::of(&node);

    let bench = [
        "bench",
        "--duration",
        "1s",
        "--publishers",
        "2",
        "--receivers",
        "2",
    ];
    let rows = cli.json(&bench).await;

    let (published, received) = (&rows[0]["messages"], &rows[1]["messages"]);
    assert!(
        published.as_u64().unwrap() > 0 && published == received,
        "{rows:?}"
    );
    assert!(cli.json(&["topic", "list"]).await.is_empty());
    fleet.finish([node]).await;
}

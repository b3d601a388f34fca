//! Browsing a topic of several lanes, which a topic of one cannot show.

use serde_json::Value;

use crate::harness::node::{Fleet, text};

#[tokio::test]
async fn every_page_after_a_time_keeps_to_it_in_each_lane() {
    let fleet = Fleet::new().await;
    let first = fleet.node().await;
    first.topic("t").await;
    let mut sql = fleet.database.connect().await;
    let second_lane = "INSERT INTO lane (topic_id, number, start_offset)
                       SELECT topic_id, 1, 0 FROM topic WHERE name = 't'";
    sqlx::query(second_lane).execute(&mut sql).await.unwrap();
    // Each node has a lane that it publishes to, by chance: start some until both are covered.
    let (mut nodes, mut lanes) = (Vec::new(), Vec::new());
    while lanes.len() < 2 {
        assert!(nodes.len() < 30, "30 nodes publish to one lane of two");
        let node = fleet.node().await;
        let id: api::MessageId = node.publish("old").await.parse().unwrap();
        if lanes.contains(&id.lane) {
            node.stop().await;
        } else {
            lanes.push(id.lane);
            nodes.push(node);
        }
    }
    fleet.advance(100);
    for node in &nodes {
        node.publish("new").await;
        node.publish("new").await;
    }

    let mut bodies = Vec::new();
    let mut query = "from=2030-01-01T00:01:00Z".to_owned();
    loop {
        let path = format!("/v1/topics/t/messages?limit=1&{query}");
        let (status, page) = nodes[0].get(&path).await;
        assert_eq!(status, 200, "{page}");
        let items: &Vec<Value> = page["items"].as_array().unwrap();
        bodies.extend(items.iter().map(|item| text(&item["body"])));
        match page["next"].as_str() {
            Some(next) => query = format!("after={next}"),
            None => break,
        }
    }

    assert_eq!(bodies, ["new"; 4]);
    nodes.push(first);
    fleet.finish(nodes).await;
}

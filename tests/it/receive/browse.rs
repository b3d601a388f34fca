//! Browsing a topic with several lanes.

use serde_json::Value;

use crate::harness::{Fleet, text};

#[tokio::test]
async fn every_page_after_a_time_keeps_to_it_in_each_lane() {
    let fleet = Fleet::new().await;
    let (first, mut nodes) = fleet.two_lanes().await;
    fleet.advance(100);
    let mut published = Vec::new();
    for node in &nodes {
        published.push(node.publish("new").await);
        published.push(node.publish("new").await);
    }

    let (mut ids, mut bodies) = (Vec::new(), Vec::new());
    let mut query = "from=2030-01-01T00:01:00Z".to_owned();
    loop {
        let path = format!("/v1/topics/t/messages?limit=1&{query}");
        let (status, page) = nodes[0].get(&path).await;
        assert_eq!(status, 200, "{page}");
        let items: &Vec<Value> = page["items"].as_array().unwrap();
        ids.extend(items.iter().map(|item| text(&item["id"])));
        bodies.extend(items.iter().map(|item| text(&item["body"])));
        match page["next"].as_str() {
            Some(next) => query = format!("after={next}"),
            None => break,
        }
    }

    assert_eq!(bodies, ["new"; 4]);
    ids.sort();
    published.sort();
    assert_eq!(ids, published, "each message once");
    nodes.push(first);
    fleet.finish(nodes).await;
}

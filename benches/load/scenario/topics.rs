//! Single publishes to thousands of topics in turn, relative to one topic on the same node. The cost per topic in a
//! turn must stay small, because tenants have many topics.

use serde_json::json;

use crate::Result;
use crate::client::Client;
use crate::flow::Flow;
use crate::node::{DataDir, Node};
use crate::requests::{ManyTopics, Pool};
use crate::row::Row;
use crate::run::{Outcome, closed_loop};
use crate::scenario::turns::Turns;
use crate::scenario::{Context, prepare};

const CONNECTIONS: usize = 64;
/// Connections that create topics.
const CREATORS: usize = 32;

pub(crate) async fn run(context: &Context, name: &str, floor: f64) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    context.note_settings(&node).await;
    prepare(&node, name).await?;
    let topics: Vec<String> = (0..context.args.topics())
        .map(|at| format!("{name}-{at:05}"))
        .collect();
    create(&node, &topics).await?;
    let one = Flow::Publish(Pool::publish(&node.server, name, 1));
    let many = Flow::Topics(ManyTopics::new(&node.server, &topics));
    let plan = context.plan(CONNECTIONS);

    let turns = Turns::measure(
        context.args.rounds(),
        Outcome::requests_per_second,
        async || closed_loop(node.address, plan, &one, None).await,
        async || closed_loop(node.address, plan, &many, Some(&node.probe)).await,
    )
    .await?;
    let mut row = turns.row(name, "one topic", Some(floor));
    row.memory(node.probe.peak_node_bytes());
    row.more = json!({ "topics": topics.len() });
    node.stop().await?;
    Ok(row)
}

/// Creates all topics over several connections, because a single one would mostly wait for commits. Each topic gets a
/// subscription, as the single topic has.
async fn create(node: &Node, topics: &[String]) -> Result<()> {
    let mut creators = tokio::task::JoinSet::new();
    for part in topics.chunks(topics.len().div_ceil(CREATORS).max(1)) {
        let mut client = Client::connect(node.address).await?;
        let requests: Vec<Vec<u8>> = part
            .iter()
            .flat_map(|topic| {
                let server = &node.server;
                [
                    server.put_topic(topic),
                    server.put_subscription(topic, topic),
                ]
            })
            .collect();
        creators.spawn(async move {
            for request in requests {
                client.must(&request).await?;
            }
            crate::Result::Ok(())
        });
    }
    while let Some(created) = creators.join_next().await {
        created??;
    }
    Ok(())
}

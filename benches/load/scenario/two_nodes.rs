//! Single publishes to one topic through two nodes on one Postgres, in turn with the same number of connections to a node
//! that is alone on its Postgres. The two nodes write to the same topic, so they must not wait for each other.

use crate::Result;
use crate::flow::Flow;
use crate::node::{DataDir, Node};
use crate::requests::Pool;
use crate::row::Row;
use crate::run::{Outcome, closed_loop, connect, repeat};
use crate::scenario::turns::Turns;
use crate::scenario::{Context, prepare};

/// Connections of both nodes together.
const CONNECTIONS: usize = 64;
/// The second node has no object storage, so nothing is offloaded during the run.
const FLAGS: [&str; 2] = ["--slot-window=1h", "--hot-window=1h"];

/// Two data directories, so that the node that is alone never had a second one; only one side runs at a time.
pub(crate) async fn run(context: &Context, name: &'static str, floor: f64) -> Result<Row> {
    let args = &context.args;
    let (alone_dir, shared_dir) = (DataDir::new(args, "alone")?, DataDir::new(args, "shared")?);
    let plan = context.plan(CONNECTIONS);
    let mut peak = None;
    let turns = Turns::measure(
        args.rounds(),
        Outcome::requests_per_second,
        async || {
            let node = Node::start_with(args, &alone_dir, &FLAGS).await?;
            context.note_settings(&node).await;
            prepare(&node, name).await?;
            let outcome = closed_loop(node.address, plan, &publish(&node, name), None).await?;
            node.stop().await?;
            Ok(outcome)
        },
        async || {
            let first = Node::start_with(args, &shared_dir, &FLAGS).await?;
            prepare(&first, name).await?;
            let second = Node::start_second(args, &shared_dir, &first, &FLAGS).await?;
            let half = CONNECTIONS / 2;
            let mut both = connect(first.address, half, &publish(&first, name)).await?;
            both.extend(connect(second.address, half, &publish(&second, name)).await?);
            let outcome = repeat(plan, both, &[&first.probe, &second.probe]).await?;
            for node in [&first, &second] {
                peak = peak.max(node.probe.peak_node_bytes());
            }
            second.stop().await?;
            first.stop().await?;
            Ok(outcome)
        },
    )
    .await?;
    let mut row = turns.row(name, "one node", Some(floor));
    row.memory(peak);
    Ok(row)
}

fn publish(node: &Node, topic: &str) -> Flow {
    Flow::Publish(Pool::publish(&node.server, topic, 1))
}

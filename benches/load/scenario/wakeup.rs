//! Two nodes on one Postgres: their load on it while a receiver waits and nothing else happens, and then the time from
//! a publish on one node, 100 times per second, to that receiver on the other.

use std::time::Instant;

use serde_json::json;

use crate::Result;
use crate::client::Client;
use crate::node::{DataDir, Node};
use crate::row::Row;
use crate::scenario::{Context, latency, prepare};

/// Limits in milliseconds from one node to another: median and 99th percentile.
const ACROSS_NODES: (f64, f64) = (25.0, 25.0);

pub(crate) async fn run(context: &Context, name: &str) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let first = Node::start(&context.args, &data_dir).await?;
    context.note_settings(&first).await;
    prepare(&first, name).await?;
    let second = Node::start_second(&context.args, &data_dir, &first, &[]).await?;
    let idle = idle(context, name, (&first, &second)).await?;
    let mut row = latency::measure(context, name, (&first, &second), ACROSS_NODES).await?;
    row.memory(first.probe.peak_node_bytes());
    row.memory(second.probe.peak_node_bytes());
    row.more = idle;
    second.stop().await?;
    first.stop().await?;
    Ok(row)
}

/// Cost per second of two idle nodes with one waiting receiver.
async fn idle(
    context: &Context,
    name: &str,
    (first, second): (&Node, &Node),
) -> Result<serde_json::Value> {
    let mut client = Client::connect(second.address).await?;
    let receive = second.server.receive(name, 10, 1);
    // The first round is not counted, because a node does some work once at its start.
    client.must(&receive).await?;
    let started = Instant::now();
    let before = (first.probe.read().await?, second.probe.read().await?);
    while started.elapsed() < context.args.idle() {
        client.must(&receive).await?;
    }
    let used = (
        first.probe.read().await?.since(&before.0),
        second.probe.read().await?.since(&before.1),
    );
    let seconds = started.elapsed().as_secs_f64();
    let rate = |count: Option<u64>| count.map(|count| count as f64 / seconds);
    Ok(json!({
        "nodes": 2,
        "idle_seconds": seconds,
        "idle_statements_per_second": [rate(used.0.statements), rate(used.1.statements)],
        "idle_postgres_commits_per_second": rate(used.0.postgres_commits),
        "idle_postgres_cpu_micros_per_second": rate(used.0.postgres_cpu_micros),
    }))
}

//! Receivers that wait on connections of their own while nothing is published: the memory of the node for each of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::Result;
use crate::client::Client;
use crate::node::{DataDir, Node};
use crate::row::Row;
use crate::scenario::{Context, prepare};

/// Receivers.
const RECEIVERS: usize = 5_000;
/// They connect in groups, because the backlog of the kernel is bounded.
const GROUP: usize = 500;
/// Pause after each group.
const PAUSE: Duration = Duration::from_millis(200);
/// Seconds for which each of them waits: longer than it takes to connect them all.
const WAIT_SECONDS: u32 = 20;

/// Compares the peak of the node's memory while they wait with that before; each may cost this many KiB.
pub(crate) async fn run(context: &Context, name: &str, kibibytes_max: f64) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    prepare(&node, name).await?;
    let before = node.probe.peak_node_bytes();
    let receive: Arc<[u8]> = node.server.receive(name, 10, WAIT_SECONDS).into();
    let mut waiting = JoinSet::new();
    for at in 0..RECEIVERS {
        let (address, receive) = (node.address, receive.clone());
        waiting.spawn(async move {
            let mut client = Client::connect(address).await?;
            client.must(&receive).await.map(drop)
        });
        if at % GROUP == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    tokio::time::sleep(PAUSE * 10).await;
    let during = node.probe.peak_node_bytes();
    while let Some(ended) = waiting.join_next().await {
        ended??;
    }
    let each = before
        .zip(during)
        .map(|(before, during)| during.saturating_sub(before) as f64 / 1024.0 / RECEIVERS as f64);
    let mut row = Row::new(name, &[]);
    row.more = json!({"receivers": RECEIVERS, "kibibytes_each": each});
    eprintln!("  {}", row.more);
    if each.is_some_and(|each| each > kibibytes_max) {
        row.fail(format!("each held more than {kibibytes_max} KiB"));
    }
    row.memory(during);
    node.stop().await?;
    Ok(row)
}

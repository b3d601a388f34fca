//! Requests to object storage per million messages that are not consumed: they are published, and the scenario waits
//! until all payloads have left Postgres. One PUT per message would cost more than everything else. Except in a quick
//! run the node keeps its default windows: the current slot rotates when its window is over, and is packed when the hot
//! window is over.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::Result;
use crate::node::{DataDir, Node};
use crate::requests::Pool;
use crate::row::Row;
use crate::scenario::{Context, fill, prepare};

const PUTS_PER_MILLION_MAX: f64 = 200.0;
/// The slot window and the hot window take a minute each; the rest is for packing.
const DONE_WITHIN: Duration = Duration::from_secs(900);

pub(crate) async fn run(context: &Context, name: &str) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let settings = context.args.offload_settings();
    let node = Node::start_with(&context.args, &data_dir, settings).await?;
    context.note_settings(&node).await;
    prepare(&node, name).await?;
    let before = node.probe.read().await?;
    let started = Instant::now();
    let published = fill(
        &node,
        &Pool::publish(&node.server, name, 100),
        context.args.offload(),
    )
    .await?;
    let filled = started.elapsed();
    let done = wait_until_done(&node, DONE_WITHIN).await?;
    let used = node.probe.read().await?.since(&before);
    let mut row = Row::new(name, &[]).of_messages(published, &used);
    match (done, used.object_puts) {
        (true, Some(puts)) => {
            let per_million = puts as f64 * 1e6 / published as f64;
            row.object_puts_per_million = Some(per_million);
            if per_million > PUTS_PER_MILLION_MAX {
                row.fail(format!(
                    "{per_million:.0} PUTs per million; at most {PUTS_PER_MILLION_MAX}"
                ));
            } else if puts == 0 {
                row.fail("nothing was put, so nothing was offloaded".to_owned());
            }
        }
        (false, _) => row.fail(format!("not offloaded within {} s", DONE_WITHIN.as_secs())),
        (true, None) => row.fail("the node has no metrics of object storage".to_owned()),
    }
    row.more = json!({
        "messages": published,
        "settings": settings,
        "publish_seconds": filled.as_secs_f64(),
        "offload_seconds": (started.elapsed() - filled).as_secs_f64(),
    });
    row.memory(node.probe.peak_node_bytes());
    node.stop().await?;
    Ok(row)
}

/// Waits until no payload is left in Postgres; false when that took too long.
pub(crate) async fn wait_until_done(node: &Node, within: Duration) -> Result<bool> {
    let postgres = node.probe.postgres.as_ref();
    let postgres = postgres.ok_or("needs the Postgres of the node: give --postgres-url")?;
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        if postgres.hot_blocks().await? == 0 {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Ok(false)
}

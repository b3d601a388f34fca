//! Requests to object storage for a million messages that nobody consumes: published, then waited for until the node
//! says that nothing is left in Postgres. At a PUT per message S3 would cost more than all the rest.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::Result;
use crate::node::{DataDir, Node};
use crate::report::Row;
use crate::scenario::{Context, fill, prepare};

const PUTS_PER_MILLION_MAX: f64 = 200.0;
const DONE_WITHIN: Duration = Duration::from_secs(900);

pub(crate) async fn run(context: &Context, name: &str) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    context.note_settings(&node).await;
    prepare(&node, name).await?;
    let before = node.probe.read().await?.object_puts;
    let started = Instant::now();
    let published = fill(&node, name, context.args.offload()).await?;
    let filled = started.elapsed();
    let done = wait_until_done(&node, DONE_WITHIN).await?;
    let after = node.probe.read().await?.object_puts;
    let mut row = Row::new(name, &[]);
    match (done, after) {
        (Some(true), Some(after)) => {
            let per_million = (after - before.unwrap_or(0)) as f64 * 1e6 / published as f64;
            row.object_puts_per_million = Some(per_million);
            if per_million > PUTS_PER_MILLION_MAX {
                row.fail(format!(
                    "{per_million:.0} PUTs per million; at most {PUTS_PER_MILLION_MAX}"
                ));
            } else if after == before.unwrap_or(0) {
                row.fail("nothing was put, so nothing was offloaded".to_owned());
            }
        }
        (Some(false), _) => row.fail(format!("not offloaded within {} s", DONE_WITHIN.as_secs())),
        _ => row.fail("the node has no metrics of offloading".to_owned()),
    }
    row.more = json!({
        "messages": published,
        "publish_seconds": filled.as_secs_f64(),
        "offload_seconds": (started.elapsed() - filled).as_secs_f64(),
    });
    row.memory(node.probe.peak_node_bytes());
    node.stop().await?;
    Ok(row)
}

/// Waits until the backlog of offloading is empty at two readings; `None` when the node doesn't tell.
pub(crate) async fn wait_until_done(node: &Node, within: Duration) -> Result<Option<bool>> {
    let deadline = Instant::now() + within;
    let mut empty = 0;
    while Instant::now() < deadline {
        // The gauge is read by a loop of the node, so the first reading may be older than the last publish.
        tokio::time::sleep(Duration::from_secs(2)).await;
        match node.probe.offload_backlog_bytes().await? {
            None => return Ok(None),
            Some(0) => empty += 1,
            Some(_) => empty = 0,
        }
        if empty == 2 {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}

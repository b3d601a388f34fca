//! A load under a burden, relative to the same load without it: a backlog that is never consumed, a session of Postgres
//! that holds back vacuum, and keys to remember. None may reduce throughput; with one row per message they would.

use std::time::Duration;

use serde_json::json;

use crate::Result;
use crate::flow::Flow;
use crate::node::{DataDir, Node};
use crate::requests::Pool;
use crate::row::{Row, median};
use crate::run::{Outcome, Plan, closed_loop};
use crate::scenario::turns::Turns;
use crate::scenario::{Context, check_counts, cycle_flow, fill, fill_by, prepare};
use crate::unique::UniquePool;

const BATCH: usize = 10;
const CONNECTIONS: usize = 64;
const OFFLOADED_WITHIN: Duration = Duration::from_secs(900);

/// Two data directories, one with the backlog and one without, measured alternately; only one node runs at a time.
pub(crate) async fn backlog(context: &Context, name: &str, floor: f64) -> Result<Row> {
    let (plain_dir, full_dir) = (
        DataDir::new(&context.args, "plain")?,
        DataDir::new(&context.args, "backlog")?,
    );
    let node = Node::start(&context.args, &full_dir).await?;
    prepare(&node, name).await?;
    let batches = Pool::publish(&node.server, name, 100);
    let count = fill(&node, &batches, context.args.backlog()).await?;
    if !super::offload::wait_until_done(&node, OFFLOADED_WITHIN).await? {
        return Err(
            "the backlog was not offloaded in time, so its offloading would be measured".into(),
        );
    }
    let mut peak = node.probe.peak_node_bytes();
    node.stop().await?;

    let turns = Turns::measure(
        context.args.rounds(),
        Outcome::requests_per_second,
        async || plain(context, &plain_dir, name, Load::Cycle).await,
        async || {
            let node = Node::start(&context.args, &full_dir).await?;
            context.note_settings(&node).await;
            let outcome = cycle_in_backlog(context, &node, name).await?;
            peak = peak.max(node.probe.peak_node_bytes());
            node.stop().await?;
            Ok(outcome)
        },
    )
    .await?;
    let mut row = turns.row(name, "no backlog", Some(floor));
    row.memory(peak);
    row.more = json!({ "backlog_messages": count });
    Ok(row)
}

/// No receive may be short, as there is always enough to receive.
async fn cycle_in_backlog(context: &Context, node: &Node, topic: &str) -> Result<Outcome> {
    let flow = cycle_flow(node, topic, BATCH);
    let plan = context.plan(CONNECTIONS);
    let mut outcome = closed_loop(node.address, plan, &flow, Some(&node.probe)).await?;
    let (short, received, acked) = (
        outcome.tally.short_receives,
        outcome.tally.received,
        outcome.tally.acked,
    );
    outcome.tally.check(short == 0, || {
        format!("{short} receives were short in spite of the backlog")
    });
    outcome.tally.check(received == acked, || {
        format!("received {received}, acked {acked}")
    });
    Ok(outcome)
}

/// What runs while a transaction is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Cycles of 10.
    Cycle,
    /// Publishes of one message with a `dedup_id`, while many others are remembered.
    Keys,
}

impl Load {
    async fn run(self, node: &Node, topic: &str, plan: Plan) -> Result<Outcome> {
        match self {
            Self::Cycle => cycle(node, topic, plan).await,
            Self::Keys => {
                prepare(node, topic).await?;
                let flow = Flow::PublishUnique(UniquePool::with_dedup_ids(&node.server, topic, 1));
                closed_loop(node.address, plan, &flow, Some(&node.probe)).await
            }
        }
    }
}

/// The throughput of the last fifth of the held time, relative to the load before it and, on fresh data, after it.
pub(crate) async fn held(context: &Context, name: &str, load: Load, floor: f64) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    context.note_settings(&node).await;
    let postgres = node
        .probe
        .postgres
        .as_ref()
        .ok_or("needs the Postgres of the node: give --postgres-url")?;
    let before = load.run(&node, name, context.plan(CONNECTIONS)).await?;
    let mut keys = 0;
    if load == Load::Keys {
        let ids = Flow::PublishUnique(UniquePool::with_dedup_ids(&node.server, name, 100));
        keys = fill_by(&node, &ids, 100, context.args.keys()).await?;
    }
    let held = postgres.hold().await?;
    let plan = Plan {
        measured: context.args.held(),
        ..context.plan(CONNECTIONS)
    };
    let mut outcome = load.run(&node, name, plan).await?;
    let released = held.release().await;
    outcome.tally.check(released.is_ok(), || {
        format!("the transaction was not held to the end: {released:?}")
    });
    let peak = node.probe.peak_node_bytes();
    node.stop().await?;
    drop(data_dir);
    let after = plain(context, &DataDir::new(&context.args, name)?, name, load).await?;

    let at_end = outcome.requests_per_second_at_end();
    let bases = [before.requests_per_second(), after.requests_per_second()];
    let ratio = at_end / median(bases.into_iter()).unwrap_or(f64::NAN);
    let more = json!({
        "held_seconds": outcome.seconds,
        "keys": keys,
        "requests_per_second_at_end": at_end,
        "requests_by_second": outcome.tally.per_second,
    });
    let mut row =
        Row::new(name, &[outcome]).relative_to("none held", &bases, vec![ratio], Some(floor));
    row.count_errors(&before.tally);
    row.count_errors(&after.tally);
    row.memory(peak);
    row.more = more;
    Ok(row)
}

/// The load without burden, on its own node.
async fn plain(context: &Context, data_dir: &DataDir, name: &str, load: Load) -> Result<Outcome> {
    let node = Node::start(&context.args, data_dir).await?;
    let topic = format!("{name}-plain");
    let outcome = load.run(&node, &topic, context.plan(CONNECTIONS)).await?;
    node.stop().await?;
    Ok(outcome)
}

async fn cycle(node: &Node, topic: &str, plan: Plan) -> Result<Outcome> {
    prepare(node, topic).await?;
    let flow = cycle_flow(node, topic, BATCH);
    let mut outcome = closed_loop(node.address, plan, &flow, Some(&node.probe)).await?;
    check_counts(node, topic, &mut outcome).await?;
    Ok(outcome)
}

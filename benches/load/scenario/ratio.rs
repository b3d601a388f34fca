//! Scenarios relative to the echo or to Redis, measured in turn. The node is stopped while the base runs; otherwise its
//! background work would slow down the base and improve the ratio. It starts again on the same data.

use serde_json::json;

use crate::Result;
use crate::flow::Flow;
use crate::node::{DataDir, Node};
use crate::redis;
use crate::requests::Pool;
use crate::row::Row;
use crate::run::{Outcome, closed_loop};
use crate::scenario::turns::Turns;
use crate::scenario::{Context, check_counts, cycle_flow, prepare, yardstick};

/// The work of every connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Publish,
    Cycle,
}

/// What the node is compared with.
#[derive(Clone, Copy)]
pub(crate) enum Base {
    Echo,
    Redis,
}

/// One scenario of this kind.
pub(crate) struct Ratio {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) base: Base,
    pub(crate) batch: usize,
    pub(crate) connections: usize,
    pub(crate) floor: Option<f64>,
}

impl Ratio {
    pub(crate) async fn run(&self, context: &Context) -> Result<Row> {
        let base = match self.base {
            Base::Redis if redis::program().is_none() => {
                return Ok(Row::skipped(self.name, "no redis-server"));
            }
            Base::Redis => "Redis",
            Base::Echo => "echo",
        };
        let data_dir = DataDir::new(&context.args, self.name)?;
        let (mut peak, mut backlog) = (None, 0);
        let turns = Turns::measure(
            context.args.rounds(),
            Outcome::requests_per_second,
            async || self.base(context).await,
            async || {
                let node = Node::start(&context.args, &data_dir).await?;
                context.note_settings(&node).await;
                let mut outcome = self.load(context, &node).await?;
                if self.kind == Kind::Cycle {
                    let tally = &outcome.tally;
                    backlog += tally.published.saturating_sub(tally.received);
                    check_counts(&node, self.name, &mut outcome).await?;
                }
                peak = peak.max(node.probe.peak_node_bytes());
                node.stop().await?;
                Ok(outcome)
            },
        )
        .await?;
        let mut row = turns.row(self.name, base, self.floor);
        row.memory(peak);
        if self.kind == Kind::Cycle {
            // Every connection has finished its cycle, so only short receives leave messages.
            let short = turns
                .variants
                .iter()
                .map(|outcome| outcome.tally.short_receives);
            row.more = json!({ "backlog_messages": backlog, "short_receives": short.sum::<u64>() });
        }
        Ok(row)
    }

    async fn base(&self, context: &Context) -> Result<Outcome> {
        match self.base {
            Base::Echo => context.echo_outcome(self.connections, self.batch).await,
            Base::Redis => {
                let plan = context.plan(self.connections);
                yardstick::outcome(context, self.kind, plan, self.batch).await
            }
        }
    }

    async fn load(&self, context: &Context, node: &Node) -> Result<Outcome> {
        prepare(node, self.name).await?;
        let flow = match self.kind {
            Kind::Publish => Flow::Publish(Pool::publish(&node.server, self.name, self.batch)),
            Kind::Cycle => cycle_flow(node, self.name, self.batch),
        };
        let plan = context.plan(self.connections);
        closed_loop(node.address, plan, &flow, Some(&node.probe)).await
    }
}

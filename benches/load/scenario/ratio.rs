//! Scenarios relative to the echo. Rounds alternate: echo, node, echo, node, …, echo. Each round is compared with the
//! mean of the echoes before and after it, because the speed of a shared machine drifts. The node is stopped while the
//! echo runs; otherwise its background work would slow down the echo and improve the ratio. It starts again on the same
//! data.

use crate::Result;
use crate::flow::Flow;
use crate::node::{DataDir, Node};
use crate::report::Row;
use crate::requests::Pool;
use crate::run::{Outcome, closed_loop};
use crate::scenario::{Context, check_counts, cycle_flow, prepare};

/// The work of every connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Publish,
    Cycle,
}

/// One scenario of this kind.
pub(crate) struct Ratio {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) batch: usize,
    pub(crate) connections: usize,
    pub(crate) floor: Option<f64>,
}

impl Ratio {
    pub(crate) async fn run(&self, context: &Context) -> Result<Row> {
        let data_dir = DataDir::new(&context.args, self.name)?;
        let mut echoes = vec![self.echo(context).await?];
        let (mut outcomes, mut ratios, mut peak) = (Vec::new(), Vec::new(), None);
        for _ in 0..context.args.rounds() {
            let node = Node::start(&context.args, &data_dir).await?;
            context.note_settings(&node).await;
            let outcome = self.load(context, &node).await?;
            peak = peak.max(node.probe.peak_node_bytes());
            node.stop().await?;
            let before = echoes.last().copied().unwrap_or_default();
            let after = self.echo(context).await?;
            echoes.push(after);
            ratios.push(outcome.requests_per_second() / f64::midpoint(before, after));
            outcomes.push(outcome);
        }
        let mut row =
            Row::new(self.name, &outcomes).relative_to("echo", &echoes, ratios, self.floor);
        row.memory(peak);
        Ok(row)
    }

    async fn echo(&self, context: &Context) -> Result<f64> {
        Ok(context
            .echo_outcome(self.connections, self.batch)
            .await?
            .requests_per_second())
    }

    async fn load(&self, context: &Context, node: &Node) -> Result<Outcome> {
        prepare(node, self.name).await?;
        let flow = match self.kind {
            Kind::Publish => Flow::Publish(Pool::publish(&node.server, self.name, self.batch)),
            Kind::Cycle => cycle_flow(node, self.name, self.batch),
        };
        let plan = context.plan(self.connections);
        let mut outcome = closed_loop(node.address, plan, &flow, Some(&node.probe)).await?;
        if self.kind == Kind::Cycle {
            check_counts(node, self.name, &mut outcome).await?;
        }
        Ok(outcome)
    }
}

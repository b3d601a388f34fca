//! Publishes and cycles with one more feature, in turn with the plain ones on the same node: what the feature costs.

use std::sync::Arc;

use serde_json::json;

use crate::Result;
use crate::flow::{Flow, Subscription};
use crate::node::{DataDir, Node};
use crate::requests::Pool;
use crate::row::{Row, median};
use crate::run::{Outcome, closed_loop};
use crate::scenario::turns::{Rate, Turns};
use crate::scenario::{Context, check_counts, cycle_flow, prepare};
use crate::unique::UniquePool;

const CONNECTIONS: usize = 64;

/// What the variant does in addition.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    /// Each message has a `dedup_id` of its own.
    DedupIds,
    /// Each raw publish has an `Idempotency-Key` of its own.
    Keys,
    /// The visibility timeout of all received messages is changed once.
    Extend,
    /// Every tenth message is nacked when it is received for the first time.
    Nack,
}

/// One scenario of this kind.
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) change: Change,
    pub(crate) batch: usize,
    pub(crate) floor: f64,
}

impl Variant {
    pub(crate) async fn run(&self, context: &Context) -> Result<Row> {
        let data_dir = DataDir::new(&context.args, self.name)?;
        let node = Node::start(&context.args, &data_dir).await?;
        context.note_settings(&node).await;
        let plain_topic = format!("{}-plain", self.name);
        prepare(&node, self.name).await?;
        prepare(&node, &plain_topic).await?;
        let turns = Turns::measure(
            context.args.rounds(),
            self.rate(),
            async || {
                let flow = self.plain(&node, &plain_topic);
                self.load(context, &node, (&plain_topic, &flow)).await
            },
            async || {
                let flow = self.changed(&node);
                self.load(context, &node, (self.name, &flow)).await
            },
        )
        .await?;
        let mut row = turns.row(self.name, "plain", Some(self.floor));
        row.memory(node.probe.peak_node_bytes());
        row.more = json!({
            "plain_messages_per_second": median(turns.bases.iter().map(Outcome::messages_per_second)),
        });
        node.stop().await?;
        Ok(row)
    }

    fn is_cycle(&self) -> bool {
        matches!(self.change, Change::Extend | Change::Nack)
    }

    /// A cycle may have more requests than the plain one, so its messages are compared.
    fn rate(&self) -> Rate {
        if self.is_cycle() {
            Outcome::messages_per_second
        } else {
            Outcome::requests_per_second
        }
    }

    fn plain(&self, node: &Node, topic: &str) -> Flow {
        if self.is_cycle() {
            cycle_flow(node, topic, self.batch)
        } else {
            Flow::Publish(Pool::publish(&node.server, topic, self.batch))
        }
    }

    fn changed(&self, node: &Node) -> Flow {
        let (server, topic, batch) = (&node.server, self.name, self.batch);
        let pool = || Pool::publish(server, topic, batch);
        let subscription = |wanted| Arc::new(Subscription::new(server, topic, wanted));
        match self.change {
            Change::DedupIds => {
                Flow::PublishUnique(UniquePool::with_dedup_ids(server, topic, batch))
            }
            Change::Keys => Flow::PublishUnique(UniquePool::with_keys(server, topic)),
            Change::Extend => Flow::Extend(pool(), subscription(batch)),
            Change::Nack => Flow::Nack(pool(), subscription(batch + 1)),
        }
    }

    async fn load(
        &self,
        context: &Context,
        node: &Node,
        (topic, flow): (&str, &Flow),
    ) -> Result<Outcome> {
        let plan = context.plan(CONNECTIONS);
        let mut outcome = closed_loop(node.address, plan, flow, Some(&node.probe)).await?;
        if self.is_cycle() {
            check_counts(node, topic, &mut outcome).await?;
        }
        Ok(outcome)
    }
}

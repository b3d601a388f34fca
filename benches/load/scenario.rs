//! The scenarios by name, and their shared parts: the echo, a topic with its subscription, and the check after a cycle.
//! The floors of all scenarios are here and nowhere else.

mod burst;
mod dead_letter;
mod due;
mod echo_only;
mod fair;
mod isolation;
mod latency;
mod offload;
mod polls;
mod push;
mod ratio;
mod relative;
mod topics;
mod turns;
mod two_nodes;
mod variant;
mod wakeup;
mod yardstick;

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::Result;
use crate::args::Args;
use crate::client::Client;
use crate::echo::Echo;
use crate::flow::{Flow, Subscription, Worker};
use crate::node::Node;
use crate::requests::Pool;
use crate::row::Row;
use crate::run::{Outcome, Plan, Tally, closed_loop};
use ratio::{Base, Kind, Ratio};
use relative::Load;
use variant::{Change, Variant};

/// Shared by all scenarios of a run.
pub(crate) struct Context {
    pub(crate) args: Args,
    echo: Echo,
    postgres_settings: Mutex<Value>,
    /// A setting that makes the commits of the current scenario not durable.
    not_durable: Mutex<Option<String>>,
}

impl Context {
    pub(crate) async fn new(args: Args) -> Result<Self> {
        Ok(Self {
            args,
            echo: Echo::start()?,
            postgres_settings: Mutex::new(Value::Null),
            not_durable: Mutex::default(),
        })
    }

    /// Settings of the Postgres measured last.
    pub(crate) fn postgres_settings(&self) -> Value {
        self.postgres_settings.lock().clone()
    }

    async fn note_settings(&self, node: &Node) {
        if let Some(postgres) = &node.probe.postgres
            && let Ok(settings) = postgres.settings().await
        {
            for name in ["fsync", "synchronous_commit", "full_page_writes"] {
                if settings[name] != "on" {
                    *self.not_durable.lock() = Some(format!("{name} is {}", settings[name]));
                }
            }
            *self.postgres_settings.lock() = settings;
        }
    }

    fn plan(&self, connections: usize) -> Plan {
        Plan {
            connections,
            warmup: self.args.warmup(),
            measured: self.args.measured(),
        }
    }

    /// Result of the echo at this load.
    async fn echo_outcome(&self, connections: usize, batch: usize) -> Result<Outcome> {
        let plan = Plan {
            measured: self.args.echo_measured(),
            ..self.plan(connections)
        };
        let flow = Flow::Echo(Pool::echo(batch));
        let outcome = closed_loop(self.echo.address, plan, &flow, None).await?;
        match outcome.tally.first_error {
            Some(error) => Err(format!("the echo failed: {error}").into()),
            None => Ok(outcome),
        }
    }
}

/// Runs one scenario, and fails it when the commits of Postgres are not durable.
pub(crate) async fn run(context: &Context, name: &'static str) -> Result<Row> {
    let mut row = run_named(context, name).await?;
    if let Some(why) = context.not_durable.lock().take() {
        row.fail(format!("commits are not durable: {why}"));
    }
    Ok(row)
}

async fn run_named(context: &Context, name: &'static str) -> Result<Row> {
    let publish = |batch, connections, floor| Ratio {
        name,
        kind: Kind::Publish,
        base: Base::Echo,
        batch,
        connections,
        floor,
    };
    let cycle = |batch, connections, floor| Ratio {
        kind: Kind::Cycle,
        ..publish(batch, connections, floor)
    };
    let against_redis = |kind, floor| Ratio {
        kind,
        base: Base::Redis,
        ..publish(10, 64, Some(floor))
    };
    let variant = |change, batch, floor| Variant {
        name,
        change,
        batch,
        floor,
    };
    match name {
        "publish-1-c64" => publish(1, 64, Some(0.36)).run(context).await,
        "publish-1-c256" => publish(1, 256, Some(0.55)).run(context).await,
        "publish-10-c64" => publish(10, 64, Some(0.28)).run(context).await,
        "cycle-10-c64" => cycle(10, 64, Some(0.22)).run(context).await,
        "cycle-10-c256" => cycle(10, 256, Some(0.35)).run(context).await,
        "cycle-1-c256" => cycle(1, 256, Some(0.35)).run(context).await,
        "cycle-1-c64" => cycle(1, 64, None).run(context).await,
        "cycle-100-c64" => cycle(100, 64, None).run(context).await,
        "cycle-10-c64-backlog" => relative::backlog(context, name, 0.90).await,
        "cycle-10-c64-held" => relative::held(context, name, Load::Cycle, 0.90).await,
        "publish-1-c64-dedup-held" => relative::held(context, name, Load::Keys, 0.90).await,
        "publish-1-c64-dedup" => variant(Change::DedupIds, 1, 0.50).run(context).await,
        "publish-10-c64-dedup" => variant(Change::DedupIds, 10, 0.40).run(context).await,
        "publish-1-c64-key" => variant(Change::Keys, 1, 0.50).run(context).await,
        "cycle-10-c64-extend" => variant(Change::Extend, 10, 0.50).run(context).await,
        "cycle-1-c64-extend" => variant(Change::Extend, 1, 0.45).run(context).await,
        "cycle-10-c64-nack" => variant(Change::Nack, 10, 0.50).run(context).await,
        "dead-letter-100" => dead_letter::run(context, name, 0.25).await,
        "due-100000" => due::run(context, name, 0.70).await,
        "topics-10000" => topics::run(context, name, 0.60).await,
        "two-nodes" => two_nodes::run(context, name, 0.85).await,
        "latency" => latency::run(context, name).await,
        "wakeup" => wakeup::run(context, name).await,
        "idle-polls" => polls::run(context, name, 8.0).await,
        "isolation" => isolation::run(context, name).await,
        "fair" => fair::run(context, name).await,
        "push-64" => push::backlog(context, name, (64, 4), 0.50).await,
        "push-1" => push::backlog(context, name, (1, 64), 0.45).await,
        "push-latency" => push::latency(context, name, (8.0, 25.0)).await,
        "push-hang" => push::hang(context, name, 0.90).await,
        "push-idle" => push::idle(context, name).await,
        "offload" => offload::run(context, name).await,
        "redis-publish-10-c64" => against_redis(Kind::Publish, 1.30).run(context).await,
        "redis-cycle-10-c64" => against_redis(Kind::Cycle, 1.10).run(context).await,
        "echo" => echo_only::run(context, name).await,
        _ => Err(format!("no scenario `{name}`").into()),
    }
}

/// Creates a topic and a subscription of the same name. The subscription is needed for publishes too, because messages
/// without a subscription would be cheaper.
async fn prepare(node: &Node, topic: &str) -> Result<()> {
    prepare_with(node, topic, json!({})).await
}

/// The same with settings of the subscription.
async fn prepare_with(node: &Node, topic: &str, mut settings: Value) -> Result<()> {
    let mut client = Client::connect(node.address).await?;
    client.must(&node.server.put_topic(topic)).await?;
    settings["topic"] = topic.into();
    let path = format!("/v1/subscriptions/{topic}");
    let subscribe = node.server.request("PUT", &path, &settings.to_string());
    client.must(&subscribe).await?;
    Ok(())
}

fn cycle_flow(node: &Node, topic: &str, batch: usize) -> Flow {
    let subscription = Subscription::new(&node.server, topic, batch);
    Flow::Cycle(
        Pool::publish(&node.server, topic, batch),
        Arc::new(subscription),
    )
}

/// Receives what is left after a cycle, and checks that each published message was acked once, and received again only after a
/// nack.
async fn check_counts(node: &Node, topic: &str, outcome: &mut Outcome) -> Result<()> {
    let subscription = Subscription::new(&node.server, topic, 100);
    let mut worker = Worker::new(Client::connect(node.address).await?, Tally::default(), 0, 0);
    loop {
        let count = worker.receive(&subscription, 100).await?;
        worker.ack(&subscription, count).await?;
        if count == 0 {
            break;
        }
    }
    let rest = worker.tally;
    let tally = &mut outcome.tally;
    let (published, nacked) = (tally.published, tally.nacked);
    let (received, acked) = (tally.received + rest.received, tally.acked + rest.acked);
    tally.check(published == acked && received == acked + nacked, || {
        format!("published {published}, received {received}, acked {acked}, nacked {nacked}")
    });
    tally.check(rest.errors == 0, || {
        format!("while draining: {}", rest.first_error.unwrap_or_default())
    });
    Ok(())
}

/// Publishes about `count` messages of a pool at full speed, and returns their number.
async fn fill(node: &Node, pool: &Pool, count: u64) -> Result<u64> {
    fill_by(node, &Flow::Publish(pool.clone()), pool.batch, count).await
}

/// The same by a flow that publishes `batch` messages a turn.
async fn fill_by(node: &Node, flow: &Flow, batch: usize, count: u64) -> Result<u64> {
    const CONNECTIONS: u64 = 16;
    let turns = count.div_ceil(batch as u64 * CONNECTIONS);
    let mut workers = tokio::task::JoinSet::new();
    for at in 0..CONNECTIONS {
        let client = Client::connect(node.address).await?;
        let start = usize::try_from(at)?;
        let mut worker = Worker::new(
            client,
            Tally::default(),
            start,
            usize::try_from(CONNECTIONS)?,
        );
        let flow = flow.clone();
        workers.spawn(async move {
            for _ in 0..turns {
                worker.turn(&flow).await?;
            }
            Ok::<Tally, Box<dyn std::error::Error + Send + Sync>>(worker.tally)
        });
    }
    let mut all = Tally::default();
    while let Some(finished) = workers.join_next().await {
        all.merge(&finished??);
    }
    match all.first_error {
        Some(error) => {
            Err(format!("while filling: {} errors, the first: {error}", all.errors).into())
        }
        None => Ok(all.published),
    }
}

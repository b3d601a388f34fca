//! Settles of 100 dead letters, in turn with acks of 100 messages. Only these requests are timed: the messages were
//! received before.

use std::cell::Cell;

use serde_json::{Value, json};

use crate::Result;
use crate::client::Client;
use crate::flow::Action;
use crate::node::{DataDir, Node};
use crate::row::Row;
use crate::run::Outcome;
use crate::scenario::burst::Burst;
use crate::scenario::turns::Turns;
use crate::scenario::{Context, prepare};

/// Seconds for which messages stay hidden, more than the receives of all take.
const HIDDEN_SECONDS: u32 = 600;

pub(crate) async fn run(context: &Context, name: &str, floor: f64) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    context.note_settings(&node).await;
    let dead_letters = format!("{name}-dead");
    prepare(&node, &dead_letters).await?;
    let messages = context.args.messages();
    let settings = json!({
        "visibility_timeout_seconds": HIDDEN_SECONDS,
        "dead_letter_topic": dead_letters,
    });
    let topics = Cell::new(0);
    let settle = async |action| {
        topics.set(topics.get() + 1);
        let topic = format!("{name}-{}", topics.get());
        let burst = Burst::publish(&node, &topic, settings.clone(), messages).await?;
        let settles = burst.deliver(action).await?;
        burst.settle(settles, context.args.measured()).await
    };
    let turns = Turns::measure(
        context.args.rounds(),
        Outcome::messages_per_second,
        async || settle(Action::Ack).await,
        async || settle(Action::DeadLetter).await,
    )
    .await?;
    let mut row = turns.row(name, "ack", Some(floor));
    row.memory(node.probe.peak_node_bytes());
    let dead: u64 = turns
        .variants
        .iter()
        .map(|outcome| outcome.tally.acked)
        .sum();
    let arrived = backlog(&node, &dead_letters).await?;
    if arrived != dead {
        row.fail(format!("settled {dead} dead letters, {arrived} arrived"));
    }
    row.more = json!({ "messages": messages });
    node.stop().await?;
    Ok(row)
}

/// Messages of a subscription that are not settled.
async fn backlog(node: &Node, subscription: &str) -> Result<u64> {
    let stats = format!("/v1/subscriptions/{subscription}/stats");
    let mut client = Client::connect(node.address).await?;
    let stats: Value = serde_json::from_slice(&client.must(&node.server.get(&stats)).await?)?;
    Ok(stats["backlog"].as_u64().ok_or("no backlog in the stats")?)
}

//! A drain of messages that are due again, in turn with a drain of fresh ones: a consumer received them all, settled none
//! and was gone until their visibility timeout was over.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Result;
use crate::flow::Action;
use crate::node::{DataDir, Node};
use crate::row::Row;
use crate::run::Outcome;
use crate::scenario::Context;
use crate::scenario::burst::Burst;
use crate::scenario::turns::Turns;

/// Visibility timeout: longer than the first delivery of all messages takes, and than the drain.
const HIDDEN: Duration = Duration::from_secs(15);

pub(crate) async fn run(context: &Context, name: &str, floor: f64) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    context.note_settings(&node).await;
    let messages = context.args.messages();
    let topics = Cell::new(0);
    let topic = || {
        topics.set(topics.get() + 1);
        format!("{name}-{}", topics.get())
    };
    let settings = json!({ "visibility_timeout_seconds": HIDDEN.as_secs() });
    let turns = Turns::measure(
        context.args.rounds(),
        Outcome::messages_per_second,
        async || {
            let topic = topic();
            let burst = Burst::publish(&node, &topic, settings.clone(), messages).await?;
            burst.drain().await
        },
        async || {
            let topic = topic();
            let burst = Burst::publish(&node, &topic, settings.clone(), messages).await?;
            let started = Instant::now();
            burst.deliver(Action::Ack).await?;
            if started.elapsed() >= HIDDEN {
                return Err("the first messages were due before the last one was received".into());
            }
            tokio::time::sleep(HIDDEN + Duration::from_secs(1)).await;
            burst.drain().await
        },
    )
    .await?;
    let mut row = turns.row(name, "fresh", Some(floor));
    row.memory(node.probe.peak_node_bytes());
    row.more = json!({ "messages": messages });
    node.stop().await?;
    Ok(row)
}

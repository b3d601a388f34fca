//! A tenant that requests 50 times its quota, and a neighbour within its own quota: the neighbour's latency of publish
//! and receive, compared with its latency without the noisy tenant. Both use the same node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::latency::{Observed, Side, observe};
use crate::Result;
use crate::client::Client;
use crate::histogram::Histogram;
use crate::node::{DataDir, Node};
use crate::requests::{Pool, Server};
use crate::row::Row;
use crate::scenario::Context;

/// Messages per second that the noisy tenant may publish.
const CEILING: u32 = 100;
/// Load of the noisy tenant as a multiple of its ceiling.
const TIMES: u32 = 50;
const CONNECTIONS: u32 = 64;
/// Limit of the neighbour's latency as a multiple of its latency alone.
const SLOWER_MAX: f64 = 2.0;

/// Results of the noisy tenant's requests.
#[derive(Default)]
struct Noise {
    admitted: u64,
    refused: u64,
}

pub(crate) async fn run(context: &Context, name: &str) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    context.note_settings(&node).await;
    let quiet = tenant(&node, "quiet", name).await?;
    let noisy = tenant(&node, "noisy", name).await?;
    let quota = json!({"messages_per_second": {"guaranteed": CEILING / 2, "ceiling": CEILING}});
    node.set_quota("noisy", &quota).await?;

    let side = Side {
        address: node.address,
        server: &quiet,
    };
    let lasting = context.args.measured();
    let (mut alone, mut with_noise, mut noise) = (Vec::new(), Vec::new(), Noise::default());
    for _ in 0..context.args.rounds() {
        alone.push(observe(name, (side, side), lasting).await?);
        let until = Instant::now() + lasting + Duration::from_millis(300);
        let pool = Pool::publish(&noisy, name, 1);
        let (seen, made) = tokio::join!(
            observe(name, (side, side), lasting),
            make_noise(node.address, &pool, until)
        );
        with_noise.push(seen?);
        noise.add(&made?);
    }
    let seconds = (lasting + Duration::from_millis(300)).as_secs_f64() * alone.len() as f64;
    let mut row = judge(name, (&alone, &with_noise), (&noise, seconds));
    row.memory(node.probe.peak_node_bytes());
    node.stop().await?;
    Ok(row)
}

/// A tenant with a topic and its subscription.
async fn tenant(node: &Node, tenant: &str, topic: &str) -> Result<Server> {
    let server = node.tenant(tenant).await?;
    let mut client = Client::connect(node.address).await?;
    client.must(&server.put_topic(topic)).await?;
    client.must(&server.put_subscription(topic, topic)).await?;
    Ok(server)
}

impl Noise {
    fn add(&mut self, other: &Self) {
        self.admitted += other.admitted;
        self.refused += other.refused;
    }
}

/// Publishes at 50 times the quota at an even pace, regardless of the responses.
async fn make_noise(address: SocketAddr, pool: &Pool, until: Instant) -> Result<Noise> {
    let interval = Duration::from_secs(1) * CONNECTIONS / (CEILING * TIMES);
    let start = Instant::now();
    let mut connections = JoinSet::new();
    for at in 0..CONNECTIONS {
        let (mut client, pool) = (Client::connect(address).await?, pool.clone());
        connections.spawn(async move {
            let mut noise = Noise::default();
            let mut due = start + interval * at / CONNECTIONS;
            while due < until {
                tokio::time::sleep_until(due.into()).await;
                let answer = client.send(pool.get(at as usize)).await?;
                match answer.status {
                    200 => noise.admitted += 1,
                    429 => noise.refused += 1,
                    _ => return Err(answer.describe().into()),
                }
                due += interval;
            }
            Ok::<Noise, Box<dyn std::error::Error + Send + Sync>>(noise)
        });
    }
    let mut all = Noise::default();
    while let Some(finished) = connections.join_next().await {
        all.add(&finished??);
    }
    Ok(all)
}

/// Selects one of the two latencies.
type Which = fn(&Observed) -> &Histogram;

fn judge(
    name: &str,
    (alone, with_noise): (&[Observed], &[Observed]),
    (noise, seconds): (&Noise, f64),
) -> Row {
    let mut row = Row::new(name, &[]);
    let p99 = |of: &[Observed], which: Which| {
        let mut all = Histogram::default();
        of.iter().for_each(|observed| all.merge(which(observed)));
        (all.quantile_ms(0.5), all.quantile_ms(0.99))
    };
    let mut waited = serde_json::Map::new();
    let kinds: [(&str, Which); 2] = [
        ("publish", |observed| &observed.publish),
        ("receive", |observed| &observed.receive),
    ];
    for (kind, which) in kinds {
        let ((_, before), (p50, during)) = (p99(alone, which), p99(with_noise, which));
        let (Some(before), Some(p50), Some(during)) = (before, p50, during) else {
            row.fail(format!("no {kind} was timed"));
            continue;
        };
        row.latency(p50, during);
        let slower = during / before;
        if slower > SLOWER_MAX {
            row.fail(format!(
                "{kind}: p99 {during:.2} ms next to a noisy tenant, {before:.2} ms alone"
            ));
        }
        waited.insert(
            kind.to_owned(),
            json!({"alone_p99_ms": before, "beside_p99_ms": during, "times": slower}),
        );
    }
    for observed in alone.iter().chain(with_noise) {
        row.count_errors(&observed.acks);
        if observed.lost > 0 {
            row.fail(format!("{} messages were lost", observed.lost));
        }
    }
    let offered = noise.admitted + noise.refused;
    row.more = json!({
        "waited": waited,
        "noisy_offered_per_second": offered as f64 / seconds,
        "noisy_admitted_per_second": noise.admitted as f64 / seconds,
    });
    row
}

//! Push to endpoints in this process. A backlog is published first and then pushed, so that publishes take no part of
//! the measured time. The base is a bare hyper client that posts the same requests over as many connections.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Result;
use crate::client::Client;
use crate::flow::Flow;
use crate::histogram::Histogram;
use crate::node::{DataDir, Node};
use crate::requests::{ManyTopics, Pool};
use crate::row::{Row, median};
use crate::scenario::latency::strings;
use crate::scenario::{Context, fill, fill_by, prepare};
use crate::sink::Sink;

/// Messages that are pushed in a second, at most: as many as a backlog has for each measured second.
const PER_SECOND: u64 = 60_000;
/// Endpoints are driven, and drivers warm, after this time.
const WARM: Duration = Duration::from_secs(1);
/// No endpoint needs longer to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(20);
/// Connections that set endpoints.
const SETTERS: usize = 16;
/// Messages of each endpoint with [`hang`].
const OF_EACH: u64 = 150;
/// Time between two publishes of [`latency`].
const INTERVAL: Duration = Duration::from_millis(10);
/// Bytes of a node with [`idle`] at most.
const IDLE_BYTES_MAX: u64 = 250 << 20;

/// Pushes a backlog to `endpoints`, each with up to `concurrency` requests at the same time.
pub(crate) async fn backlog(
    context: &Context,
    name: &str,
    (endpoints, concurrency): (usize, u32),
    floor: f64,
) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    context.note_settings(&node).await;
    let connections = endpoints * concurrency as usize;
    let measured = context.args.measured();
    let (mut rates, mut bases, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut used = None;
    let mut pushed = 0;
    for round in 0..context.args.rounds() {
        let sink = Sink::start().await?;
        let topics: Vec<String> = (0..endpoints)
            .map(|at| format!("{name}-{round}-{at}"))
            .collect();
        for topic in &topics {
            prepare(&node, topic).await?;
        }
        let count = PER_SECOND * (measured + WARM).as_secs();
        for topic in &topics {
            let pool = Pool::publish(&node.server, topic, 100);
            fill(&node, &pool, count / endpoints as u64).await?;
        }
        let urls = topics.iter().map(|topic| (topic.clone(), sink.url(topic)));
        set(&node, urls.collect(), concurrency).await?;
        let (rate, usage, seen) = rate(&node, &sink, measured).await?;
        // What is left of the backlog must not be pushed while the base is measured.
        remove(&node, &topics).await?;
        let base = sink
            .post(connections, measured.min(Duration::from_secs(5)))
            .await?;
        eprintln!(
            "  pushed {rate:.0}/s, hyper {base:.0}/s, ratio {:.3}",
            rate / base
        );
        rates.push(rate);
        bases.push(base);
        ratios.push(rate / base);
        (used, pushed) = (usage, seen);
    }
    let mut row = Row::new(name, &[]).relative_to("hyper client", &bases, ratios, Some(floor));
    if let Some(used) = used {
        row = row.of_messages(pushed, &used);
    }
    row.more = json!({ "pushes_per_second": median(rates.into_iter()) });
    row.memory(node.probe.peak_node_bytes());
    node.stop().await?;
    Ok(row)
}

/// Deliveries a second, measured after a warm-up. Ends early when the backlog does.
async fn rate(
    node: &Node,
    sink: &Sink,
    measured: Duration,
) -> Result<(f64, Option<crate::probe::Usage>, u64)> {
    let until = Instant::now() + BEGINS_WITHIN;
    while sink.seen.count() == 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(WARM).await;
    let before = node.probe.read().await?;
    let (from, began) = (sink.seen.count(), Instant::now());
    let (mut last, mut at) = (from, began);
    while began.elapsed() < measured {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let count = sink.seen.count();
        if count == last && at.elapsed() > Duration::from_millis(500) {
            break;
        }
        if count > last {
            (last, at) = (count, Instant::now());
        }
    }
    if last == from {
        return Err("nothing was pushed".into());
    }
    let used = node.probe.read().await?.since(&before);
    let rate = (last - from) as f64 / (at - began).as_secs_f64();
    Ok((rate, Some(used), last - from))
}

/// Sets the endpoints of subscriptions.
async fn set(node: &Node, endpoints: Vec<(String, String)>, concurrency: u32) -> Result<()> {
    let mut setters = tokio::task::JoinSet::new();
    for part in endpoints.chunks(endpoints.len().div_ceil(SETTERS).max(1)) {
        let mut client = Client::connect(node.address).await?;
        let request = |(subscription, url): &(String, String)| {
            let push = json!({ "url": url, "limits": { "concurrency": concurrency } });
            let path = format!("/v1/subscriptions/{subscription}");
            node.server
                .request("PUT", &path, &json!({ "push": push }).to_string())
        };
        let requests: Vec<Vec<u8>> = part.iter().map(request).collect();
        setters.spawn(async move {
            for request in requests {
                client.must(&request).await?;
            }
            Result::Ok(())
        });
    }
    while let Some(done) = setters.join_next().await {
        done??;
    }
    Ok(())
}

async fn remove(node: &Node, subscriptions: &[String]) -> Result<()> {
    let mut client = Client::connect(node.address).await?;
    for name in subscriptions {
        let path = format!("/v1/subscriptions/{name}");
        client
            .must(&node.server.request("DELETE", &path, ""))
            .await?;
    }
    Ok(())
}

/// A thousand endpoints of which a hundred hang, compared with none: deliveries a second to the others.
pub(crate) async fn hang(context: &Context, name: &str, floor: f64) -> Result<Row> {
    const ENDPOINTS: usize = 1_000;
    const HANGING: usize = 100;
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    context.note_settings(&node).await;
    let (mut rates, mut bases, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..context.args.rounds() {
        let mut both = [0.0; 2];
        for (rate, hanging) in both.iter_mut().zip([0, HANGING]) {
            let topics: Vec<String> = (0..ENDPOINTS)
                .map(|at| format!("{name}-{round}-{hanging}-{at}"))
                .collect();
            for topic in &topics {
                prepare(&node, topic).await?;
            }
            let flow = Flow::Topics(ManyTopics::new(&node.server, &topics));
            fill_by(&node, &flow, 1, OF_EACH * ENDPOINTS as u64).await?;
            let sink = Sink::start().await?;
            // The same endpoints are counted in both cases.
            let url = |(at, topic): (usize, &String)| {
                let path = match at {
                    _ if at < hanging => format!("hang{at}"),
                    0..HANGING => format!("other{at}"),
                    _ => format!("e{at}"),
                };
                (topic.clone(), sink.url(&path))
            };
            let urls = topics.iter().enumerate().map(url).collect();
            set(&node, urls, 8).await?;
            let counted = OF_EACH * (ENDPOINTS - HANGING) as u64;
            *rate = until_most(&sink, counted).await?;
            remove(&node, &topics).await?;
        }
        let [none, some] = both;
        let ratio = some / none;
        eprintln!("  none hang {none:.0}/s, 100 hang {some:.0}/s, ratio {ratio:.3}");
        bases.push(none);
        rates.push(some);
        ratios.push(ratio);
    }
    let mut row = Row::new(name, &[]).relative_to("none hang", &bases, ratios, Some(floor));
    row.more = json!({ "pushes_per_second": median(rates.into_iter()) });
    row.memory(node.probe.peak_node_bytes());
    node.stop().await?;
    Ok(row)
}

/// Deliveries a second from the first tenth of `all` until nine tenths.
async fn until_most(sink: &Sink, all: u64) -> Result<f64> {
    let until = Instant::now() + Duration::from_secs(120);
    let mut began = None;
    while Instant::now() < until {
        let count = sink.seen.count();
        if count >= all / 10 && began.is_none() {
            began = Some((Instant::now(), count));
        }
        if let Some((at, first)) = began
            && count >= all * 9 / 10
        {
            return Ok((count - first) as f64 / at.elapsed().as_secs_f64());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(format!("only {} of {all} were pushed", sink.seen.count()).into())
}

/// Time from the start of a publish until the endpoint has the message, at 100 messages a second.
pub(crate) async fn latency(context: &Context, name: &str, most: (f64, f64)) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    context.note_settings(&node).await;
    let sink = Sink::start().await?;
    prepare(&node, name).await?;
    set(&node, vec![(name.to_owned(), sink.url("latency"))], 64).await?;
    let mut client = Client::connect(node.address).await?;
    let pool = Pool::publish(&node.server, name, 1);
    client.must(pool.get(0)).await?;
    let until = Instant::now() + BEGINS_WITHIN;
    while sink.seen.count() == 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sink.seen.note_times();
    let count = u32::try_from((context.args.measured() * 3).as_millis() / INTERVAL.as_millis())?;
    let start = Instant::now() + INTERVAL;
    let mut published = Vec::new();
    for number in 0..count {
        let due = start + INTERVAL * number;
        let late = Instant::now() > due;
        tokio::time::sleep_until(due.into()).await;
        let began = if late { due } else { Instant::now() };
        let answer = client.must(pool.get(number as usize)).await?;
        let id = strings(&answer, br#""id":""#).pop();
        published.push((id.ok_or("a publish without an id")?, began));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let arrived: HashMap<String, Instant> = sink.seen.take_times().into_iter().collect();
    let mut times = Histogram::default();
    let mut row = Row::new(name, &[]);
    for (id, began) in published {
        match arrived.get(&id) {
            Some(at) => times.record(at.saturating_duration_since(began)),
            None => row.fail(format!("message {id} was not pushed")),
        }
    }
    if let (Some(p50), Some(p99)) = (times.quantile_ms(0.5), times.quantile_ms(0.99)) {
        row.latency(p50, p99);
        if p50 > most.0 || p99 > most.1 {
            row.fail(format!(
                "p50 {p50:.2} ms, p99 {p99:.2} ms; at most {} and {}",
                most.0, most.1
            ));
        }
    }
    row.memory(node.probe.peak_node_bytes());
    node.stop().await?;
    Ok(row)
}

/// Ten thousand idle push subscriptions: the memory of a node, and what they cost.
pub(crate) async fn idle(context: &Context, name: &str) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    let sink = Sink::start().await?;
    prepare(&node, name).await?;
    let names: Vec<String> = (0..context.args.topics())
        .map(|at| format!("{name}-{at}"))
        .collect();
    let mut client = Client::connect(node.address).await?;
    for subscription in &names {
        client
            .must(&node.server.put_subscription(subscription, name))
            .await?;
    }
    let urls = names.iter().map(|name| (name.clone(), sink.url("idle")));
    set(&node, urls.collect(), 64).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = node.probe.read().await?;
    tokio::time::sleep(context.args.idle()).await;
    let used = node.probe.read().await?.since(&before);
    let mut row = Row::new(name, &[]);
    let seconds = context.args.idle().as_secs_f64();
    row.more = json!({
        "endpoints": names.len(),
        "statements_per_second": used.statements.map(|all| all as f64 / seconds),
        "node_cpu_ratio": used.node_cpu_micros.map(|micros| micros as f64 / 1e6 / seconds),
        "postgres_cpu_ratio": used.postgres_cpu_micros.map(|micros| micros as f64 / 1e6 / seconds),
    });
    eprintln!("  {}", row.more);
    let peak = node.probe.peak_node_bytes();
    if peak.is_some_and(|bytes| bytes > IDLE_BYTES_MAX) {
        row.fail(format!(
            "the node held more than {} MiB",
            IDLE_BYTES_MAX >> 20
        ));
    }
    row.memory(peak);
    node.stop().await?;
    Ok(row)
}

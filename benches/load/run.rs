//! Closed-loop load: each of the connections sends its next request when it has the response to the last one. It warms
//! up, measures a window, and lets every connection finish its cycle, so that the counts of published, received and
//! acked messages can be compared. Nothing is shared between connections during the load.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::Result;
use crate::client::Client;
use crate::flow::{Flow, Worker};
use crate::histogram::Histogram;
use crate::probe::{Probe, Usage};

/// Size and duration of a load.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) warmup: Duration,
    pub(crate) measured: Duration,
}

/// Result of a load: requests, messages and latencies of the measured window only; totals of the whole run.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) seconds: f64,
    /// Costs of the node and of Postgres in the measured window.
    pub(crate) usage: Option<Usage>,
}

impl Outcome {
    pub(crate) fn requests_per_second(&self) -> f64 {
        self.tally.requests as f64 / self.seconds
    }

    pub(crate) fn messages_per_second(&self) -> f64 {
        self.tally.messages as f64 / self.seconds
    }

    /// Requests per second in the last fifth of the window. Seconds without any request count as well, or a stall would
    /// not show.
    pub(crate) fn requests_per_second_at_end(&self) -> f64 {
        let whole = self.seconds.floor();
        let from = (whole * 0.8).floor();
        let buckets = self.tally.per_second.iter().enumerate();
        let at_end = buckets.filter(|(second, _)| (from..whole).contains(&(*second as f64)));
        at_end.map(|(_, count)| *count as f64).sum::<f64>() / (whole - from).max(1.0)
    }
}

/// Counts of one connection, or of all of them merged.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    window: Option<(Instant, Instant)>,
    pub(crate) requests: u64,
    pub(crate) messages: u64,
    pub(crate) latency: Histogram,
    pub(crate) per_second: Vec<u64>,
    pub(crate) published: u64,
    pub(crate) received: u64,
    pub(crate) acked: u64,
    pub(crate) nacked: u64,
    pub(crate) short_receives: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Tally {
    /// Counts only requests with a response between `from` and `to`.
    pub(crate) fn within(from: Instant, to: Instant) -> Self {
        Self {
            window: Some((from, to)),
            ..Self::default()
        }
    }

    /// Records a request with a response just now that published `messages` messages.
    pub(crate) fn request(&mut self, started: Instant, messages: usize) {
        let now = Instant::now();
        let Some((from, to)) = self.window else {
            return;
        };
        if now < from || now >= to {
            return;
        }
        self.requests += 1;
        self.messages += messages as u64;
        self.latency.record(now - started);
        let second = usize::try_from((now - from).as_secs()).unwrap_or(0);
        if self.per_second.len() <= second {
            self.per_second.resize(second + 1, 0);
        }
        self.per_second[second] += 1;
    }

    pub(crate) fn check(&mut self, right: bool, describe: impl FnOnce() -> String) {
        if !right {
            self.error(describe());
        }
    }

    pub(crate) fn error(&mut self, text: String) {
        self.errors += 1;
        self.first_error.get_or_insert(text);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.messages += other.messages;
        self.latency.merge(&other.latency);
        self.per_second
            .resize(self.per_second.len().max(other.per_second.len()), 0);
        for (count, more) in self.per_second.iter_mut().zip(&other.per_second) {
            *count += more;
        }
        self.published += other.published;
        self.received += other.received;
        self.acked += other.acked;
        self.nacked += other.nacked;
        self.short_receives += other.short_receives;
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }
}

/// Work that a connection of a closed loop repeats, and its counts.
pub(crate) trait Repeat: Send + 'static {
    fn turn(&mut self) -> impl Future<Output = Result<()>> + Send;

    fn tally(&mut self) -> &mut Tally;
}

/// A connection to a node or to the echo, with its flow.
impl Repeat for (Worker, Flow) {
    async fn turn(&mut self) -> Result<()> {
        self.0.turn(&self.1).await
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.0.tally
    }
}

/// Runs a flow. With a probe it also measures the costs of the window.
pub(crate) async fn closed_loop(
    address: SocketAddr,
    plan: Plan,
    flow: &Flow,
    probe: Option<&Probe>,
) -> Result<Outcome> {
    let workers = connect(address, plan.connections, flow).await?;
    repeat(plan, workers, probe.as_slice()).await
}

/// Opens connections that start at different offsets of the pool, so that a block rarely contains a body twice.
pub(crate) async fn connect(
    address: SocketAddr,
    connections: usize,
    flow: &Flow,
) -> Result<Vec<(Worker, Flow)>> {
    let mut workers = Vec::with_capacity(connections);
    for at in 0..connections {
        let client = Client::connect(address).await?;
        let worker = Worker::new(client, Tally::default(), at, connections);
        workers.push((worker, flow.clone()));
    }
    Ok(workers)
}

/// Runs open connections, and measures the costs of the nodes with these probes.
pub(crate) async fn repeat(
    plan: Plan,
    connections: Vec<impl Repeat>,
    probes: &[&Probe],
) -> Result<Outcome> {
    let from = Instant::now() + plan.warmup;
    let to = from + plan.measured;
    let mut workers = tokio::task::JoinSet::new();
    for mut connection in connections {
        *connection.tally() = Tally::within(from, to);
        workers.spawn(work(connection, to));
    }
    let usage = Probe::between(probes, from, to).await?;
    let mut tally = Tally::default();
    while let Some(finished) = workers.join_next().await {
        tally.merge(&finished?);
    }
    Ok(Outcome {
        tally,
        seconds: plan.measured.as_secs_f64(),
        usage,
    })
}

async fn work(mut connection: impl Repeat, until: Instant) -> Tally {
    while Instant::now() < until {
        if let Err(error) = connection.turn().await {
            connection.tally().error(error.to_string());
            break;
        }
    }
    std::mem::take(connection.tally())
}

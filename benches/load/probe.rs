//! The cost of a period of load: CPU time of the node and of Postgres from /proc; statements, commits and object
//! requests from the node's `/metrics`; commits again from Postgres itself. A value that cannot be read is `None`,
//! never zero.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::Result;
use crate::client::Client;
use crate::postgres::Postgres;
use crate::requests::Server;

/// Microseconds in a tick of /proc/<pid>/stat; USER_HZ is 100 on every Linux that runs this.
const TICK_MICROS: u64 = 10_000;

/// Reads the costs of one node.
pub(crate) struct Probe {
    pub(crate) address: SocketAddr,
    pub(crate) server: Server,
    pub(crate) node_pid: Option<u32>,
    pub(crate) postgres: Option<Postgres>,
}

/// Costs since the start of the node, or between two readings.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) node_cpu_micros: Option<u64>,
    pub(crate) postgres_cpu_micros: Option<u64>,
    pub(crate) statements: Option<u64>,
    pub(crate) commits: Option<u64>,
    pub(crate) postgres_commits: Option<u64>,
    pub(crate) object_puts: Option<u64>,
}

impl Probe {
    /// Costs of all nodes between two times; waits for both. `None` without a node.
    pub(crate) async fn between(
        nodes: &[&Self],
        from: Instant,
        to: Instant,
    ) -> Result<Option<Usage>> {
        if nodes.is_empty() {
            return Ok(None);
        }
        tokio::time::sleep_until(from.into()).await;
        let before = Self::read_all(nodes).await?;
        tokio::time::sleep_until(to.into()).await;
        Ok(Some(Self::read_all(nodes).await?.since(&before)))
    }

    /// Costs of all nodes; that of their common Postgres is read through the first one.
    async fn read_all(nodes: &[&Self]) -> Result<Usage> {
        let mut all: Option<Usage> = None;
        for node in nodes {
            let usage = node.read().await?;
            all = Some(all.map_or(usage, |first| first.with_node(&usage)));
        }
        Ok(all.unwrap_or_default())
    }

    /// Costs since the node started.
    pub(crate) async fn read(&self) -> Result<Usage> {
        let metrics = self.metrics().await?;
        let processes = processes();
        let node = self.node_pid.and_then(|pid| processes.get(&pid));
        let postmaster = self
            .postgres
            .as_ref()
            .and_then(|postgres| postgres.postmaster_pid);
        Ok(Usage {
            node_cpu_micros: node.map(|node| node.own_ticks * TICK_MICROS),
            postgres_cpu_micros: postmaster.map(|pid| tree_ticks(&processes, pid) * TICK_MICROS),
            statements: sum(&metrics, "cursus_database_statements_total", |_| true),
            commits: sum(&metrics, "cursus_database_commits_total", |_| true),
            postgres_commits: match &self.postgres {
                Some(postgres) => postgres.commits().await,
                None => None,
            },
            object_puts: sum(&metrics, "cursus_object_requests_total", |labels| {
                labels.contains(r#"op="put""#) || labels.contains(r#"op="upload_part""#)
            }),
        })
    }

    /// Peak memory of the node in bytes.
    pub(crate) fn peak_node_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.node_pid?)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    }

    async fn metrics(&self) -> Result<String> {
        let mut client = Client::connect(self.address).await?;
        let answer = client.send(&self.server.get("/metrics")).await?;
        Ok(if answer.is_success() {
            String::from_utf8_lossy(answer.body).into_owned()
        } else {
            String::new()
        })
    }
}

impl Usage {
    /// Adds the costs of another node on the same Postgres.
    fn with_node(self, other: &Self) -> Self {
        let total = |one: Option<u64>, two: Option<u64>| Some(one? + two?);
        Self {
            node_cpu_micros: total(self.node_cpu_micros, other.node_cpu_micros),
            statements: total(self.statements, other.statements),
            commits: total(self.commits, other.commits),
            object_puts: total(self.object_puts, other.object_puts),
            ..self
        }
    }

    pub(crate) fn since(self, before: &Self) -> Self {
        let difference = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Self {
            node_cpu_micros: difference(self.node_cpu_micros, before.node_cpu_micros),
            postgres_cpu_micros: difference(self.postgres_cpu_micros, before.postgres_cpu_micros),
            statements: difference(self.statements, before.statements),
            commits: difference(self.commits, before.commits),
            postgres_commits: difference(self.postgres_commits, before.postgres_commits),
            object_puts: difference(self.object_puts, before.object_puts),
        }
    }
}

/// Adds up the samples of one metric with matching labels; `None` when the metric does not exist.
fn sum(metrics: &str, name: &str, wanted: impl Fn(&str) -> bool) -> Option<u64> {
    let mut total = None;
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        let Some((labels, value)) = rest.rsplit_once(' ') else {
            continue;
        };
        if !(labels.is_empty() || labels.starts_with('{')) {
            continue;
        }
        // A metric that exists but has no sample with these labels counts as zero.
        let total = total.get_or_insert(0);
        if wanted(labels) {
            *total += whole(value);
        }
    }
    total
}

/// The whole part of a counter, which Prometheus may write as a float: `12`, `12.0`.
fn whole(value: &str) -> u64 {
    value
        .split('.')
        .next()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

struct Process {
    parent: u32,
    /// User and system time of the process itself.
    own_ticks: u64,
    /// The same for child processes that ended and were waited for.
    ended_children_ticks: u64,
}

fn processes() -> HashMap<u32, Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

fn process(pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks, so fields are counted from its end; see proc_pid_stat(5).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        own_ticks: number(11)? + number(12)?,
        ended_children_ticks: number(13)? + number(14)?,
    })
}

/// Time of a process, of all its descendants, and of those that have ended.
fn tree_ticks(processes: &HashMap<u32, Process>, root: u32) -> u64 {
    let own = processes.get(&root).map_or(0, |process| {
        process.own_ticks + process.ended_children_ticks
    });
    let children = processes
        .iter()
        .filter(|(_, process)| process.parent == root);
    own + children
        .map(|(pid, _)| tree_ticks(processes, *pid))
        .sum::<u64>()
}

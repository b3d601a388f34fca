//! Flags of the bench and the list of its scenarios. Every duration and count that `--quick` reduces is decided here,
//! so a scenario reads one number and never checks whether the run is quick.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::Result;
use crate::redis;

/// All scenarios, in the order of the README's table.
pub(crate) const NAMES: [&str; 35] = [
    "publish-1-c64",
    "publish-1-c256",
    "publish-10-c64",
    "cycle-10-c64",
    "cycle-10-c256",
    "cycle-1-c256",
    "cycle-1-c64",
    "cycle-100-c64",
    "cycle-10-c64-backlog",
    "cycle-10-c64-held",
    "publish-1-c64-dedup",
    "publish-10-c64-dedup",
    "publish-1-c64-key",
    "publish-1-c64-dedup-held",
    "cycle-10-c64-extend",
    "cycle-1-c64-extend",
    "cycle-10-c64-nack",
    "dead-letter-100",
    "due-100000",
    "topics-10000",
    "two-nodes",
    "latency",
    "wakeup",
    "idle-polls",
    "isolation",
    "fair",
    "push-64",
    "push-1",
    "push-latency",
    "push-hang",
    "push-idle",
    "offload",
    "redis-publish-10-c64",
    "redis-cycle-10-c64",
    "echo",
];

/// Measures a node of Cursus against a bare axum JSON echo on the same machine in the same run.
#[derive(Clone, Debug, Parser)]
#[command(name = "load", bin_name = "cargo bench --bench load --")]
pub(crate) struct Args {
    /// Scenarios to run; `all` runs every one (those with Redis only if `redis-server` is found), a wrong name lists them
    #[arg(long, num_args = 1.., default_value = "all")]
    scenario: Vec<String>,
    /// Measured seconds of each round
    #[arg(long)]
    seconds: Option<f64>,
    /// Rounds of each scenario; the median ratio counts
    #[arg(long)]
    rounds: Option<usize>,
    /// Also write the results as JSON to this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// A smoke run: one round of 2 s, a small backlog, 1,000 topics; its ratios prove nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure this node (`http://host:port`) instead of starting one
    #[arg(long)]
    pub(crate) server: Option<String>,
    /// API key to send to the node of `--server`
    #[arg(long)]
    pub(crate) api_key: Option<String>,
    /// Without a tenant's key and quota, as an embedded node serves its own machine; always so with `--server`
    #[arg(long)]
    pub(crate) open: bool,
    /// Postgres of the node, for counts and the held transaction; for a node started here it is found in the data
    /// directory
    #[arg(long)]
    pub(crate) postgres_url: Option<String>,
    /// Directory for data directories; must be on a disk that really syncs, not on tmpfs
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    pub(crate) directory: PathBuf,
    /// The binary to start
    #[arg(long, default_value = env!("CARGO_BIN_EXE_cursus"))]
    pub(crate) binary: PathBuf,
    /// Messages of the backlog scenario [default: 5000000]
    #[arg(long)]
    backlog: Option<u64>,
    /// Keys that are remembered in the held scenario with keys [default: 1000000]
    #[arg(long)]
    keys: Option<u64>,
    /// Seconds for which the held scenarios keep their transaction open [default: 300]
    #[arg(long)]
    held_seconds: Option<f64>,
    /// Messages of the offload scenario [default: 1000000]
    #[arg(long)]
    offload: Option<u64>,
    /// Messages of the burst of the fair scenario [default: 100000]
    #[arg(long)]
    burst: Option<u64>,
    /// Messages of the scenarios of dead letters and of messages that are due again [default: 100000]
    #[arg(long)]
    messages: Option<u64>,
    /// Topics of the topics scenario [default: 10000]
    #[arg(long)]
    topics: Option<usize>,
    /// Threads of the client
    #[arg(long, default_value_t = 2)]
    pub(crate) client_threads: usize,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// `echo` makes this process the echo; the bench starts itself with it
    #[arg(hide = true)]
    role: Option<String>,
}

impl Args {
    /// Whether the bench started this process as the echo.
    pub(crate) fn is_echo(&self) -> bool {
        self.role.as_deref() == Some("echo")
    }

    /// The requested scenarios, in the requested order.
    pub(crate) fn scenarios(&self) -> Result<Vec<&'static str>> {
        if self.scenario.iter().any(|name| name == "all") {
            let has_redis = redis::program().is_some();
            let belongs =
                |name: &&str| *name != "echo" && (has_redis || !name.starts_with("redis-"));
            return Ok(NAMES.into_iter().filter(belongs).collect());
        }
        let find = |wanted: &String| {
            let known = NAMES.into_iter().find(|name| name == wanted);
            known.ok_or_else(|| {
                format!("no scenario `{wanted}`; there are: all {}", NAMES.join(" ")).into()
            })
        };
        self.scenario.iter().map(find).collect()
    }

    /// Measured time of a round.
    pub(crate) fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(self.pick(10.0, 2.0)))
    }

    /// Load before the measured time, so that connections, caches and branch predictors are warm.
    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.pick(2.0, 0.5))
    }

    /// How long an idle fleet is measured.
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs_f64(self.pick(20.0, 5.0))
    }

    /// Flags of the node of the offload scenario: none, or windows short enough for a quick run.
    pub(crate) fn offload_settings(&self) -> &'static [&'static str] {
        self.pick(&[], &["--slot-window=5s", "--hot-window=5s"])
    }

    /// Measured time of an echo, which is steadier than a database and needs less.
    pub(crate) fn echo_measured(&self) -> Duration {
        self.measured().min(Duration::from_secs(5))
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(self.pick(3, 1)).max(1)
    }

    pub(crate) fn backlog(&self) -> u64 {
        self.backlog.unwrap_or(self.pick(5_000_000, 200_000))
    }

    pub(crate) fn keys(&self) -> u64 {
        self.keys.unwrap_or(self.pick(1_000_000, 50_000))
    }

    pub(crate) fn held(&self) -> Duration {
        Duration::from_secs_f64(self.held_seconds.unwrap_or(self.pick(300.0, 10.0)))
    }

    pub(crate) fn offload(&self) -> u64 {
        self.offload.unwrap_or(self.pick(1_000_000, 100_000))
    }

    pub(crate) fn burst(&self) -> u64 {
        self.burst.unwrap_or(self.pick(100_000, 10_000))
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages.unwrap_or(self.pick(100_000, 10_000))
    }

    pub(crate) fn topics(&self) -> usize {
        self.topics.unwrap_or(self.pick(10_000, 1_000))
    }

    fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

//! The figures of one scenario. A row passes when it reached its floor, had no error, and the node stayed within its
//! memory limit. A figure that could not be measured is `-` or null, never zero.

use serde_json::{Value, json};

use crate::probe::Usage;
use crate::run::{Outcome, Tally};

/// Limit of a node's peak memory.
const NODE_BYTES_MAX: u64 = 300 << 20;

/// The figures of one scenario.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    requests_per_second: Option<f64>,
    messages_per_second: Option<f64>,
    /// Base of the ratio, and its requests per second.
    relative_to: Option<(&'static str, f64)>,
    ratio: Option<f64>,
    ratios: Vec<f64>,
    floor: Option<f64>,
    latency_ms: Option<(f64, f64)>,
    statements_per_1000: Option<f64>,
    commits_per_1000: Option<f64>,
    postgres_commits_per_1000: Option<f64>,
    node_micros_per_message: Option<f64>,
    postgres_micros_per_message: Option<f64>,
    peak_node_mib: Option<f64>,
    pub(crate) object_puts_per_million: Option<f64>,
    short_receives: u64,
    errors: u64,
    pub(crate) failures: Vec<String>,
    /// Reason why the scenario was not run.
    skipped: Option<&'static str>,
    /// Additional figures, such as throughput over time.
    pub(crate) more: Value,
}

impl Row {
    /// Medians over the rounds for throughput; latencies and costs over all rounds together.
    pub(crate) fn new(name: &str, outcomes: &[Outcome]) -> Self {
        let mut all = Tally::default();
        outcomes
            .iter()
            .for_each(|outcome| all.merge(&outcome.tally));
        let per_message = |figure: fn(&Usage) -> Option<u64>| {
            let total: Option<u64> = outcomes
                .iter()
                .map(|outcome| figure(outcome.usage.as_ref()?))
                .sum();
            (all.messages > 0).then_some(())?;
            Some(total? as f64 / all.messages as f64)
        };
        let mut row = Self {
            name: name.to_owned(),
            requests_per_second: median(outcomes.iter().map(Outcome::requests_per_second)),
            messages_per_second: median(outcomes.iter().map(Outcome::messages_per_second)),
            latency_ms: all
                .latency
                .quantile_ms(0.5)
                .zip(all.latency.quantile_ms(0.99)),
            statements_per_1000: per_message(|usage| usage.statements).map(|each| each * 1_000.0),
            commits_per_1000: per_message(|usage| usage.commits).map(|each| each * 1_000.0),
            postgres_commits_per_1000: per_message(|usage| usage.postgres_commits)
                .map(|each| each * 1_000.0),
            node_micros_per_message: per_message(|usage| usage.node_cpu_micros),
            postgres_micros_per_message: per_message(|usage| usage.postgres_cpu_micros),
            ..Self::default()
        };
        row.count_errors(&all);
        row
    }

    /// Sets the costs per message for a scenario without a closed loop.
    pub(crate) fn of_messages(mut self, messages: u64, used: &Usage) -> Self {
        let each = |total: Option<u64>| Some(total? as f64 / messages.max(1) as f64);
        self.statements_per_1000 = each(used.statements).map(|each| each * 1_000.0);
        self.commits_per_1000 = each(used.commits).map(|each| each * 1_000.0);
        self.postgres_commits_per_1000 = each(used.postgres_commits).map(|each| each * 1_000.0);
        self.node_micros_per_message = each(used.node_cpu_micros);
        self.postgres_micros_per_message = each(used.postgres_cpu_micros);
        self
    }

    /// A scenario that could not be run.
    pub(crate) fn broken(name: &str, why: &str) -> Self {
        Self {
            name: name.to_owned(),
            failures: vec![why.to_owned()],
            ..Self::default()
        }
    }

    /// A scenario that needs something that this machine does not have; it does not fail.
    pub(crate) fn skipped(name: &str, why: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            skipped: Some(why),
            ..Self::default()
        }
    }

    /// Sets the ratio: the median of the rounds, and the base that they are relative to.
    pub(crate) fn relative_to(
        mut self,
        base: &'static str,
        bases: &[f64],
        ratios: Vec<f64>,
        floor: Option<f64>,
    ) -> Self {
        self.relative_to = median(bases.iter().copied()).map(|requests| (base, requests));
        self.ratio = median(ratios.iter().copied());
        self.ratios = ratios;
        self.floor = floor;
        if let (Some(ratio), Some(floor)) = (self.ratio, floor)
            && ratio < floor
        {
            self.fail(format!("ratio {ratio:.3} is below {floor:.2}"));
        }
        self
    }

    pub(crate) fn memory(&mut self, peak_bytes: Option<u64>) {
        // Only a node of `--server` has no reading.
        let Some(bytes) = peak_bytes else { return };
        let mib = bytes as f64 / f64::from(1 << 20);
        self.peak_node_mib = Some(self.peak_node_mib.unwrap_or(0.0).max(mib));
        if bytes > NODE_BYTES_MAX {
            self.fail(format!("the node held {mib:.0} MiB"));
        }
    }

    pub(crate) fn latency(&mut self, p50_ms: f64, p99_ms: f64) {
        self.latency_ms = Some((p50_ms, p99_ms));
    }

    pub(crate) fn count_errors(&mut self, tally: &Tally) {
        self.errors += tally.errors;
        self.short_receives += tally.short_receives;
        if let Some(first) = &tally.first_error {
            self.fail(format!("{} errors, the first: {first}", tally.errors));
        }
    }

    pub(crate) fn fail(&mut self, why: String) {
        self.failures.push(why);
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "scenario": self.name,
            "pass": self.failures.is_empty(),
            "failures": self.failures,
            "skipped": self.skipped,
            "requests_per_second": self.requests_per_second,
            "messages_per_second": self.messages_per_second,
            "relative_to": self.relative_to.map(|(base, _)| base),
            "relative_to_requests_per_second": self.relative_to.map(|(_, requests)| requests),
            "ratio": self.ratio,
            "ratios": self.ratios,
            "floor": self.floor,
            "p50_ms": self.latency_ms.map(|(p50, _)| p50),
            "p99_ms": self.latency_ms.map(|(_, p99)| p99),
            "statements_per_1000_messages": self.statements_per_1000,
            "commits_per_1000_messages": self.commits_per_1000,
            "commits_per_1000_messages_by_postgres": self.postgres_commits_per_1000,
            "node_cpu_micros_per_message": self.node_micros_per_message,
            "postgres_cpu_micros_per_message": self.postgres_micros_per_message,
            "peak_node_mib": self.peak_node_mib,
            "object_puts_per_million_messages": self.object_puts_per_million,
            "short_receives": self.short_receives,
            "errors": self.errors,
            "more": self.more,
        })
    }

    pub(crate) fn cells(&self) -> [String; 17] {
        let (p50, p99) = self.latency_ms.unzip();
        [
            self.name.clone(),
            number(self.requests_per_second, 0),
            number(self.messages_per_second, 0),
            self.relative_to.map_or("-".to_owned(), |(base, requests)| {
                format!("{requests:.0} ({base})")
            }),
            number(self.ratio, 3),
            number(self.floor, 2),
            self.verdict(),
            number(p50, 2),
            number(p99, 2),
            number(self.statements_per_1000, 2),
            number(self.commits_per_1000.or(self.postgres_commits_per_1000), 2),
            number(self.node_micros_per_message, 2),
            number(self.postgres_micros_per_message, 2),
            number(self.peak_node_mib, 0),
            number(self.object_puts_per_million, 0),
            self.short_receives.to_string(),
            self.errors.to_string(),
        ]
    }

    fn verdict(&self) -> String {
        match (self.skipped, self.failures.is_empty()) {
            (Some(why), _) => format!("skipped: {why}"),
            (None, true) => "pass".to_owned(),
            (None, false) => "FAIL".to_owned(),
        }
    }
}

fn number(figure: Option<f64>, decimals: usize) -> String {
    figure.map_or("-".to_owned(), |figure| format!("{figure:.decimals$}"))
}

/// The middle of the figures, or the mean of the two in the middle.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let upper = figures.get(figures.len() / 2)?;
    let lower = figures.get(figures.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

//! Simulates a fleet of three nodes: the real buckets and shares, simulated time, and exchanges that take a while and
//! read what was written before they began. What the fleet admits in any ten seconds must be within a tenth of the
//! quota.

use std::time::Duration;

use crate::engine::quota::bucket::Bucket;
use crate::engine::quota::exchange::Pauses;
use crate::engine::quota::share::{
    OtherReports, Pace, RateCount, RateReport, Shares, cautious, items,
};

const NODES: u32 = 3;
const QUOTA: f64 = 300.0;
const SECOND: u64 = 1_000_000_000;
const STEP: u64 = 1_000_000;
/// Age in nanoseconds from which another node's report is ignored.
const FRESH: u64 = 2_500_000_000;

/// A small random number generator with a seed, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }
}

/// A running exchange: when it ends, and what it read.
type RunningExchange = (u64, OtherReports);

#[derive(Default)]
struct SimNode {
    bucket: Bucket,
    pace: Pace,
    pauses: Option<Pauses>,
    due: u64,
    measured: u64,
    divided: u64,
    counted: RateCount,
    exchange: Option<RunningExchange>,
    row: Option<(u64, RateReport)>,
    is_dead: bool,
}

struct Simulation {
    nodes: Vec<SimNode>,
    random: Random,
    now: u64,
    /// Items admitted by the fleet in each step.
    admitted: Vec<u64>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut nodes: Vec<SimNode> = Vec::new();
        for _ in 0..NODES {
            let node = SimNode::default();
            let share = cautious(QUOTA, f64::from(NODES));
            node.bucket.set(Some((share, QUOTA)), 0);
            nodes.push(node);
        }
        Self {
            nodes,
            random: Random(seed | 1),
            now: SECOND,
            admitted: Vec::new(),
        }
    }

    /// Lets `seconds` pass in which requests of `size` items arrive at these rates, in items per second.
    fn run(&mut self, seconds: f64, rates: [u64; 3], size: u64) {
        let steps = Duration::from_secs_f64(seconds).as_millis();
        for _ in 0..steps {
            let mut admitted = 0;
            for (at, rate) in rates.into_iter().enumerate() {
                // At random; `rate` items a second on average.
                let arrives = self.random.below(1_000 * size) < rate;
                if arrives && !self.nodes[at].is_dead {
                    admitted += self.arrive(at, size);
                }
            }
            self.admitted.push(admitted);
            for at in 0..self.nodes.len() {
                self.exchange(at);
            }
            self.now += STEP;
        }
    }

    fn arrive(&mut self, at: usize, size: u64) -> u64 {
        let now = self.now;
        let node = &mut self.nodes[at];
        if node.pauses.is_none() {
            node.pauses = Some(Pauses::default());
            node.pace.begin([node.bucket.owed(now), 0]);
            (node.due, node.measured, node.divided) = (now + 5 * STEP, now, now);
        }
        node.counted.wanted += size;
        if node.bucket.take(size, now).is_err() {
            return 0;
        }
        node.counted.taken += size;
        size
    }

    fn exchange(&mut self, at: usize) {
        let (now, latency) = (self.now, self.random.below(40) * STEP);
        let fresh = |row: &(u64, RateReport)| now - row.0 < FRESH;
        let others = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at)
            .filter_map(|(_, node)| Some(node.row.filter(fresh)?.1))
            .fold(OtherReports::default(), |all, report| OtherReports {
                sum: RateReport {
                    wanted: all.sum.wanted + report.wanted,
                    taken: all.sum.taken + report.taken,
                    guaranteed: all.sum.guaranteed + report.guaranteed,
                },
                nodes: all.nodes + 1,
            });
        let node = &mut self.nodes[at];
        if node.is_dead {
            return;
        }
        if let Some((ended, others)) = node.exchange.filter(|exchange| exchange.0 <= now) {
            node.exchange = None;
            let quota = Shares {
                guaranteed: None,
                ceiling: Some(QUOTA),
            };
            let span = Duration::from_nanos(ended - node.divided);
            let shares = node.pace.divide(quota, others, NODES, span);
            node.divided = ended;
            node.bucket
                .set(shares.ceiling.map(|share| (share, QUOTA)), now);
        }
        let Some(pauses) = &mut node.pauses else {
            return;
        };
        if node.due > now || node.exchange.is_some() {
            return;
        }
        let span = Duration::from_nanos(now - node.measured);
        node.counted.owed = [node.bucket.owed(now), 0];
        let report = node.pace.measure(std::mem::take(&mut node.counted), span);
        let pause = pauses.next(node.pace.is_ending());
        node.measured = now;
        node.row = Some((now, report));
        node.exchange = Some((now + latency, others));
        node.due = now + u64::try_from(pause.as_nanos()).unwrap();
        if node.pace.is_quiet() {
            node.pauses = None;
        }
    }

    /// The least and the most that was admitted in any ten seconds from `after` on, as parts of the quota.
    fn windows(&self, after: usize) -> (f64, f64) {
        let steps = &self.admitted[after * 1_000..];
        let sums = steps.windows(10_000).map(|window| {
            let admitted: u64 = window.iter().sum();
            items(admitted) / (QUOTA * 10.0)
        });
        sums.fold((f64::MAX, 0.0), |(least, most), part| {
            (least.min(part), most.max(part))
        })
    }

    fn assert_exact(&self, what: &str) {
        let (least, most) = self.windows(0);
        println!("{what}: {least:.3} to {most:.3}");
        assert!(least >= 0.9 && most <= 1.1, "{what}: {least} to {most}");
    }
}

fn seeds() -> impl Iterator<Item = u64> {
    (1..=4).map(|n| n * 7_919)
}

#[test]
fn all_on_one_node_is_within_a_tenth_of_the_quota() {
    for seed in seeds() {
        let mut fleet = Simulation::new(seed);
        fleet.run(25.0, [600, 0, 0], 1);
        fleet.assert_exact("one node");
    }
}

#[test]
fn spread_unevenly_it_is_within_a_tenth_of_the_quota() {
    for seed in seeds() {
        for load in [330, 400, 600, 900] {
            let mut fleet = Simulation::new(seed);
            fleet.run(25.0, [load * 90 / 100, load * 9 / 100, load / 100], 1);
            fleet.assert_exact("90/9/1");
        }
    }
}

#[test]
fn all_nodes_that_start_at_once_are_within_a_tenth_of_the_quota() {
    for seed in seeds() {
        for size in [1, 20] {
            let mut fleet = Simulation::new(seed);
            fleet.run(25.0, [300, 300, 300], size);
            fleet.assert_exact("all at once");
            fleet.run(10.0, [0, 0, 0], size);
            fleet.admitted.clear();
            fleet.run(25.0, [900, 900, 900], size);
            fleet.assert_exact("all at once, again");
        }
    }
}

#[test]
fn a_load_that_moves_is_within_a_tenth_of_the_quota() {
    for seed in seeds() {
        let mut fleet = Simulation::new(seed);
        fleet.run(12.0, [600, 0, 0], 1);
        fleet.run(12.0, [0, 600, 0], 1);
        fleet.run(3.0, [0, 0, 500], 1);
        fleet.run(12.0, [500, 0, 0], 1);
        fleet.assert_exact("moved");
        let mut fleet = Simulation::new(seed);
        fleet.run(12.0, [540, 54, 6], 1);
        fleet.run(12.0, [6, 540, 54], 1);
        fleet.assert_exact("moved, with the others still asking");
    }
}

#[test]
fn a_surge_after_little_demand_is_not_more_than_a_tenth_over_the_quota() {
    for seed in seeds() {
        for before in [0, 30, 90] {
            let mut fleet = Simulation::new(seed);
            fleet.run(12.0, [before; 3], 1);
            fleet.run(15.0, [900, 900, 900], 1);
            let (_, most) = fleet.windows(0);
            println!("surge: {most:.3}");
            assert!(most <= 1.1, "{most}");
        }
    }
}

#[test]
fn the_share_of_a_dead_node_goes_to_the_others_within_five_seconds() {
    for seed in seeds() {
        let mut fleet = Simulation::new(seed);
        fleet.run(10.0, [600, 60, 0], 1);
        fleet.nodes[0].is_dead = true;
        fleet.run(5.0, [0, 600, 0], 1);
        fleet.admitted.clear();
        fleet.run(10.0, [0, 600, 0], 1);
        fleet.assert_exact("after a node died");
    }
}

//! How the nodes of a fleet divide a rate: pure arithmetic over each node's demand and admitted items, in items per
//! second. `exchange` calls it about four times a second, and the buckets of a node then fill at the computed share.
//!
//! While the fleet's demand is below the quota, each node may take all that the others leave. Above the quota, it is
//! divided in proportion to demand. The nodes' reports to each other are a moment old, so together they may admit too
//! much. Each node computes that overshoot from the same reports, and the fleet repays it over the following seconds.

use std::cmp::Ordering;
use std::time::Duration;

/// A report about one rate of a tenant, from one node or summed over some nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RateReport {
    /// Demand in items per second, admitted or not.
    pub wanted: f64,
    /// Items admitted and paid for since demand began. A running total, so a reader misses none between two reads.
    pub taken: u64,
    /// The part of `taken` that is inside the guarantee.
    pub guaranteed: u64,
}

/// Items of one rate on this node since the last measurement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateCount {
    /// Items requested, admitted or not.
    pub wanted: u64,
    /// Items admitted.
    pub taken: u64,
    /// Items admitted inside the guarantee.
    pub guaranteed: u64,
    /// Items owed, in all and inside the guarantee. They are not reported before they are paid for.
    pub owed: [u64; 2],
}

/// Part of the quota that is kept for nodes without demand, over all nodes, so that each can always admit a first
/// request.
const FLOOR: f64 = 0.02;
/// Overshoot is repaid at a pace that would clear it in this many seconds.
const REPAY_SECONDS: f64 = 1.5;
/// Unused quota may be taken later, at the same pace, but no more than this many seconds of quota.
const LEFT_OVER_SECONDS: f64 = 0.3;
/// No more than this many seconds of quota are ever repaid.
const OVERSHOOT_SECONDS: f64 = 2.0;
/// A node's account decays in about this time, so that a wrong report does not reduce its share for long.
const FORGET_SECONDS: f64 = 10.0;
/// When a node reports for the first time, its total counts as newly admitted up to this many seconds of quota.
const NEWS_SECONDS: f64 = 0.5;
/// Part of the quota that stays available while overshoot is repaid.
const REPAYING: f64 = 0.2;
/// Shortest time that a rate is computed over: a single request after a pause is not a thousand a second.
const MEASURE_SECONDS: f64 = 0.05;

/// The part of `quota` that a node may take, from its own demand and that of the other nodes.
#[must_use]
pub fn share(quota: f64, own: f64, others: f64, nodes: f64) -> f64 {
    let all = own + others;
    let proportional = if all > 0.0 { quota * own / all } else { quota };
    let left = quota - others;
    proportional.max(left).max(floor(quota, nodes))
}

fn floor(quota: f64, nodes: f64) -> f64 {
    quota * FLOOR / nodes.max(1.0)
}

/// The part of `quota` for a node that has no reports from the others. `nodes` counts all nodes, this one included.
#[must_use]
pub fn cautious(quota: f64, nodes: f64) -> f64 {
    quota / nodes.max(1.0)
}

/// The account of one limit over the whole fleet: how much more than the quota was admitted.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    /// In items. Below zero after less than the quota was admitted.
    overshoot: f64,
}

impl Account {
    /// Records that `taken` items were admitted within `seconds`.
    fn record(&mut self, quota: f64, taken: f64, seconds: f64) {
        let kept = (1.0 - seconds / FORGET_SECONDS).max(0.0);
        let overshoot = self.overshoot * kept + taken - quota * seconds;
        self.overshoot = overshoot.clamp(-quota * LEFT_OVER_SECONDS, quota * OVERSHOOT_SECONDS);
    }

    /// Items per second of the quota that may be taken while overshoot is repaid.
    fn spendable(&self, quota: f64) -> f64 {
        (quota - self.overshoot / REPAY_SECONDS).max(quota * REPAYING)
    }
}

/// Limits of one rate, of a node or of the fleet, in items per second; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shares {
    /// Limit of what counts as inside the guarantee.
    pub guaranteed: Option<f64>,
    /// Limit in all.
    pub ceiling: Option<f64>,
}

/// The reports of the other nodes about one rate.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OtherReports {
    /// The sum of their reports.
    pub sum: RateReport,
    /// Number of nodes that reported.
    pub nodes: u32,
}

/// Measures one rate of a tenant on this node, and computes the node's share of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// The last two measurements: items requested, and the seconds of the measurement.
    before: (f64, f64),
    last: (f64, f64),
    /// The last report of this node.
    report: RateReport,
    /// Items admitted since demand began, in all and inside the guarantee; includes what was owed before.
    admitted: [u64; 2],
    /// This node's report at the last call of [`Pace::divide`].
    recorded: RateReport,
    /// The others' reports at that call; `None` when demand has just begun.
    others: Option<OtherReports>,
    /// Items per second that the fleet admitted between the last two calls.
    rate: f64,
    guaranteed: Account,
    ceiling: Account,
}

impl Pace {
    /// Starts over when demand begins after a pause. `owed` is what was owed at that time.
    pub fn begin(&mut self, owed: [u64; 2]) {
        (self.report, self.recorded) = (RateReport::default(), RateReport::default());
        self.others = None;
        self.admitted = owed;
    }

    /// Whether the last measurement was empty and the one before was not: the present report is soon out of date.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.last.0 == 0.0 && self.report.wanted > 0.0
    }

    /// Adds what was counted over the last `span`; returns the report for the other nodes.
    pub fn measure(&mut self, counted: RateCount, span: Duration) -> RateReport {
        self.before = self.last;
        self.last = (items(counted.wanted), span.as_secs_f64());
        let sum = (self.before.0 + self.last.0, self.before.1 + self.last.1);
        let rate = |(items, seconds): (f64, f64)| items / seconds.max(MEASURE_SECONDS);
        self.admitted[0] += counted.taken;
        self.admitted[1] += counted.guaranteed;
        let paid = |at: usize| self.admitted[at].saturating_sub(counted.owed[at]);
        self.report = RateReport {
            // A rise counts at once, a fall only when two measurements show it.
            wanted: rate(sum).max(rate(self.last)),
            // Totals never fall: items that are given back were not paid for.
            taken: self.report.taken.max(paid(0)),
            guaranteed: self.report.guaranteed.max(paid(1)),
        };
        self.report
    }

    /// Items per second that the fleet admitted between the last two exchanges.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Whether the last two measurements were empty.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.report.wanted == 0.0
    }

    /// Takes the reports of the other nodes, `span` after the last call. Returns the shares of `quota` for this node,
    /// which is one of `nodes`.
    pub fn divide(
        &mut self,
        quota: Shares,
        others: OtherReports,
        nodes: u32,
        span: Duration,
    ) -> Shares {
        let (seconds, nodes) = (span.as_secs_f64(), f64::from(nodes));
        let before = self.others.replace(others).unwrap_or(others);
        let recorded = std::mem::replace(&mut self.recorded, self.report);
        let since = |before: u64, now: u64| items(now.saturating_sub(before));
        let own = [
            since(recorded.guaranteed, self.report.guaranteed),
            since(recorded.taken, self.report.taken),
        ];
        let news = [
            since(before.sum.guaranteed, others.sum.guaranteed),
            since(before.sum.taken, others.sum.taken),
        ];
        // A node that reports for the first time may have admitted its total just now or long ago. When a node no
        // longer reports, the sums cannot be compared.
        let admitted = |news: f64, quota: f64| match others.nodes.cmp(&before.nodes) {
            Ordering::Less => 0.0,
            Ordering::Equal => news,
            Ordering::Greater => news.min(quota * (seconds + NEWS_SECONDS)),
        };
        let wanted = self.report.wanted;
        let part = |account: &mut Account, quota: f64, own: f64, news: f64| {
            account.record(quota, own + admitted(news, quota), seconds);
            share(account.spendable(quota), wanted, others.sum.wanted, nodes)
        };
        self.rate = (own[1] + news[1]) / seconds.max(MEASURE_SECONDS);
        Shares {
            guaranteed: quota
                .guaranteed
                .map(|quota| part(&mut self.guaranteed, quota, own[0], news[0])),
            ceiling: quota
                .ceiling
                .map(|quota| part(&mut self.ceiling, quota, own[1], news[1])),
        }
    }
}

/// A count as a floating-point number. Counts here need no more than 53 bits.
#[must_use]
pub fn items(count: u64) -> f64 {
    count as f64
}

/// The nearest whole number that is not negative.
#[must_use]
pub fn whole(number: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and in range, as just made"
    )]
    let whole = number.round().clamp(0.0, 1e18) as u64;
    whole
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_of_a_fleet_that_wants_too_much_make_up_the_quota(
            quota in 1.0..1e9_f64,
            wants in prop::collection::vec(0.0..1e9_f64, 1..8),
        ) {
            let all: f64 = wants.iter().sum();
            let nodes = items(wants.len() as u64);
            let shares: Vec<f64> = wants.iter().map(|own| share(quota, *own, all - own, nodes)).collect();
            let sum: f64 = shares.iter().sum();
            if all > quota {
                prop_assert!(sum >= quota * 0.999, "{sum} of {quota}");
                prop_assert!(sum <= quota * (1.001 + FLOOR), "{sum} of {quota}");
            }
            for (own, share) in wants.iter().zip(&shares) {
                prop_assert!(*share > 0.0 && *share <= quota * 1.001);
                // A node gets at least its proportional part, up to what it wants.
                prop_assert!(*share >= own.min(quota * own / all.max(1.0)) * 0.999);
                if all <= quota {
                    prop_assert!(*share >= *own * 0.999, "all is admitted below the quota");
                }
            }
        }

        #[test]
        fn an_account_repays_what_was_too_much_and_no_more(
            quota in 1.0..1e6_f64, over in 0.0..3.0_f64,
        ) {
            let mut account = Account::default();
            account.record(quota, quota * (1.0 + over), 1.0);
            let mut admitted = quota * (1.0 + over).min(1.0 + OVERSHOOT_SECONDS);
            for _ in 0..40 {
                let spent = account.spendable(quota) * 0.25;
                admitted += spent;
                account.record(quota, spent, 0.25);
            }
            prop_assert!(admitted <= quota * 11.5, "{} seconds", admitted / quota);
            prop_assert!(admitted >= quota * 10.8, "{} seconds", admitted / quota);
        }
    }

    #[test]
    fn what_rises_is_followed_at_once_and_what_falls_within_two_measurements() {
        let mut pace = Pace::default();
        let count = |wanted| RateCount {
            wanted,
            ..RateCount::default()
        };
        let quarter = Duration::from_millis(250);
        let mut wanted = |n| pace.measure(count(n), quarter).wanted;
        assert_eq!(wanted(100), 400.0);
        assert_eq!(wanted(200), 800.0);
        assert_eq!(wanted(0), 400.0);
        assert_eq!(wanted(0), 0.0);
        assert!(pace.is_quiet());
        let first = Pace::default().measure(count(1), Duration::from_micros(3));
        assert_eq!(first.wanted, 20.0, "one request is not a flood");
    }
}

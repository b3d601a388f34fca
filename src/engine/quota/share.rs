//! How the nodes of a fleet divide a rate between them: pure arithmetic over what each node wants and takes, in items per
//! second. `exchange` feeds it about four times a second; the buckets of a node then fill at the share that comes out.
//!
//! While the fleet wants less than the quota, each node may take all that the others leave. When it wants more, the quota
//! is divided in proportion. What the nodes know of each other is a moment old, so together they may overshoot; each keeps
//! the same account of that, and the fleet repays it over the following seconds.

use std::cmp::Ordering;
use std::time::Duration;

/// What one node, or some nodes together, say about one rate of a tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Told {
    /// Items per second that came, admitted or not.
    pub wanted: f64,
    /// Items that were admitted and paid for since demand began: who reads it now and then misses none.
    pub taken: u64,
    /// Those of them inside the guarantee.
    pub guaranteed: u64,
}

/// What happened on this node since it was last asked, in items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// What came, admitted or not.
    pub wanted: u64,
    /// What was admitted.
    pub taken: u64,
    /// What was admitted inside the guarantee.
    pub guaranteed: u64,
    /// What is owed of that, in all and inside the guarantee: it is accounted for when it is paid.
    pub owed: [u64; 2],
}

/// Part of the quota, over all nodes, that goes to nodes without demand, so that each can always begin.
const FLOOR: f64 = 0.02;
/// Overshoot is repaid at such a pace that this many seconds would do.
const REPAY_SECONDS: f64 = 1.5;
/// What was left over is made up for, too, at the same pace; no more than this many seconds of quota.
const LEFT_OVER_SECONDS: f64 = 0.3;
/// No more than this many seconds of quota are ever repaid.
const OVERSHOOT_SECONDS: f64 = 2.0;
/// A node forgets its account in about this time: if it misheard, it does not stand back for long.
const FORGET_SECONDS: f64 = 10.0;
/// When a node is heard that was not before, no more than this many seconds of quota are taken to be new.
const NEWS_SECONDS: f64 = 0.5;
/// Of the quota stays at least this while overshoot is repaid.
const REPAYING: f64 = 0.2;
/// A rate is measured over no shorter time: one request after a pause is not a thousand a second.
const MEASURE_SECONDS: f64 = 0.05;

/// The part of `quota` that a node may take.
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

/// The part of `quota` of a node that has not heard from the others, of which there are `nodes` with itself.
#[must_use]
pub fn cautious(quota: f64, nodes: f64) -> f64 {
    quota / nodes.max(1.0)
}

/// The account of one limit over the fleet: how much more was admitted than the quota.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    /// In items; below zero while less was admitted.
    overshoot: f64,
}

impl Account {
    /// `taken` were admitted within `seconds`.
    fn pass(&mut self, quota: f64, taken: f64, seconds: f64) {
        let kept = (1.0 - seconds / FORGET_SECONDS).max(0.0);
        let overshoot = self.overshoot * kept + taken - quota * seconds;
        self.overshoot = overshoot.clamp(-quota * LEFT_OVER_SECONDS, quota * OVERSHOOT_SECONDS);
    }

    /// What of the quota may be taken while overshoot is repaid.
    fn spendable(&self, quota: f64) -> f64 {
        (quota - self.overshoot / REPAY_SECONDS).max(quota * REPAYING)
    }
}

/// What a node may take of one rate, in items per second; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shares {
    /// Inside the guarantee.
    pub guaranteed: Option<f64>,
    /// In all.
    pub ceiling: Option<f64>,
}

/// What a node heard from the others.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Heard {
    /// What they say together.
    pub told: Told,
    /// How many they are.
    pub speakers: u32,
}

/// Measures one rate of a tenant on this node, and works out the node's share of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// The last two measurements: what came, and in how many seconds.
    before: (f64, f64),
    last: (f64, f64),
    told: Told,
    /// Items admitted since demand began, and those owed before.
    admitted: [u64; 2],
    /// What it had told when it heard from the others last.
    passed: Told,
    /// What the others said then; `None` when demand has just begun.
    heard: Option<Heard>,
    /// Items per second that the fleet admitted between the last two times.
    rate: f64,
    guaranteed: Account,
    ceiling: Account,
}

impl Pace {
    /// Demand begins, after there was none, with so much owed.
    pub fn begin(&mut self, owed: [u64; 2]) {
        (self.told, self.passed, self.heard) = (Told::default(), Told::default(), None);
        self.admitted = owed;
    }

    /// Whether nothing came in the last measurement, though it did before: what is said now is out of date soon.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.last.0 == 0.0 && self.told.wanted > 0.0
    }

    /// Takes in what was counted over the last `span`; what comes out is told to the others.
    pub fn measure(&mut self, counted: Counted, span: Duration) -> Told {
        self.before = self.last;
        self.last = (items(counted.wanted), span.as_secs_f64());
        let sum = (self.before.0 + self.last.0, self.before.1 + self.last.1);
        let rate = |(items, seconds): (f64, f64)| items / seconds.max(MEASURE_SECONDS);
        self.admitted[0] += counted.taken;
        self.admitted[1] += counted.guaranteed;
        let paid = |at: usize| self.admitted[at].saturating_sub(counted.owed[at]);
        self.told = Told {
            // What rises is followed at once, what falls as soon as it fell twice.
            wanted: rate(sum).max(rate(self.last)),
            // Never less than before: what is given back was not paid for.
            taken: self.told.taken.max(paid(0)),
            guaranteed: self.told.guaranteed.max(paid(1)),
        };
        self.told
    }

    /// Items per second that the fleet admits.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Nothing came for as long as it measures.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.told.wanted == 0.0
    }

    /// Takes in what the others said, `span` after the last time; answers the shares of `quota` for this node, which is one
    /// of `nodes`.
    pub fn hear(&mut self, quota: Shares, heard: Heard, nodes: u32, span: Duration) -> Shares {
        let (seconds, nodes) = (span.as_secs_f64(), f64::from(nodes));
        let (before, others) = (self.heard.replace(heard), heard.told);
        let before = before.unwrap_or(heard);
        let passed = std::mem::replace(&mut self.passed, self.told);
        let since = |before: u64, now: u64| items(now.saturating_sub(before));
        let own = [
            since(passed.guaranteed, self.told.guaranteed),
            since(passed.taken, self.told.taken),
        ];
        let news = [
            since(before.told.guaranteed, others.guaranteed),
            since(before.told.taken, others.taken),
        ];
        // One that has come may have begun just now or long ago; when one has gone, nothing can be compared.
        let believed = |news: f64, quota: f64| match heard.speakers.cmp(&before.speakers) {
            Ordering::Less => 0.0,
            Ordering::Equal => news,
            Ordering::Greater => news.min(quota * (seconds + NEWS_SECONDS)),
        };
        let wanted = self.told.wanted;
        let part = |account: &mut Account, quota: f64, own: f64, news: f64| {
            account.pass(quota, own + believed(news, quota), seconds);
            share(account.spendable(quota), wanted, others.wanted, nodes)
        };
        self.rate = (own[1] + news[1]) / seconds.max(MEASURE_SECONDS);
        let guaranteed = quota.guaranteed;
        let guaranteed = guaranteed.map(|quota| part(&mut self.guaranteed, quota, own[0], news[0]));
        let ceiling = quota.ceiling;
        let ceiling = ceiling.map(|quota| part(&mut self.ceiling, quota, own[1], news[1]));
        Shares {
            guaranteed,
            ceiling,
        }
    }
}

/// A count as a number of this arithmetic, which needs no more than 53 bits of it.
#[must_use]
pub fn items(count: u64) -> f64 {
    count as f64
}

/// The nearest whole number.
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
                // Whoever wants no more than an even part of what is asked gets no less than its proportion.
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
            account.pass(quota, quota * (1.0 + over), 1.0);
            let mut admitted = quota * (1.0 + over).min(1.0 + OVERSHOOT_SECONDS);
            for _ in 0..40 {
                let spent = account.spendable(quota) * 0.25;
                admitted += spent;
                account.pass(quota, spent, 0.25);
            }
            prop_assert!(admitted <= quota * 11.5, "{} seconds", admitted / quota);
            prop_assert!(admitted >= quota * 10.8, "{} seconds", admitted / quota);
        }
    }

    #[test]
    fn what_rises_is_followed_at_once_and_what_falls_within_two_measurements() {
        let mut pace = Pace::default();
        let count = |wanted| Counted {
            wanted,
            ..Counted::default()
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

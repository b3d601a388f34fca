//! How much may be sent to an endpoint now. Pure: the driver says what it began and how it ended, with the time.
//!
//! - **Window.** Requests at the same time. It doubles with each round of good answers up to where trouble began last, and
//!   grows by one a round from there; trouble halves it (the congestion control of TCP Reno, RFC 5681).
//! - **Breaker.** After failures in a row the endpoint gets nothing for a pause, then one request. If that fails the pause
//!   doubles, otherwise the window begins at one.
//! - **Retry-After** of an answer that says the endpoint is overloaded stops everything until then.

use std::time::{Duration, Instant};

use crate::repeat::doubled;

/// Requests at the same time to an endpoint of which nothing is known.
const WINDOW_FIRST: f64 = 8.0;
/// Failures in a row that open the breaker.
const BREAK_AFTER: u32 = 8;
/// The first pause of an open breaker.
const OPEN_MIN: Duration = Duration::from_secs(1);
/// Its longest pause.
const OPEN_MAX: Duration = Duration::from_secs(60);
/// Longest pause that an endpoint may ask for.
const ASKED_MAX: Duration = Duration::from_secs(3_600);
/// An answer that takes this many times as long as is usual is slow: the window does not grow.
const SLOW: u32 = 4;
/// An answer that takes less is never slow.
const FAST: Duration = Duration::from_millis(100);
/// Weight of the latest request in the means.
const WEIGHT: f64 = 0.02;

/// How a request ended, as far as it concerns the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was answered, by success or by the refusal of a message.
    Good,
    /// The endpoint is in trouble: it did not answer, or with an error of its own.
    Trouble {
        /// It asked for this pause.
        pause: Option<Duration>,
    },
}

/// What may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// This many requests; none until one that runs has ended.
    Now(u32),
    /// None before this instant.
    At(Instant),
}

#[derive(Debug, Clone, Copy)]
struct Open {
    /// No request before.
    until: Instant,
    /// Times it was opened without a success between.
    times: u32,
}

/// The state of an endpoint on the node that drives it.
#[derive(Debug)]
pub struct Flow {
    limit: u32,
    window: f64,
    /// Below it the window doubles.
    threshold: f64,
    running: u32,
    /// Answers that may still widen the window: as many as ran when it was full.
    credit: u32,
    failures: u32,
    open: Option<Open>,
    /// No request before, because the endpoint asked for it.
    not_before: Option<Instant>,
    /// Requests that began before do not halve the window again.
    halved_at: Option<Instant>,
    /// Mean seconds of good answers.
    latency: Option<f64>,
    /// Share of requests that were accepted.
    accepted: Option<f64>,
}

impl Flow {
    /// For an endpoint that takes up to `limit` requests at the same time.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            window: WINDOW_FIRST,
            threshold: f64::from(limit),
            running: 0,
            credit: 0,
            failures: 0,
            open: None,
            not_before: None,
            halved_at: None,
            latency: None,
            accepted: None,
        }
    }

    /// Changes the limit.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
        self.threshold = f64::from(limit);
    }

    /// What may be sent now.
    #[must_use]
    pub fn room(&self, now: Instant) -> Room {
        let until = self.open.map(|open| open.until).max(self.not_before);
        if let Some(until) = until.filter(|until| *until > now) {
            return Room::At(until);
        }
        Room::Now(self.concurrency().saturating_sub(self.running))
    }

    /// Requests that may run at the same time.
    #[must_use]
    pub fn concurrency(&self) -> u32 {
        if self.open.is_some() {
            return 1;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at least 1 and at most the limit"
        )]
        let window = self.window.clamp(1.0, f64::from(self.limit)) as u32;
        window
    }

    /// Whether the breaker is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Mean seconds until good answers.
    #[must_use]
    pub fn latency(&self) -> Option<f64> {
        self.latency
    }

    /// Share of requests that were accepted.
    #[must_use]
    pub fn accepted(&self) -> Option<f64> {
        self.accepted
    }

    /// Records the begin of a request.
    pub fn began(&mut self) {
        self.running += 1;
        if self.running >= self.concurrency() {
            self.credit = self.running;
        }
    }

    /// Records the end of a request that was not sent after all.
    pub fn left_out(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Records whether a request was accepted.
    pub fn count(&mut self, is_accepted: bool) {
        let value = if is_accepted { 1.0 } else { 0.0 };
        self.accepted = Some(mean(self.accepted, value));
    }

    /// Records the end of a request that took `took`.
    pub fn ended(&mut self, ended: Ended, took: Duration, now: Instant) {
        self.running = self.running.saturating_sub(1);
        match ended {
            Ended::Good => self.good(took),
            Ended::Trouble { pause } => self.trouble(pause, took, now),
        }
    }

    fn good(&mut self, took: Duration) {
        self.failures = 0;
        if self.open.take().is_some() {
            self.window = 1.0;
        }
        let usual = Duration::from_secs_f64(self.latency.unwrap_or_default());
        let is_slow = took > FAST && self.latency.is_some() && took > usual * SLOW;
        self.latency = Some(mean(self.latency, took.as_secs_f64()));
        if is_slow || self.credit == 0 {
            return;
        }
        self.credit -= 1;
        let step = if self.window < self.threshold {
            1.0
        } else {
            1.0 / self.window
        };
        self.window = (self.window + step).min(f64::from(self.limit));
    }

    fn trouble(&mut self, pause: Option<Duration>, took: Duration, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if let Some(pause) = pause {
            let until = now + pause.min(ASKED_MAX);
            self.not_before = self.not_before.max(Some(until));
        }
        // All requests of a round fail together.
        let began = now.checked_sub(took).unwrap_or(now);
        if self.halved_at.is_none_or(|at| began >= at) {
            self.halved_at = Some(now);
            self.window = (self.window / 2.0).max(1.0);
            self.threshold = self.window;
            self.credit = 0;
        }
        let times = match self.open {
            // Requests that began before it was opened do not open it again.
            Some(open) if open.until > now => return,
            Some(open) => open.times + 1,
            None if self.failures >= BREAK_AFTER => 0,
            None => return,
        };
        let jitter = rand::random_range(0.8..1.2);
        let pause = doubled(OPEN_MIN, times, OPEN_MAX).mul_f64(jitter);
        self.open = Some(Open {
            until: now + pause,
            times,
        });
    }
}

fn mean(old: Option<f64>, value: f64) -> f64 {
    old.map_or(value, |old| old + (value - old) * WEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TROUBLE: Ended = Ended::Trouble { pause: None };
    const MS: Duration = Duration::from_millis(1);

    /// Sends as much as there is room for, and ends it all.
    fn round(flow: &mut Flow, ended: Ended, now: Instant) -> u32 {
        let Room::Now(room) = flow.room(now) else {
            return 0;
        };
        (0..room).for_each(|_| flow.began());
        (0..room).for_each(|_| flow.ended(ended, MS, now + MS));
        room
    }

    #[test]
    fn the_window_doubles_to_the_limit_and_halves_in_trouble() {
        let (mut flow, mut now) = (Flow::new(100), Instant::now());
        let mut rooms = Vec::new();
        for _ in 0..5 {
            rooms.push(round(&mut flow, Ended::Good, now));
            now += MS * 2;
        }
        assert_eq!(rooms[0], 8);
        assert!(rooms.is_sorted() && rooms[4] == 100, "{rooms:?}");
        flow.began();
        flow.ended(TROUBLE, MS, now);
        assert_eq!(flow.concurrency(), 50);
        for _ in 0..2 {
            now += MS * 2;
            round(&mut flow, Ended::Good, now);
        }
        let after = flow.concurrency();
        assert!((51..54).contains(&after), "one more a round: {after}");
    }

    #[test]
    fn requests_that_fail_together_halve_it_once() {
        let (mut flow, now) = (Flow::new(64), Instant::now());
        (0..4).for_each(|_| flow.began());
        (0..4).for_each(|_| flow.ended(TROUBLE, MS * 10, now + MS * 10));
        assert_eq!(flow.concurrency(), 4);
    }

    #[test]
    fn failures_in_a_row_open_the_breaker_and_a_success_closes_it_slowly() {
        let (mut flow, now) = (Flow::new(64), Instant::now());
        assert_eq!(round(&mut flow, TROUBLE, now), 8);
        assert!(flow.is_open());
        let Room::At(first) = flow.room(now + MS) else {
            panic!("it is open");
        };
        assert!((OPEN_MIN / 2..OPEN_MIN * 2).contains(&(first - now)));
        let probe = first + MS;
        assert_eq!(flow.room(probe), Room::Now(1));
        flow.began();
        assert_eq!(flow.room(probe), Room::Now(0), "one at a time");
        flow.ended(TROUBLE, MS, probe);
        let Room::At(second) = flow.room(probe) else {
            panic!("it is open again");
        };
        assert!(second - probe > (first - now).mul_f64(1.2), "for longer");
        flow.began();
        flow.ended(Ended::Good, MS, second);
        assert_eq!(flow.room(second), Room::Now(2), "it begins slowly");
    }

    #[test]
    fn a_pause_that_is_asked_for_is_kept() {
        let (mut flow, now) = (Flow::new(64), Instant::now());
        let pause = |seconds| Ended::Trouble {
            pause: Some(Duration::from_secs(seconds)),
        };
        flow.began();
        flow.ended(pause(7), MS, now);
        assert_eq!(flow.room(now), Room::At(now + Duration::from_secs(7)));
        flow.began();
        flow.ended(pause(1_000_000), MS, now);
        assert_eq!(flow.room(now), Room::At(now + ASKED_MAX));
    }

    #[test]
    fn slow_answers_do_not_widen_the_window() {
        let (mut flow, now) = (Flow::new(64), Instant::now());
        round(&mut flow, Ended::Good, now);
        let before = flow.concurrency();
        for _ in 0..before {
            flow.began();
        }
        flow.ended(Ended::Good, Duration::from_secs(9), now);
        assert_eq!(flow.concurrency(), before);
    }
}

//! Random events for `masks`: time that passes, and turns with publishes, changes of leases and claims.

use cursus::store::turn::LeaseAction;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

/// Subscriptions of the lane. One turn may change leases of both.
pub(super) const SUBSCRIPTIONS: usize = 2;

/// What happens next.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// Time passes.
    Pass(u64),
    /// One turn.
    Turn(Turn),
}

#[derive(Debug, Clone)]
pub(super) struct Turn {
    /// Messages to publish.
    pub(super) messages: i32,
    pub(super) picks: Vec<Pick>,
    pub(super) asks: [Option<Ask>; SUBSCRIPTIONS],
}

/// Messages of one lease, and what to do with them.
#[derive(Debug, Clone)]
pub(super) struct Pick {
    pub(super) lease: Index,
    pub(super) start: u32,
    pub(super) count: u32,
    pub(super) action: LeaseAction,
}

/// What a claim asks for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) wanted: u32,
    /// Quarters of it that may be fresh.
    pub(super) fresh_quarters: u32,
    pub(super) visibility_seconds: u32,
    pub(super) scans: bool,
    pub(super) has_low: bool,
    pub(super) max_attempts: Option<i32>,
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let action = (0..5_u8, prop_oneof![Just(0), Just(20), 1..90_u32]).prop_map(
        |(kind, seconds)| match kind {
            0 => LeaseAction::Settle,
            1 => LeaseAction::Hide(seconds),
            2 => LeaseAction::Return(seconds),
            3 => LeaseAction::GiveBack(seconds),
            _ => LeaseAction::SetAside(seconds),
        },
    );
    let count = prop_oneof![3 => 1..4_u32, 2 => 1..=64_u32, 1 => Just(64)];
    let start = prop_oneof![1 => Just(0), 2 => 0..64_u32];
    let pick =
        (any::<Index>(), start, count, action).prop_map(|(lease, start, count, action)| Pick {
            lease,
            start,
            count,
            action,
        });
    let wanted = prop_oneof![1..4_u32, 1..=130_u32];
    let attempts = option::of(1..4_i32);
    let ask = (wanted, 0..=4_u32, 0..60_u32, any::<[bool; 2]>(), attempts).prop_map(
        |(wanted, fresh_quarters, visibility_seconds, [scans, has_low], max_attempts)| Ask {
            wanted,
            fresh_quarters,
            visibility_seconds,
            scans,
            has_low,
            max_attempts,
        },
    );
    let asks = [option::of(ask.clone()), option::of(ask)];
    let messages = prop_oneof![Just(0), 1..100_i32];
    let turn = (messages, vec(pick, 0..8), asks).prop_map(|(messages, picks, asks)| Turn {
        messages,
        picks,
        asks,
    });
    prop_oneof![
        1 => (1..60_u64).prop_map(Event::Pass),
        3 => turn.prop_map(Event::Turn),
    ]
}

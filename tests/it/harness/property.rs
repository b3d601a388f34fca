//! Property tests on a real database: random events in many cases, all of them on one database.

use std::cell::RefCell;
use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::invariants::check_invariants;
use super::log::Log;

/// Runs `case` with random events, once for each of `cases`, and with fewer events when it has failed. It gets a number
/// that no other run has. At the end the invariants must hold.
pub(crate) fn each_case<E: Debug>(
    cases: u32,
    events_max: usize,
    event: impl Strategy<Value = E>,
    case: impl AsyncFn(&mut Log, u32, &[E]),
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let log = RefCell::new((0, runtime.block_on(Log::new())));
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 256,
        ..ProptestConfig::default()
    });
    let done = runner.run(&vec(event, 1..=events_max), |events| {
        let mut log = log.borrow_mut();
        let (number, log) = &mut *log;
        *number += 1;
        runtime.block_on(case(log, *number, &events));
        Ok(())
    });
    done.unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(check_invariants(&mut log.borrow_mut().1.sql));
}

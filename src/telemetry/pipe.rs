//! The buffer between the tasks that log and the thread that writes. A push never waits: when the buffer is full, the
//! line is dropped and counted, and the next line that is written says how many are missing. The thread takes all
//! lines at once, so a busy log costs few writes.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;

/// What is counted of the log.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    /// Lines that did not fit into the buffer.
    pub(super) dropped: Counter,
    /// Lines that were summed up.
    pub(super) repeated: Counter,
}

/// The buffer, bounded in bytes (I9).
#[derive(Debug)]
pub(super) struct Pipe {
    state: Mutex<State>,
    /// Wakes the thread that writes.
    filled: Condvar,
    /// Wakes those that wait in [`Pipe::flush`].
    emptied: Condvar,
    bytes_max: usize,
    pub(super) counters: Counters,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Lines dropped since the last notice.
    dropped: u64,
    /// Whether the thread writes lines that it has taken.
    is_writing: bool,
    /// Whether the thread should look at its deadline again.
    is_nudged: bool,
    /// Whether nothing writes any more.
    is_closed: bool,
}

impl Pipe {
    pub(super) fn new(bytes_max: usize, counters: Counters) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            bytes_max,
            counters,
        }
    }

    /// Adds a line, or drops it when it does not fit.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.is_closed || state.lines.len() + line.len() > self.bytes_max {
            state.dropped += 1;
            self.counters.dropped.inc();
            return;
        }
        state.lines.extend_from_slice(line);
        self.filled.notify_one();
    }

    /// Wakes the thread, because a deadline before the one that it waits for has come up.
    pub(super) fn nudge(&self) {
        self.state.lock().is_nudged = true;
        self.filled.notify_one();
    }

    /// Waits for lines and takes them. Returns without lines at the deadline or after a nudge; `None` when the pipe is
    /// closed.
    pub(super) fn take(&self, deadline: Option<Instant>) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        while state.lines.is_empty() && !state.is_nudged && !state.is_closed {
            let Some(deadline) = deadline else {
                self.filled.wait(&mut state);
                continue;
            };
            if self.filled.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        if state.is_closed {
            return None;
        }
        state.is_nudged = false;
        state.is_writing = true;
        let mut lines = std::mem::take(&mut state.lines);
        let dropped = std::mem::take(&mut state.dropped);
        if dropped > 0 {
            let notice = format!(
                "{dropped} lines of the log were dropped here: they were not read in time\n"
            );
            lines.extend_from_slice(notice.as_bytes());
        }
        Some(lines)
    }

    /// Says that the lines taken last are written.
    pub(super) fn written(&self) {
        self.state.lock().is_writing = false;
        self.emptied.notify_all();
    }

    /// Waits until all lines are written, but not longer than `within`.
    pub(super) fn flush(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut state = self.state.lock();
        while !state.is_closed && (!state.lines.is_empty() || state.is_writing) {
            if self.emptied.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    /// From here on every line is dropped.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.filled.notify_one();
        self.emptied.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_no_reader_takes_are_dropped_and_their_number_is_said() {
        let pipe = Pipe::new(12, Counters::default());
        for _ in 0..5 {
            pipe.push(b"line\n");
        }
        assert_eq!(pipe.counters.dropped.get(), 3);
        let taken = String::from_utf8(pipe.take(None).unwrap()).unwrap();
        assert!(
            taken.starts_with("line\nline\n3 lines of the log were dropped"),
            "{taken}"
        );
        pipe.written();
        pipe.push(b"later\n");
        assert_eq!(pipe.take(None).unwrap(), b"later\n");
    }

    #[test]
    fn a_flush_waits_for_the_writer_and_not_for_ever() {
        let pipe = Pipe::new(100, Counters::default());
        pipe.flush(Duration::from_secs(60));
        pipe.push(b"line\n");
        let began = Instant::now();
        pipe.flush(Duration::from_millis(20));
        assert!(began.elapsed() >= Duration::from_millis(20));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pipe.take(None);
                pipe.written();
            });
            pipe.flush(Duration::from_secs(60));
        });
    }

    #[test]
    fn the_writer_wakes_at_its_deadline_and_ends_when_the_pipe_is_closed() {
        let pipe = Pipe::new(100, Counters::default());
        assert_eq!(pipe.take(Some(Instant::now())), Some(Vec::new()));
        pipe.nudge();
        assert_eq!(pipe.take(None), Some(Vec::new()));
        pipe.close();
        assert_eq!(pipe.take(None), None);
    }
}

//! Sums up repeated warnings and errors: the first of a kind is written at once, and what follows within ten seconds is
//! counted and said in one line. When a dependency is away, every request logs the same, and neither the disk nor the
//! reader of the log should pay for each. Lines are of one kind when they come from the same place in the code with
//! the same fields, apart from those that differ by request.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::pipe::Pipe;

/// Time for which lines of a kind are summed up.
const WINDOW: Duration = Duration::from_secs(10);
/// Kinds of one place in the code that are told apart within a window (I9); further ones are counted together.
const KINDS_MAX: usize = 32;
/// Bytes of a line that a summary repeats.
const TEXT_BYTES_MAX: usize = 400;
/// Fields that differ by request.
const BY_REQUEST: [&str; 2] = ["request_id", "took"];

/// What a window has counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) level: Level,
    /// The line, as far as its kind decides it.
    pub(super) text: String,
    /// Lines that were not written.
    pub(super) repeated: u64,
    pub(super) within: Duration,
}

/// The layer that decides which lines are written.
pub(super) struct Repeats {
    table: Arc<Table>,
    pipe: Arc<Pipe>,
}

/// The windows of all places in the code that have warned.
#[derive(Default)]
pub(super) struct Table(Mutex<HashMap<Identifier, Window>>);

struct Window {
    level: Level,
    ends: Instant,
    /// Lines that were not written, by kind.
    kinds: HashMap<String, u64>,
    /// Lines of kinds beyond [`KINDS_MAX`].
    others: u64,
}

impl Window {
    fn new(level: Level, now: Instant) -> Self {
        Self {
            level,
            ends: now + WINDOW,
            kinds: HashMap::new(),
            others: 0,
        }
    }

    /// Whether the next line of this kind is written.
    fn admit(&mut self, text: String) -> bool {
        if let Some(repeated) = self.kinds.get_mut(&text) {
            *repeated += 1;
            return false;
        }
        if self.kinds.len() == KINDS_MAX {
            self.others += 1;
            return false;
        }
        self.kinds.insert(text, 0);
        true
    }

    fn has_counted(&self) -> bool {
        self.others > 0 || self.kinds.values().any(|repeated| *repeated > 0)
    }

    fn summaries(self) -> impl Iterator<Item = Summary> {
        let level = self.level;
        let others = (format!("others like these {KINDS_MAX}"), self.others);
        let all = self.kinds.into_iter().chain([others]);
        all.filter(|(_, repeated)| *repeated > 0)
            .map(move |(text, repeated)| Summary {
                level,
                text,
                repeated,
                within: WINDOW,
            })
    }
}

impl Table {
    /// Whether a line is written. The second value says that the window has begun to count with it.
    fn admit(&self, place: Identifier, level: Level, line: (String, Instant)) -> (bool, bool) {
        let (text, now) = line;
        let mut windows = self.0.lock();
        let window = windows
            .entry(place)
            .or_insert_with(|| Window::new(level, now));
        if window.ends <= now && !window.has_counted() {
            *window = Window::new(level, now);
        }
        let had = window.has_counted();
        let is_written = window.admit(text);
        (is_written, !is_written && !had)
    }

    /// When the next window ends that has counted lines.
    pub(super) fn due(&self) -> Option<Instant> {
        let windows = self.0.lock();
        let counted = windows.values().filter(|window| window.has_counted());
        counted.map(|window| window.ends).min()
    }

    /// Ends the windows that are over, and returns what they have counted.
    pub(super) fn sum_up(&self, now: Instant) -> Vec<Summary> {
        let mut windows = self.0.lock();
        let over = windows.extract_if(|_, window| window.ends <= now);
        over.flat_map(|(_, window)| window.summaries()).collect()
    }
}

impl Repeats {
    pub(super) fn new(pipe: Arc<Pipe>) -> Self {
        Self {
            table: Arc::default(),
            pipe,
        }
    }

    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table)
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let place = event.metadata();
        let level = *place.level();
        // Lines below a warning tell of single events, and those of `debug` are asked for one by one.
        if level > Level::WARN {
            return true;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let line = (text.0, Instant::now());
        let (is_written, begins) = self.table.admit(place.callsite(), level, line);
        if !is_written {
            self.pipe.counters.repeated.inc();
        }
        if begins {
            self.pipe.nudge();
        }
        is_written
    }
}

/// The message and the fields of a line that decide its kind, cut to [`TEXT_BYTES_MAX`].
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if BY_REQUEST.contains(&field.name()) {
            return;
        }
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        // Fails when the text is long enough.
        let _ = match field.name() {
            "message" => write!(Cut(&mut self.0), "{value:?}"),
            name => write!(Cut(&mut self.0), "{name}={value:?}"),
        };
    }
}

/// Writes up to [`TEXT_BYTES_MAX`] bytes: an error may be as long as a statement.
struct Cut<'a>(&'a mut String);

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = TEXT_BYTES_MAX.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(left)]);
        if text.len() > left {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::pipe::Counters;

    /// Counts the lines that pass.
    #[derive(Clone, Default)]
    struct Passed(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Passed {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut text = Text::default();
            event.record(&mut text);
            self.0.lock().push(text.0);
        }
    }

    fn logged(log: impl FnOnce()) -> (Vec<String>, Vec<Summary>) {
        let pipe = Arc::new(Pipe::new(1 << 10, Counters::default()));
        let repeats = Repeats::new(pipe);
        let (table, passed) = (repeats.table(), Passed::default());
        let subscriber = tracing_subscriber::registry()
            .with(repeats)
            .with(passed.clone());
        tracing::subscriber::with_default(subscriber, log);
        assert_eq!(table.sum_up(Instant::now()), []);
        let summaries = table.sum_up(Instant::now() + WINDOW);
        assert_eq!(table.due(), None);
        let passed = std::mem::take(&mut *passed.0.lock());
        (passed, summaries)
    }

    #[test]
    fn the_first_line_of_a_kind_is_written_and_the_others_are_counted() {
        let (passed, summaries) = logged(|| {
            for request_id in 0..1_000 {
                for status in [500, 503] {
                    tracing::warn!(request_id, status, "request failed");
                }
                tracing::info!("a line of its own");
            }
        });
        assert_eq!(passed.len(), 1_002);
        let mut texts: Vec<_> = summaries
            .iter()
            .map(|summary| (summary.text.as_str(), summary.repeated))
            .collect();
        texts.sort_unstable();
        let expected = [
            ("request failed status=500", 999),
            ("request failed status=503", 999),
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn lines_that_all_differ_are_bounded_as_well() {
        let (passed, summaries) = logged(|| {
            for number in 0..1_000 {
                tracing::error!(number, "{}", "ä".repeat(500));
            }
        });
        // The long message hides the number, so that all are of one kind.
        assert_eq!((passed.len(), summaries.len()), (1, 1));
        assert!(passed[0].len() <= TEXT_BYTES_MAX + 1);
        let (passed, summaries) = logged(|| {
            for number in 0..1_000 {
                tracing::error!(number, "different");
            }
        });
        assert_eq!(passed.len(), KINDS_MAX);
        assert_eq!(summaries.len(), 1);
        assert_eq!(summaries[0].repeated, 1_000 - KINDS_MAX as u64);
    }
}

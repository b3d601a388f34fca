//! The log of the process. Lines go into a bounded buffer ([`Pipe`]) and a thread of its own writes them, so no task of
//! the runtime waits for the reader of standard error. Repeated warnings are summed up ([`Repeats`]). `main` starts the
//! log and flushes it at the end.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use super::pipe::{Counters, Pipe};
use super::repeats::{Repeats, Summary};
use crate::config::{LogFormat, Logging};

/// Bytes of lines that wait for the reader of standard error. Lines beyond them are dropped and counted.
const BUFFER_BYTES: usize = 1 << 20;
/// Longest time that the end of the program waits for the reader.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);
/// Pause before the next attempt while standard error is a pipe that does not block and is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// There is one standard error, so there is one log.
static LOG: OnceLock<Arc<Pipe>> = OnceLock::new();
/// Shown by every registry, so that a node of a test has them as well.
static COUNTERS: OnceLock<Counters> = OnceLock::new();

fn counters() -> &'static Counters {
    COUNTERS.get_or_init(Counters::default)
}

/// Starts logging, also of panics: their usual report would wait for the reader of standard error.
pub fn init(logging: &Logging) {
    let pipe = Arc::new(Pipe::new(BUFFER_BYTES, counters().clone()));
    if LOG.set(Arc::clone(&pipe)).is_err() {
        return;
    }
    let repeats = Repeats::new(Arc::clone(&pipe));
    let (table, format) = (repeats.table(), logging.log_format);
    let thread = thread::Builder::new().name("log".to_owned());
    let written = Arc::clone(&pipe);
    let started = thread.spawn(move || {
        while let Some(lines) = written.take(table.due()) {
            put(&lines);
            written.written();
            for summary in table.sum_up(Instant::now()) {
                written.push(summary_line(&summary, format).as_bytes());
            }
        }
    });
    if started.is_err() {
        // Without the thread nothing empties the buffer. The node can work without a log.
        pipe.close();
    }
    let lines = fmt::layer()
        .with_writer(move || Lines(Arc::clone(&pipe)))
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines
            .with_target(false)
            .with_ansi(io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let filter = EnvFilter::new(&logging.log_level);
    let subscriber = tracing_subscriber::registry().with(filter).with(repeats);
    // Fails only when a subscriber is already set, which then does the logging.
    let _ = subscriber.with(lines).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(%backtrace, "{panic}");
    }));
}

/// Writes a line for the user of the program to standard error, in its place among the lines of the log.
pub fn say(text: &str) {
    let line = format!("{text}\n");
    match LOG.get() {
        Some(pipe) => pipe.push(line.as_bytes()),
        // A command without a log: the reader of its only line is waited for. A reader that has left wants nothing.
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Waits until the log is written, or not longer than a second when its reader stands still.
pub fn flush() {
    if let Some(pipe) = LOG.get() {
        pipe.flush(FLUSH_WITHIN);
    }
}

/// Adds the metrics of the log to a registry.
pub(super) fn register(registry: &mut Registry) {
    let counters = counters();
    registry.register(
        "log_dropped_lines",
        "Lines of the log that were dropped because the reader of standard error was too slow",
        counters.dropped.clone(),
    );
    registry.register(
        "log_repeated_lines",
        "Lines of the log that were summed up because the same line was written moments before",
        counters.repeated.clone(),
    );
}

/// Writes lines to standard error. When its reader has left, they are lost, and the node goes on.
fn put(mut lines: &[u8]) {
    let mut out = io::stderr();
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(0) => return,
            Ok(written) => lines = &lines[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Err(_) => return,
        }
    }
}

/// What the formatter writes to: it makes one call per line.
struct Lines(Arc<Pipe>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A summary in the format of the log. It is no event, so that a filter by module cannot hide what it stands for.
fn summary_line(summary: &Summary, format: LogFormat) -> String {
    let mut at = String::new();
    // Writing to a string cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut at));
    let (level, repeated) = (summary.level.as_str(), summary.repeated);
    let seconds = summary.within.as_secs();
    let text = format!("{repeated} more in {seconds} s: {}", summary.text);
    match format {
        LogFormat::Text => format!("{at} {level:>5} {text}\n"),
        LogFormat::Json => {
            let line = serde_json::json!({"timestamp": at, "level": level, "message": text, "repeated": repeated});
            format!("{line}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_a_line_of_the_format_of_the_log() {
        let summary = Summary {
            level: tracing::Level::WARN,
            text: "request failed status=503".to_owned(),
            repeated: 12,
            within: Duration::from_secs(10),
        };
        let text = summary_line(&summary, LogFormat::Text);
        assert!(
            text.ends_with("  WARN 12 more in 10 s: request failed status=503\n"),
            "{text}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&summary_line(&summary, LogFormat::Json)).unwrap();
        assert_eq!(json["repeated"], 12);
        assert_eq!(json["level"], "WARN");
    }
}

//! The lines of a file as messages: in batches, several requests at a time, each line with a dedup id of its own, so that a
//! run that is repeated or resumed publishes nothing twice.
//!
//! The id of line N is `<source>.N`. The source is the SHA-256 of the file's content, so it is the same for the same file
//! under any name, and another one for a file that differs anywhere. What cannot be read twice has a random source, unless
//! the user gives one. Confirmed are the lines before the first one whose outcome is not known: `--from-line` goes on there.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::limits::{BATCH_BODY_BYTES_MAX, BATCH_MESSAGES_MAX};
use api::message::PublishResult;
use api::{ErrorCode, TopicName};
use clap::Args;
use cursus_sdk::{Client, Error};
use futures_util::stream::{FuturesUnordered, StreamExt};
use indicatif::ProgressBar;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::output::{grouped, is_watched, note, progress};
use super::publish::Options;
use super::{Context, Failure};

/// Bytes of the bodies of a batch from which it gets no further line; its limit is 10 MiB.
const BATCH_BYTES: usize = 1 << 20;
/// Digits of a source.
const SOURCE_CHARS: usize = 24;
/// Bytes read at a time.
const BUFFER: usize = 256 << 10;
/// How often lines that the service could not store for now are sent again.
const ROUNDS_MAX: u32 = 8;
/// Pause after a refusal for the rate that does not say for how long.
const LIMITED_WAIT: Duration = Duration::from_secs(1);

/// How lines are published.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "With --lines")]
pub(super) struct LinesOptions {
    /// Begin with this line; the first is 1. An interrupted run prints it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    from_line: Option<u64>,
    /// Name of the lines, of which their ids are made; by default the content of the file
    #[arg(long, value_name = "NAME", value_parser = source_name)]
    source: Option<String>,
    /// Requests at a time; 1 keeps the order of the lines [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    in_flight: Option<u32>,
    /// Lines of a request, 1 to 100 [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    batch: Option<u32>,
}

impl LinesOptions {
    /// Options that would have no effect are a mistake.
    pub(super) fn refuse(&self) -> Result<(), Failure> {
        let given = [
            ("--from-line", self.from_line.is_some()),
            ("--source", self.source.is_some()),
            ("--in-flight", self.in_flight.is_some()),
            ("--batch", self.batch.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) => Err(Failure::Usage(format!("{name} needs --lines"))),
            None => Ok(()),
        }
    }
}

fn source_name(text: &str) -> Result<String, String> {
    let fits = (1..=200).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
        .ok_or_else(|| "expected 1 to 200 characters".to_owned())
}

/// Lines to publish.
pub(super) struct Lines {
    pub(super) path: PathBuf,
    pub(super) topic: TopicName,
    pub(super) options: Options,
    pub(super) how: LinesOptions,
}

/// Lines of one request.
struct Batch {
    first: u64,
    lines: Vec<Vec<u8>>,
    /// Bytes of the file up to its end.
    end: u64,
}

/// A batch with what became of it.
type Sent = (Batch, Result<Vec<PublishResult>, Failure>);

/// What is known of the lines.
struct Tally {
    /// The first line whose outcome is not known.
    next: u64,
    /// Lines after it that are stored: their end by their beginning.
    ahead: BTreeMap<u64, u64>,
    stored: u64,
    duplicates: u64,
    began: Instant,
}

impl Tally {
    fn stored(&mut self, first: u64, results: &[PublishResult]) {
        let lines = results.len() as u64;
        self.stored += lines;
        self.duplicates += results.iter().filter(|result| result.duplicate).count() as u64;
        self.ahead.insert(first, first + lines);
        while let Some(end) = self.ahead.remove(&self.next) {
            self.next = end;
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate that is shown"
    )]
    fn rate(&self) -> u64 {
        (self.stored as f64 / self.began.elapsed().as_secs_f64().max(1e-3)) as u64
    }
}

impl Lines {
    /// Publishes the lines.
    pub(super) async fn publish(self, context: &Context) -> Result<(), Failure> {
        let is_stdin = self.path == Path::new("-");
        let from = self.how.from_line.unwrap_or(1);
        let source = match &self.how.source {
            Some(source) => source.clone(),
            None if is_stdin => {
                uuid::Uuid::new_v4().simple().to_string()[..SOURCE_CHARS].to_owned()
            }
            None => source_of(&self.path).map_err(|error| Failure::file(&self.path, &error))?,
        };
        let file: Box<dyn Read + Send> = if is_stdin {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(&self.path).map_err(|error| Failure::file(&self.path, &error))?)
        };
        let bytes = std::fs::metadata(&self.path).ok().map(|meta| meta.len());
        let bar = progress(bytes.filter(|_| !is_stdin));
        let mut tally = Tally {
            next: from,
            ahead: BTreeMap::new(),
            stored: 0,
            duplicates: 0,
            began: Instant::now(),
        };
        let sending = Sending {
            context,
            lines: &self,
            source: &source,
            is_limited: Cell::new(false),
        };
        let done = sending.run(file, from, &mut tally, &bar).await;
        bar.finish_and_clear();
        let far = format!(
            "the {} lines before line {} are published",
            grouped(tally.next - from),
            tally.next
        );
        let resume = self.resume(&source, tally.next);
        match done {
            Ok(()) => self.finished(context, &source, &tally),
            Err(Failure::Interrupted(_)) => {
                Err(Failure::Interrupted(format!("{far}. To go on:\n{resume}")))
            }
            Err(failure) => {
                if tally.next > from {
                    note(&format!("{far}. To go on:\n{resume}"));
                }
                Err(failure)
            }
        }
    }

    fn finished(&self, context: &Context, source: &str, tally: &Tally) -> Result<(), Failure> {
        let seconds = tally.began.elapsed().as_secs_f64();
        let duplicates = match tally.duplicates {
            0 => String::new(),
            n => format!(", of which {} were published before", grouped(n)),
        };
        let text = format!(
            "{} lines{duplicates} in {seconds:.1} s, {} lines/s",
            grouped(tally.stored),
            grouped(tally.rate())
        );
        let value = json!({"lines": tally.stored, "duplicates": tally.duplicates, "next_line": tally.next,
            "source": source, "seconds": seconds});
        context.output.done(&value, &text)
    }

    /// The command that goes on where this one ends.
    fn resume(&self, source: &str, next: u64) -> String {
        format!(
            "  cursus publish {} --lines '{}' --from-line {next} --source '{source}'",
            self.topic,
            self.path.display()
        )
    }
}

/// The requests of a run.
struct Sending<'a> {
    context: &'a Context,
    lines: &'a Lines,
    source: &'a str,
    /// Whether it was said that the service limits the rate.
    is_limited: Cell<bool>,
}

impl Sending<'_> {
    async fn run(
        &self,
        file: Box<dyn Read + Send>,
        from: u64,
        tally: &mut Tally,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let how = &self.lines.how;
        let most = how.batch.map_or(BATCH_MESSAGES_MAX, |lines| lines as usize);
        let in_flight = how.in_flight.unwrap_or(8) as usize;
        let (batches, mut read) = mpsc::channel(in_flight);
        // A thread: a read of a pipe can wait without end, and does not hold the program up when it ends.
        std::thread::spawn(move || read_lines(file, from, most, &batches));
        let mut sent = FuturesUnordered::new();
        let mut open = true;
        let mut failed = None;
        let mut interrupts =
            signal(SignalKind::interrupt()).map_err(|error| Failure::Other(error.to_string()))?;
        let mut interrupted = false;
        while open || !sent.is_empty() {
            tokio::select! {
                biased;
                Some(()) = interrupts.recv() => {
                    if interrupted {
                        break;
                    }
                    if is_watched() {
                        note("finishing what is in flight; Ctrl-C again ends at once");
                    }
                    (interrupted, open) = (true, false);
                    failed = failed.or(Some(Failure::Interrupted(String::new())));
                }
                Some(done) = sent.next() => {
                    let (batch, answer): Sent = done;
                    match answer {
                        Ok(results) => tally.stored(batch.first, &results),
                        // The first failure is the one to show; others follow from it.
                        Err(failure) => (open, failed) = (false, failed.or(Some(failure))),
                    }
                    bar.set_position(batch.end);
                    bar.set_message(format!("{} lines, {}/s", grouped(tally.stored), grouped(tally.rate())));
                }
                batch = read.recv(), if open && sent.len() < in_flight => match batch {
                    Some(Ok(batch)) => sent.push(self.send(batch)),
                    Some(Err(failure)) => (open, failed) = (false, Some(failure)),
                    None => open = false,
                },
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn send(&self, batch: Batch) -> Sent {
        let sent = self.try_send(&batch).await;
        (batch, sent)
    }

    /// Publishes a batch. Lines that the service cannot store for now are sent again; a quota is waited for without end.
    async fn try_send(&self, batch: &Batch) -> Result<Vec<PublishResult>, Failure> {
        let mut rounds = 0;
        loop {
            let messages = batch.lines.iter().enumerate().map(|(at, line)| {
                let mut message = self.lines.options.message(line);
                message.dedup_id = Some(Cow::Owned(format!(
                    "{}.{}",
                    self.source,
                    batch.first + at as u64
                )));
                message
            });
            let topic = self.lines.topic.as_str();
            let client: &Client = &self.context.client;
            let results = match client.publish_batch(topic, messages.collect()).await {
                Ok(results) => results,
                Err(Error::Problem(problem)) if is_limited(problem.problem.code) => {
                    if !self.is_limited.replace(true) {
                        note(&format!("{}; waiting", problem.problem.detail));
                    }
                    tokio::time::sleep(problem.retry_after.unwrap_or(LIMITED_WAIT)).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let problems = results.iter().enumerate();
            let mut problems =
                problems.filter_map(|(at, result)| Some((at, result.error.as_ref()?)));
            let Some((at, problem)) = problems.next() else {
                return Ok(results);
            };
            let line = batch.first + at as u64;
            rounds += 1;
            if !problem.retryable || rounds == ROUNDS_MAX {
                let text = format!(
                    "line {line}: {} ({})",
                    problem.detail,
                    problem.code.as_str()
                );
                return Err(Failure::Some(text));
            }
            tokio::time::sleep(Duration::from_millis(100 << rounds)).await;
        }
    }
}

/// Whether it is only the rate that is refused.
fn is_limited(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::QuotaExceeded | ErrorCode::ReducedCapacity)
}

/// What identifies a file: its content.
fn source_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(
            "this is no regular file; read it through a pipe, with --lines -",
        ));
    }
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => digest.update(&buffer[..read]),
        }
    }
    let mut text = crate::hex::encode(&digest.finalize());
    text.truncate(SOURCE_CHARS);
    Ok(text)
}

/// Reads lines from line `from` on, and sends them in batches until nobody takes them.
fn read_lines(
    file: Box<dyn Read + Send>,
    from: u64,
    most: usize,
    batches: &mpsc::Sender<Result<Batch, Failure>>,
) {
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let (mut number, mut end) = (0, 0);
    let empty = |first| Batch {
        first,
        lines: Vec::new(),
        end: 0,
    };
    let (mut batch, mut bytes) = (empty(from), 0);
    loop {
        let mut line = Vec::new();
        let read = match reader.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => {
                let text = format!("line {}: {error}", number + 1);
                let _ = batches.blocking_send(Err(Failure::Usage(text)));
                return;
            }
        };
        number += 1;
        end += read as u64;
        if number < from {
            continue;
        }
        if line.ends_with(b"\n") {
            line.pop();
            if line.ends_with(b"\r") {
                line.pop();
            }
        }
        if line.len() > BATCH_BODY_BYTES_MAX {
            let text = format!(
                "line {number} has {} bytes; a line can have {BATCH_BODY_BYTES_MAX}",
                line.len()
            );
            if !batch.lines.is_empty() {
                let _ = batches.blocking_send(Ok(batch));
            }
            let _ = batches.blocking_send(Err(Failure::Some(text)));
            return;
        }
        bytes += line.len();
        batch.lines.push(line);
        batch.end = end;
        if batch.lines.len() == most || bytes >= BATCH_BYTES {
            let full = std::mem::replace(&mut batch, empty(number + 1));
            bytes = 0;
            if batches.blocking_send(Ok(full)).is_err() {
                return;
            }
        }
    }
    if !batch.lines.is_empty() {
        let _ = batches.blocking_send(Ok(batch));
    }
}

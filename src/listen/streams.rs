//! The streams of an HTTP/2 connection: their count, their tasks and the pace of their readers. A peer can read the
//! connection and still let one stream wait, by giving it no window. Then hyper waits with a piece of the response in
//! hand, so a response is handed out in pieces, and a stream whose next piece is not taken in time is reset (I9).

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body as AxumBody, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::rt;
use tokio::time::{Sleep, sleep};
use tokio_util::task::TaskTracker;

use super::closing::{Closing, Timer};
use crate::pace::Pace;

/// Longest piece of a response. What hyper was given is out of reach here, so it is given little at once.
const PIECE_BYTES: usize = 64 << 10;

tokio::task_local! {
    /// The response of the stream whose task runs.
    static SENDING: Cell<Sending>;
}

/// Progress of a response.
#[derive(Clone, Copy)]
struct Sending {
    pace: Pace,
    /// When the last piece was handed out, and its bytes; `None` while the peer waits for the next one.
    piece: Option<(Instant, usize)>,
}

/// Counts the requests of an HTTP/2 connection, each from its head to the end of its response.
#[derive(Default)]
pub(super) struct Streams {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One open request.
pub(super) struct Stream(Arc<Streams>);

impl Streams {
    pub(super) fn open(self: Arc<Self>) -> Stream {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Stream(self)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Detects HTTP/2 connections without requests: pings could keep such a connection open for ever, and each occupies a
/// slot.
pub(super) struct Idle {
    streams: Arc<Streams>,
    limit: Duration,
    /// Number of requests that had begun when the timer was set.
    begun: u64,
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    pub(super) fn new(streams: Arc<Streams>, limit: Duration) -> Self {
        Self {
            streams,
            limit,
            begun: 0,
            timer: Box::pin(sleep(limit)),
        }
    }

    /// Ready when no request was open during a whole period. Then the next period begins.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let begun = self.streams.begun.load(Ordering::Relaxed);
            let is_open = begun != self.streams.ended.load(Ordering::Relaxed);
            let was_idle = !is_open && begun == self.begun;
            self.begun = if is_open { u64::MAX } else { begun };
            let next = tokio::time::Instant::now() + self.limit;
            self.timer.as_mut().reset(next);
            if was_idle {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// The body of a response, in pieces.
pub(super) struct Outbound {
    body: AxumBody,
    rest: Bytes,
    _open: Stream,
}

impl Outbound {
    pub(super) fn new(body: AxumBody, open: Stream) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            _open: open,
        }
    }

    fn piece(&mut self) -> Bytes {
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        handed_out(piece.len());
        piece
    }
}

/// Notes that the peer has to take the next bytes.
fn handed_out(bytes: usize) {
    let _ = SENDING.try_with(|sending| {
        let mut now = sending.get();
        now.piece = Some((Instant::now(), bytes));
        sending.set(now);
    });
}

/// Notes that the peer took the last piece.
fn taken() {
    let _ = SENDING.try_with(|sending| {
        let mut now = sending.get();
        if let Some((at, bytes)) = now.piece.take() {
            now.pace.moved(bytes, at.elapsed());
            sending.set(now);
        }
    });
}

impl HttpBody for Outbound {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        taken();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, hint) = (self.rest.len() as u64, self.body.size_hint());
        let mut all = SizeHint::new();
        if let Some(upper) = hint.upper() {
            all.set_upper(upper + rest);
        }
        all.set_lower(hint.lower() + rest);
        all
    }
}

/// Runs the streams as tasks on the tracker, so that shutdown waits for them, and resets those that are not read.
#[derive(Clone)]
pub(super) struct Tasks {
    pub(super) tracker: TaskTracker,
    pub(super) closing: Closing,
    /// Longest single pause of a peer that reads.
    pub(super) pause_max: Duration,
}

impl<F> rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let (closing, pause_max) = (self.closing.clone(), self.pause_max);
        self.tracker.spawn(in_time(future, closing, pause_max));
    }
}

/// Runs a stream, and drops it when its peer does not read; hyper resets it then.
async fn in_time(stream: impl Future, closing: Closing, pause_max: Duration) {
    let mut stream = pin!(stream);
    let mut sending = Sending {
        pace: Pace::new(pause_max),
        piece: None,
    };
    let mut timer: Option<(Instant, Timer)> = None;
    poll_fn(move |cx| {
        let (ended, now) = SENDING.sync_scope(Cell::new(sending), || {
            let ended = stream.as_mut().poll(cx).is_ready();
            (ended, SENDING.with(Cell::get))
        });
        sending = now;
        if ended {
            return Poll::Ready(());
        }
        let Some((at, _)) = sending.piece else {
            timer = None;
            return Poll::Pending;
        };
        if timer.as_ref().is_none_or(|(of, _)| *of != at) {
            let left = sending.pace.wait_max();
            timer = Some((at, Box::pin(closing.clone().out_of_time(left))));
        }
        match &mut timer {
            Some((_, timer)) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    })
    .await;
}

//! One connection: detection of its protocol, its limits and its end. `listen` calls it for each socket. hyper's `auto`
//! builder would wait without limit for the first bytes of a silent peer; here that wait is limited, and the detected
//! protocol runs without a layer in between.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use api::limits::HEADER_BYTES_MAX;
use axum::Router;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, rt};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tower::Service;

use super::Peer;

const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Limit of the request line and headers together. It lies above `HEADER_BYTES_MAX`, whose violation gets a problem
/// document; hyper responds to a head above this limit with an empty 431. hyper checks the size before each read, so a
/// head may exceed the limit by one read.
const HEAD_BYTES: usize = 2 * HEADER_BYTES_MAX;
/// First and longest pause between two reads from a peer that has sent a part of what may be HTTP/2's preface.
const PREFACE_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
const H2_STREAMS: u32 = 256;
const H2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
const H2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const H2_PING_EVERY: Duration = Duration::from_secs(30);
const H2_PING_WITHIN: Duration = Duration::from_secs(20);

/// Signals all connections of a listener to close after their current requests.
///
/// The token alone would suffice, but polling it takes two locks that all connections share, and a connection is polled
/// at least once per request. So a connection polls the token once, to be woken by it, and afterwards checks the flag.
#[derive(Clone, Default)]
pub(super) struct Closing {
    flag: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Closing {
    pub(super) fn begin(&self) {
        // Set before the token, because a task woken by the token checks the flag.
        self.flag.store(true, Ordering::Release);
        self.token.cancel();
    }

    pub(super) fn begun(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }
}

/// Whether a plain connection begins with HTTP/2's preface. Peeks at the bytes without consuming them.
pub(super) async fn speaks_h2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; H2_PREFACE.len()];
    let (mut pause, longest) = PREFACE_PAUSE;
    loop {
        let seen = stream.peek(&mut start).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if start[..seen] != H2_PREFACE[..seen] {
            return Ok(false);
        }
        if seen == start.len() {
            return Ok(true);
        }
        // A part of the preface, or the `P` of `POST`. The socket stays readable, so waiting for readability returns at
        // once; sleep instead, longer each time, because the peer may send nothing more.
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Both protocols with their limits.
pub(super) struct Protocols {
    h1: http1::Builder,
    h2: http2::Builder<Tracked>,
    /// How long an HTTP/2 connection may be without a request. For HTTP/1.1 hyper's header timeout does this.
    idle: Duration,
}

impl Protocols {
    pub(super) fn new(header_timeout: Duration, tracker: TaskTracker) -> Self {
        let mut h1 = http1::Builder::new();
        h1.timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            // The number of headers stays at hyper's default of 100: setting it, even to 100, costs every request an
            // allocation. `pipeline_flush` is not set: with it, hyper's own response to a head that it cannot parse is
            // never sent, because the head is still in its buffer. Without `writev`, head and body are written as one
            // buffer, which costs less than a vector of two.
            .writev(false)
            .max_buf_size(HEAD_BYTES);
        let mut h2 = http2::Builder::new(Tracked(tracker));
        h2.timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS)
            .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
            .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(H2_PING_EVERY)
            .keep_alive_timeout(H2_PING_WITHIN);
        Self {
            h1,
            h2,
            idle: header_timeout,
        }
    }

    /// Serves one connection. `from` is attached to each request, because invalid keys are counted per address.
    pub(super) async fn serve<I>(
        &self,
        stream: I,
        (h2, from): (bool, Peer),
        router: Router,
        closing: Closing,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let ended = if h2 {
            let streams = Arc::new(Streams::default());
            let counted = streams.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let open = counted.clone().open();
                let response = call(&router, request, from);
                async move {
                    let response = response.await;
                    drop(open);
                    response
                }
            });
            let mut idle = Idle::new(streams, self.idle);
            // Boxed, so that the many HTTP/1.1 connections do not reserve space for it.
            let driven = Box::pin(drive(
                self.h2.serve_connection(io, service),
                http2::Connection::graceful_shutdown,
                &closing,
                |cx| idle.poll(cx),
            ));
            driven.await
        } else {
            let service =
                service_fn(move |request: Request<Incoming>| call(&router, request, from));
            drive(
                self.h1.serve_connection(io, service),
                http1::Connection::graceful_shutdown,
                &closing,
                |_| Poll::Pending,
            )
            .await
        };
        if let Err(err) = ended {
            tracing::debug!(%err, "connection");
        }
    }
}

/// Counts the requests of an HTTP/2 connection, each from its head to the head of its response.
#[derive(Default)]
struct Streams {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One open request.
struct Stream(Arc<Streams>);

impl Streams {
    fn open(self: Arc<Self>) -> Stream {
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
/// slot. A response body that is still being sent is not cut off, because a graceful close waits for it.
struct Idle {
    streams: Arc<Streams>,
    limit: Duration,
    /// Number of requests that had begun when the timer was set.
    begun: u64,
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    fn new(streams: Arc<Streams>, limit: Duration) -> Self {
        Self {
            streams,
            limit,
            begun: 0,
            timer: Box::pin(sleep(limit)),
        }
    }

    /// Ready when no request was open during a whole period.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let begun = self.streams.begun.load(Ordering::Relaxed);
            let is_open = begun != self.streams.ended.load(Ordering::Relaxed);
            if !is_open && begun == self.begun {
                return Poll::Ready(());
            }
            self.begun = if is_open { u64::MAX } else { begun };
            self.timer.as_mut().reset(Instant::now() + self.limit);
        }
        Poll::Pending
    }
}

/// Calls the router. Cloning it only raises a reference count, and hyper polls its future directly.
fn call(
    router: &Router,
    mut request: Request<Incoming>,
    from: Peer,
) -> impl Future<Output = Result<Response, Infallible>> + Send + 'static + use<> {
    request.extensions_mut().insert(from);
    router.clone().call(request)
}

/// Polls a connection to its end, and closes it gracefully when the listener closes or `idle` is ready.
async fn drive<C>(
    connection: C,
    close: fn(Pin<&mut C>),
    closing: &Closing,
    mut idle: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut connection = pin!(connection);
    let mut begun = pin!(closing.begun());
    let mut armed = false;
    let mut is_closing = false;
    poll_fn(move |cx: &mut Context<'_>| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        if is_closing {
            return Poll::Pending;
        }
        let mut over = idle(cx).is_ready();
        if !armed || closing.flag.load(Ordering::Acquire) {
            armed = true;
            over |= begun.as_mut().poll(cx).is_ready();
        }
        if !over {
            return Poll::Pending;
        }
        is_closing = true;
        close(connection.as_mut());
        connection.as_mut().poll(cx)
    })
    .await
}

/// Spawns the streams of HTTP/2 on the tracker, so that shutdown waits for them.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

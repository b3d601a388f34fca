//! One connection: detection of its protocol, its limits and its end. `listen` calls it for each socket. hyper's `auto`
//! builder would wait without limit for the first bytes of a silent peer; here that wait is limited. `link` bounds the
//! writes of both protocols and closes HTTP/1.1, `streams` bounds those of a stream of HTTP/2.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api::limits::HEADER_BYTES_MAX;
use axum::Router;
use axum::body::HttpBody;
use axum::response::Response;
use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::closing::Closing;
use super::exchange::Exchange;
use super::link::Link;
use super::streams::{Idle, Outbound, Streams, Tasks};
use super::{Options, Peer};

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
    h2: http2::Builder<Tasks>,
    /// How long an HTTP/2 connection may be without a request. For HTTP/1.1 hyper's header timeout does this.
    idle: Duration,
    /// Longest single pause of a peer that reads a response.
    pause_max: Duration,
    closing: Closing,
}

impl Protocols {
    pub(super) fn new(options: &Options, tracker: TaskTracker, closing: Closing) -> Self {
        let mut h1 = http1::Builder::new();
        h1.timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            // The number of headers stays at hyper's default of 100: setting it, even to 100, costs every request an
            // allocation. `pipeline_flush` is not set: with it, hyper's own response to a head that it cannot parse is
            // never sent, because the head is still in its buffer. Without `writev`, head and body are written as one
            // buffer, which costs less than a vector of two.
            .writev(false)
            .max_buf_size(HEAD_BYTES);
        let tasks = Tasks {
            tracker,
            closing: closing.clone(),
            pause_max: options.pause_max,
        };
        let mut h2 = http2::Builder::new(tasks);
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
            idle: options.header_timeout,
            pause_max: options.pause_max,
            closing,
        }
    }

    /// Serves one connection. `from` is attached to each request, because invalid keys are counted per address.
    pub(super) async fn serve<I>(&self, stream: I, (h2, from): (bool, Peer), router: Router)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let exchange = Arc::new(Exchange::default());
        let bounds = (self.pause_max, !h2);
        let io = TokioIo::new(Link::new(
            stream,
            exchange.clone(),
            self.closing.clone(),
            bounds,
        ));
        let ended = if h2 {
            // Boxed, so that the many HTTP/1.1 connections do not reserve space for it.
            Box::pin(self.serve_h2(io, exchange, from, router)).await
        } else {
            let service = service_fn(move |request: Request<Incoming>| {
                let request = request.map(|incoming| exchange.begin(incoming));
                call(&router, request, from)
            });
            drive(
                pin!(self.h1.serve_connection(io, service)),
                http1::Connection::graceful_shutdown,
                &self.closing,
                |_| Poll::Pending,
            )
            .await
        };
        if let Err(err) = ended {
            tracing::debug!(%err, "connection");
        }
    }

    async fn serve_h2<I>(
        &self,
        io: TokioIo<Link<I>>,
        exchange: Arc<Exchange>,
        from: Peer,
        router: Router,
    ) -> Result<(), hyper::Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let streams = Arc::new(Streams::default());
        let counted = streams.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            exchange.stream_begun();
            let open = counted.clone().open();
            let response = call(&router, request, from);
            async move {
                let response = response.await;
                response.map(|response| response.map(|body| Outbound::new(body, open)))
            }
        });
        let mut idle = Idle::new(streams, self.idle);
        drive(
            pin!(self.h2.serve_connection(io, service)),
            http2::Connection::graceful_shutdown,
            &self.closing,
            |cx| idle.poll(cx),
        )
        .await
    }
}

/// Calls the router. Cloning it only raises a reference count, and hyper polls its future directly.
fn call<B>(
    router: &Router,
    mut request: Request<B>,
    from: Peer,
) -> impl Future<Output = Result<Response, Infallible>> + Send + 'static + use<B>
where
    B: HttpBody<Data = Bytes, Error = hyper::Error> + Send + 'static,
{
    request.extensions_mut().insert(from);
    router.clone().call(request)
}

/// Polls a connection to its end, and closes it gracefully when the listener closes or `idle` is ready. When `idle` is
/// ready once more after that, what is left belongs to streams that the peer does not read, and is dropped.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    close: fn(Pin<&mut C>),
    closing: &Closing,
    mut idle: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut begun = pin!(closing.begun());
    let mut armed = false;
    let mut is_closing = false;
    poll_fn(move |cx: &mut Context<'_>| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        let is_idle = idle(cx).is_ready();
        if is_closing {
            return if is_idle {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        }
        let mut over = is_idle;
        if !armed || closing.has_begun() {
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

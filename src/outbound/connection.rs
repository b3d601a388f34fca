//! An open connection, and one request over it. HTTP/1.1 carries one request at a time, HTTP/2 many. Tells failures after
//! which the request was certainly not processed from others.

use std::error::Error as _;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use url::Position;

use super::call::Call;
use super::error::Error;

/// Longest head of a response, in bytes.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// An HTTP/2 connection with open requests is asked this often whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// It is closed when it does not answer within this.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that counts as a round trip: more is a handshake that had to be repeated.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(200);

/// The body of a request.
pub(super) type Body = Full<Bytes>;

/// A place among all open connections. The task of a connection holds it.
pub(super) type Place = OwnedSemaphorePermit;

/// An open connection.
#[derive(Debug)]
pub(super) enum Connection {
    /// HTTP/1.1.
    Single(Single),
    /// HTTP/2.
    Shared(Shared),
}

/// An HTTP/1.1 connection. Dropping it closes it, whatever state it is in.
#[derive(Debug)]
pub(super) struct Single {
    sender: http1::SendRequest<Body>,
    task: AbortHandle,
    /// A lower bound of the time that a request and its response take.
    round_trip: Duration,
    is_reused: bool,
}

/// A handle of an HTTP/2 connection, which is closed when all handles are dropped.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    sender: http2::SendRequest<Body>,
    /// Requests that the peer takes at the same time. One handle is in the pool, each request has another.
    limit: Arc<AtomicUsize>,
}

/// A request without a response.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// The request was certainly not processed.
    pub(super) is_unprocessed: bool,
    /// The connection takes further requests.
    pub(super) is_usable: bool,
}

impl Failure {
    /// The URL cannot stand in a request. `Url` makes none of these.
    pub(super) fn not_a_url() -> Self {
        Self {
            error: Error::Refused("the URL cannot be sent".to_owned()),
            is_unprocessed: false,
            is_usable: true,
        }
    }
}

impl Drop for Single {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Single {
    /// Whether it is still open.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Waits until the exchange before has ended. Returns whether the connection can be used.
    pub(super) async fn ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let began = Instant::now();
        let sent = self.sender.try_send_request(request).await;
        let was_reused = std::mem::replace(&mut self.is_reused, true);
        sent.map_err(|error| {
            let was_unsent = error.message().is_some();
            let error = error.into_error();
            // The peer closed the connection before the request can have reached it.
            let was_closed = !error.is_parse() && began.elapsed() < self.round_trip;
            Failure {
                error: plain(&error),
                is_unprocessed: was_reused && (was_unsent || was_closed),
                is_usable: false,
            }
        })
    }
}

impl Shared {
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Requests that are open, when the pool has a handle.
    pub(super) fn requests(&self) -> usize {
        Arc::strong_count(&self.limit).saturating_sub(1)
    }

    /// Whether the peer takes another request now.
    pub(super) fn has_room(&self) -> bool {
        self.requests() < self.limit.load(Relaxed)
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.limit, &other.limit)
    }

    async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let sent = self.sender.try_send_request(request).await;
        sent.map_err(|error| {
            let was_unsent = error.message().is_some();
            let error = error.into_error();
            let (is_refused, is_leaving) = rejection(&error);
            Failure {
                error: plain(&error),
                is_unprocessed: was_unsent || is_refused || is_leaving,
                is_usable: is_refused,
            }
        })
    }
}

impl Connection {
    /// HTTP/1.1 over a stream.
    pub(super) async fn single<S>(
        stream: S,
        round_trip: Duration,
        place: Place,
    ) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let opened = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX as usize)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = opened.await.map_err(|error| plain(&error))?;
        // Ends with the connection, which `Single` closes.
        let task = tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an outbound connection broke");
            }
        });
        Ok(Self::Single(Single {
            sender,
            task: task.abort_handle(),
            round_trip: round_trip.min(ROUND_TRIP_MAX),
            is_reused: false,
        }))
    }

    /// HTTP/2 over a stream.
    pub(super) async fn shared<S>(stream: S, place: Place) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let opened = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_header_list_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream));
        let (sender, mut connection) = opened.await.map_err(|error| plain(&error))?;
        let limit = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        // Not an `Arc`, or the task would count as a request.
        let known = Arc::downgrade(&limit);
        let run = poll_fn(move |context| {
            let state = Pin::new(&mut connection).poll(context);
            if let Some(limit) = known.upgrade() {
                limit.store(connection.current_max_send_streams(), Relaxed);
            }
            state
        });
        // Ends with the last handle.
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = run.await {
                tracing::debug!(%error, "an outbound connection broke");
            }
        });
        Ok(Self::Shared(Shared { sender, limit }))
    }

    /// Sends a request and waits for the head of the response.
    pub(super) async fn send(&mut self, call: &Call<'_>) -> Result<Response<Incoming>, Failure> {
        match self {
            Self::Single(single) => {
                let mut request = call.request(Position::BeforePath)?;
                let host = &call.url[Position::BeforeHost..Position::AfterPort];
                let host = HeaderValue::from_str(host).map_err(|_| Failure::not_a_url())?;
                request.headers_mut().insert(HOST, host);
                single.send(request).await
            }
            Self::Shared(shared) => shared.send(call.request(Position::BeforeScheme)?).await,
        }
    }
}

/// The error of a library, as people read it.
fn plain(error: &hyper::Error) -> Error {
    tracing::debug!(error = error as &dyn std::error::Error, "no response");
    if error.is_parse() {
        Error::NotHttp
    } else {
        Error::Broken
    }
}

/// Whether the peer says that it has not processed the request: because it refused the stream, which it does for those
/// that come before it could say how many it takes, or because it is leaving and named an earlier stream as its last one.
/// A stream that it still processed ends with another error.
fn rejection(error: &hyper::Error) -> (bool, bool) {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<h2::Error>() {
            let is_refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            let is_leaving = error.is_go_away();
            return (
                error.is_remote() && is_refused && !is_leaving,
                error.is_remote() && is_leaving,
            );
        }
        cause = inner.source();
    }
    (false, false)
}

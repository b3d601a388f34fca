//! What the parts of one connection know of each other: its socket, its request and the shutdown of the
//! listener. hyper stands between them and does not pass it on. One allocation per connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// The state of the exchange. All of it changes in the task of the connection, so no order is needed.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Whether bytes arrived that belong to no request that was read to its end: the rest of a body that was refused
    /// early, or of a head that is no head.
    has_unread: AtomicBool,
    /// Whether a request began since the last stall of its socket.
    has_begun: AtomicBool,
}

impl Exchange {
    /// Bytes arrived.
    pub(super) fn arrived(&self) {
        self.has_unread.store(true, Ordering::Relaxed);
    }

    /// Whether the peer may still be sending what nobody will read.
    pub(super) fn has_unread(&self) -> bool {
        self.has_unread.load(Ordering::Relaxed)
    }

    /// Whether a request began since the last call.
    pub(super) fn take_begun(&self) -> bool {
        self.has_begun.swap(false, Ordering::Relaxed)
    }

    /// A request begins on a stream of HTTP/2.
    pub(super) fn stream_begun(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    /// A request begins; its body reports its end.
    pub(super) fn begin(self: &Arc<Self>, incoming: Incoming) -> Inbound {
        let is_over = incoming.is_end_stream();
        self.has_unread.store(!is_over, Ordering::Relaxed);
        self.has_begun.store(true, Ordering::Relaxed);
        Inbound {
            incoming,
            exchange: (!is_over).then(|| Arc::clone(self)),
        }
    }
}

/// The body of a request.
pub(super) struct Inbound {
    incoming: Incoming,
    /// `None` once the body was read to its end.
    exchange: Option<Arc<Exchange>>,
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if (frame.is_none() || self.incoming.is_end_stream())
            && let Some(exchange) = self.exchange.take()
        {
            exchange.has_unread.store(false, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

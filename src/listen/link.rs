//! The socket of a connection, or the TLS session on it, as hyper sees it. It ends a connection whose peer does not read
//! its responses, and closes one without losing a response that the peer has not read yet.
//!
//! - **Progress** (I9). A write that the peer holds up must go on at the pace of [`Pace`]. The kernel accepts little more
//!   than the peer takes, see [`super::UNSENT_BYTES_MAX`], so a write makes progress only when the peer does.
//! - **Lingering close** (RFC 9112, section 9.6). A response may be known before the request was read: a body over its
//!   limit, a wrong key, no such route. hyper then closes. A socket that is closed while bytes arrive is reset, and the
//!   peer loses the response with what it has not read. So only the sending side is closed, and what still arrives is
//!   discarded until the peer closes, within bounds of time and bytes.
//! - **Refusals** of hyper itself become problem documents, see [`refusal`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::closing::{Closing, Timer};
use super::exchange::Exchange;
use super::refusal;
use crate::pace::Pace;

/// Longest silence of a peer after the sending side was closed.
const LINGER_SILENCE: Duration = if cfg!(test) {
    Duration::from_millis(300)
} else {
    Duration::from_secs(5)
};
/// Longest time for which a closed connection discards what arrives.
const LINGER_TIME: Duration = if cfg!(test) {
    Duration::from_secs(1)
} else {
    Duration::from_secs(30)
};
/// Most bytes that a closed connection discards: the largest body, and something more.
const LINGER_BYTES: u64 = api::limits::RAW_BODY_BYTES_MAX + (28 << 20);
/// Bytes discarded at once.
const DISCARD_BYTES: usize = 64 << 10;

pub(super) struct Link<S> {
    stream: S,
    exchange: Arc<Exchange>,
    closing: Closing,
    /// Longest single pause of a peer that reads.
    pause_max: Duration,
    /// Whether a close may linger. HTTP/2 ends with a GOAWAY that peers have read before.
    may_linger: bool,
    /// Exists once a write had to wait. On the heap, because most connections have none.
    writing: Option<Box<Writing>>,
    lingering: Option<Box<Lingering>>,
    /// What is left of a response that is written in place of hyper's.
    replaced: Option<Box<[u8]>>,
}

/// The writes of a peer that does not read at once.
struct Writing {
    pace: Pace,
    /// When the wait began, and its end; `None` while the peer reads.
    pause: Option<(Instant, Timer)>,
}

struct Lingering {
    buffer: Box<[u8]>,
    discarded: u64,
    last: Instant,
    silence: Timer,
    end: Timer,
}

impl<S> Link<S> {
    pub(super) fn new(
        stream: S,
        exchange: Arc<Exchange>,
        closing: Closing,
        (pause_max, may_linger): (Duration, bool),
    ) -> Self {
        Self {
            stream,
            exchange,
            closing,
            pause_max,
            may_linger,
            writing: None,
            lingering: None,
            replaced: None,
        }
    }

    /// Passes on the result of a write of `bytes`, and fails it when the peer has not read for too long.
    fn timed<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match (written, &mut self.writing) {
            (Poll::Pending, _) => {
                ready!(self.poll_pause(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            (Poll::Ready(Ok(done)), Some(writing)) => {
                let waited = writing.pause.take().map(|(began, _)| began.elapsed());
                writing.pace.moved(bytes(&done), waited.unwrap_or_default());
                Poll::Ready(Ok(done))
            }
            (ready, _) => ready,
        }
    }

    /// Ready when the pause of the peer is too long.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_new = self.exchange.take_begun();
        let writing = self.writing.get_or_insert_with(|| {
            Box::new(Writing {
                pace: Pace::new(self.pause_max),
                pause: None,
            })
        });
        if is_new {
            // What the peer read of earlier responses earns it no time for this one.
            writing.pace = Pace::new(self.pause_max);
        }
        let (_, timer) = writing.pause.get_or_insert_with(|| {
            let left = writing.pace.wait_max();
            (
                Instant::now(),
                Box::pin(self.closing.clone().out_of_time(left)),
            )
        });
        timer.as_mut().poll(cx)
    }
}

impl<S: AsyncRead + Unpin> Link<S> {
    /// Discards what arrives. Ready when the peer has closed or a bound is reached.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let closing = &self.closing;
        let lingering = self.lingering.get_or_insert_with(|| {
            let timer = |limit| Box::pin(closing.clone().out_of_time(limit));
            Box::new(Lingering {
                buffer: vec![0; DISCARD_BYTES].into(),
                discarded: 0,
                last: Instant::now(),
                silence: timer(LINGER_SILENCE),
                end: timer(LINGER_TIME),
            })
        });
        while lingering.discarded < LINGER_BYTES && lingering.end.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut lingering.buffer);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    lingering.discarded += buffer.filled().len() as u64;
                    lingering.last = Instant::now();
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    ready!(lingering.silence.as_mut().poll(cx));
                    let left = LINGER_SILENCE.saturating_sub(lingering.last.elapsed());
                    if left.is_zero() || closing.has_begun() {
                        break;
                    }
                    // Bytes arrived after this timer was set.
                    lingering.silence = Box::pin(closing.clone().out_of_time(left));
                }
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Link<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.exchange.arrived();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Link<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.may_linger && self.replaced.is_none() && bytes.starts_with(b"HTTP/1.1 4") {
            self.replaced = refusal::instead_of(bytes).map(Into::into);
        }
        while let Some(own) = self.replaced.take() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &own);
            match self.timed(cx, written, |written| *written) {
                Poll::Ready(Ok(written)) if written < own.len() => {
                    self.replaced = Some(own[written..].into());
                }
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(bytes.len())),
                Poll::Ready(Err(err)) => return Poll::Ready(Err(err)),
                Poll::Pending => {
                    self.replaced = Some(own);
                    return Poll::Pending;
                }
            }
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.timed(cx, written, |written| *written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.timed(cx, flushed, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.timed(cx, shut, |()| 0))?;
            if !(self.may_linger && self.exchange.has_unread()) {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_linger(cx).map(Ok)
    }
}

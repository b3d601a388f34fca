//! What an endpoint does with a request, and the count of requests that are open.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::StreamBody;
use hyper::Response;
use hyper::body::Frame;
use hyper::header::HeaderName;

/// What it does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Does {
    /// Answers with a status, and `ok` as body where a body may be.
    Says(u16),
    /// Answers with a status, headers and a body.
    SaysWith(u16, Vec<(&'static str, String)>, Bytes),
    /// Answers with a status after a time.
    Late(u16, Duration),
    /// Sends nothing.
    Hangs,
    /// Sends the head and the first bytes of the body, and no more.
    HangsInBody(u16),
    /// Closes the connection instead of an answer.
    Resets,
    /// The same after the head and the first bytes of the body.
    ResetsInBody(u16),
    /// Sends the head, and then a byte each time, without end.
    Trickles(u16, Duration),
    /// Sends a body of so many bytes.
    Huge(u16, usize),
    /// Sends the client elsewhere.
    Redirects(u16, String),
    /// Answers and closes the connection.
    Closes(u16),
}

impl Does {
    /// Answers with a status and headers.
    pub(crate) fn says_with(status: u16, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| (*name, (*value).to_owned()));
        Self::SaysWith(status, headers.collect(), Bytes::new())
    }
}

/// The connection is to break.
#[derive(Debug, thiserror::Error)]
#[error("broken on purpose")]
pub(crate) struct Broken;

pub(crate) type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Broken>>>;

/// Requests that are open.
#[derive(Debug, Default)]
pub(crate) struct Open {
    pub(super) now: AtomicUsize,
    pub(super) most: AtomicUsize,
}

/// One of them, until it is dropped.
pub(super) struct OneOpen(Arc<Open>);

impl Open {
    pub(super) fn begin(self: &Arc<Self>) -> OneOpen {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        OneOpen(self.clone())
    }
}

impl Drop for OneOpen {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
    }
}

const FIRST: Bytes = Bytes::from_static(b"first bytes");
const CHUNK: Bytes = Bytes::from_static(&[b'x'; 16 << 10]);

type Parts = BoxStream<'static, Result<Bytes, Broken>>;

/// What it does, as a response; `open` ends with the body.
pub(super) async fn body(does: Does, open: OneOpen) -> Result<Response<Body>, Broken> {
    let (status, headers, parts): (u16, Vec<(&str, String)>, Parts) = match does {
        Does::Says(status) => (status, vec![], said(status)),
        Does::SaysWith(status, headers, body) => (status, headers, once(body)),
        Does::Late(status, time) => {
            tokio::time::sleep(time).await;
            (status, vec![], said(status))
        }
        Does::Hangs => std::future::pending().await,
        Does::HangsInBody(status) => {
            let parts = once(FIRST).chain(stream::pending());
            (status, of_length(100), parts.boxed())
        }
        Does::Resets => return Err(Broken),
        Does::ResetsInBody(status) => {
            let broken = async {
                // The first bytes are sent before.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(Broken)
            };
            let parts = once(FIRST).chain(stream::once(broken));
            (status, of_length(100), parts.boxed())
        }
        Does::Trickles(status, pause) => {
            let parts = stream::unfold((), move |()| async move {
                tokio::time::sleep(pause).await;
                Some((Ok(Bytes::from_static(b".")), ()))
            });
            (status, vec![], parts.boxed())
        }
        Does::Huge(status, bytes) => {
            let parts = stream::repeat(CHUNK)
                .take(bytes.div_ceil(CHUNK.len()))
                .map(Ok);
            (status, vec![], parts.boxed())
        }
        Does::Redirects(status, to) => (status, vec![("location", to)], said(status)),
        Does::Closes(status) => {
            let close = vec![("connection", "close".to_owned())];
            (status, close, said(status))
        }
    };
    // The request is open for as long as the stream has not been dropped.
    let parts = parts.map(move |part| {
        let _open = &open;
        part.map(Frame::data)
    });
    let mut response = Response::new(StreamBody::new(parts.boxed()));
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        let name = HeaderName::from_static(name);
        response.headers_mut().append(name, value.parse().unwrap());
    }
    Ok(response)
}

fn once(body: Bytes) -> Parts {
    stream::once(async { Ok(body) }).boxed()
}

fn said(status: u16) -> Parts {
    match status {
        204 | 304 => stream::empty().boxed(),
        _ => once(Bytes::from_static(b"ok")),
    }
}

fn of_length(bytes: usize) -> Vec<(&'static str, String)> {
    vec![("content-length", bytes.to_string())]
}

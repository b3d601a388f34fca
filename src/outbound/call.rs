//! A request and what is read of its response, within a time for all of it. A request that was certainly not processed,
//! because the connection was closed while it was idle or the peer is going away, is sent again over a new connection.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use hyper::{Method, Request, Uri};
use tokio::time::{Sleep, sleep};
use url::{Position, Url};

use super::Reply;
use super::connection::{Body, Failure};
use super::error::{Error, Phase};
use super::pool::Pool;

/// Connections that a request is sent over at most.
const TRIES_MAX: u32 = 3;
/// How requests name their sender.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("cursus/", env!("CARGO_PKG_VERSION")));
/// Headers that belong to the connection: they are set here, never by the caller.
const OF_CONNECTION: [HeaderName; 7] = [
    CONNECTION,
    CONTENT_LENGTH,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A request.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) timeout: Duration,
}

/// How much of the body of a response is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Bytes that are returned at most.
    pub(super) kept: usize,
    /// Bytes that are read at most, so that the connection can be used again.
    pub(super) read: usize,
}

/// How the body of a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It came in full.
    Whole,
    /// It is longer than what is read.
    Cut,
    /// The connection broke.
    Broken,
    /// The time was over.
    TimedOut,
}

impl Call<'_> {
    /// The request, with as much of its URL as the protocol wants.
    pub(super) fn request(&self, from: Position) -> Result<Request<Body>, Failure> {
        let uri = Uri::try_from(&self.url[from..Position::AfterQuery]);
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri.map_err(|_| Failure::not_a_url())?;
        request.headers_mut().clone_from(&self.headers);
        Ok(request)
    }

    /// Sends it, and returns the response, and how its body ended.
    pub(super) async fn run(
        mut self,
        pool: &Arc<Pool>,
        reading: Reading,
    ) -> Result<(Reply, End), Error> {
        for name in OF_CONNECTION {
            self.headers.remove(name);
        }
        self.headers.entry(USER_AGENT).or_insert(AGENT);
        let any = HeaderValue::from_static("*/*");
        self.headers.entry(ACCEPT).or_insert(any);
        let end = sleep(self.timeout);
        tokio::pin!(end);
        let over = |phase| Error::Timeout(phase, self.timeout);
        let mut tries = 0;
        let (connection, response) = loop {
            tries += 1;
            let connection = pool.take(self.url, tries == TRIES_MAX);
            let connection = within(end.as_mut(), connection).await;
            let mut connection = connection.ok_or_else(|| over(Phase::Connect))??;
            let sent = within(end.as_mut(), connection.send(&self)).await;
            match sent.ok_or_else(|| over(Phase::Head))? {
                Ok(response) => break (connection, response),
                Err(failure) => {
                    if !failure.is_usable {
                        pool.forget(self.url, &connection);
                    }
                    if !failure.is_unprocessed || tries == TRIES_MAX {
                        return Err(failure.error);
                    }
                }
            }
        };
        let (head, mut body) = response.into_parts();
        let mut kept = BytesMut::new();
        let ended = within(end, read(&mut body, reading, &mut kept)).await;
        let ended = ended.unwrap_or(End::TimedOut);
        if ended == End::Whole {
            pool.put(self.url, connection, kept_for(&head.headers));
        }
        let reply = Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: kept.freeze(),
        };
        Ok((reply, ended))
    }
}

/// The result of `work`; `None` when `end` comes first. One timer is for all that is waited for: each costs as much as a
/// look into the pool.
async fn within<T>(end: Pin<&mut Sleep>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = end => None,
    }
}

/// How long the server keeps the connection when it is idle, if it says so: `Keep-Alive: timeout=5`.
fn kept_for(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("keep-alive")?.to_str().ok()?;
    let mut parts = text.split(',').filter_map(|part| part.split_once('='));
    let (_, seconds) = parts.find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

async fn read(body: &mut Incoming, reading: Reading, kept: &mut BytesMut) -> End {
    let mut count = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return End::Broken;
        };
        // Trailers are of no interest.
        let Some(data) = frame.data_ref() else {
            continue;
        };
        count += data.len();
        let wanted = reading.kept.saturating_sub(kept.len()).min(data.len());
        kept.extend_from_slice(&data[..wanted]);
        if count > reading.read {
            return End::Cut;
        }
    }
    End::Whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_how_long_it_keeps_a_connection() {
        let of = |text: &'static str| {
            let headers = [(
                HeaderName::from_static("keep-alive"),
                HeaderValue::from_static(text),
            )];
            kept_for(&HeaderMap::from_iter(headers)).map(|kept| kept.as_secs())
        };
        assert_eq!(of("timeout=5"), Some(5));
        assert_eq!(of("max=100, Timeout = 72"), Some(72));
        for text in ["", "timeout", "timeout=-1", "timeout=5s", "max=5"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}

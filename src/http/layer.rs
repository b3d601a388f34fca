//! What every request gets, whatever its route: an id, a deadline, a caught panic, a duration in the metrics and a line in
//! the access log; coding and CORS when it asks for them. One layer, because each layer of the router costs every request
//! an allocation or two; what few requests need (`coding`, `cors`) is decided by the presence of a header.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use api::ErrorCode;
use api::limits::{HEADER_BYTES_MAX, HEADERS_MAX, WAIT_SECONDS};
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::Either;
use tower::{Layer, Service};

use super::RequestMetrics;
use super::answer::problem::Refusal;
use super::answer::throttle::QuotaTexts;
use super::request::admission::Slot;
use super::request::{cors, decoding, local};
use crate::engine::quota::InUse;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A client's request id longer than this is replaced.
const REQUEST_ID_CHARS_MAX: usize = 128;
/// Longest transfer of a body of 100 MiB, at about 1 Mbit/s.
const TRANSFER: Duration = Duration::from_secs(900);

/// What the manners depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Longest time for a request, the wait of a long poll and the transfer of a large body not counted.
    pub(super) request_timeout: Duration,
    /// Largest raw body that is held in memory; a longer one streams, and may take its time.
    pub(super) held_max: usize,
    /// Whether requests need no key: then the pages of other sites are kept out.
    pub(super) open: bool,
}

/// How long a publish may take whose body turned out to be short, though its head did not say so.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldFor(Duration);

impl HeldFor {
    /// `publish`, unless it takes too long.
    pub(super) async fn bound<T>(
        self,
        publish: impl Future<Output = Result<T, crate::engine::Error>>,
    ) -> Result<T, Refusal> {
        match tokio::time::timeout(self.0, publish).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(too_late(self.0)),
        }
    }
}

/// Puts [`Mannered`] around routes.
#[derive(Clone)]
pub(super) struct Manners(Arc<Shared>);

struct Shared {
    rules: Rules,
    metrics: RequestMetrics,
    /// Whether any tenant has a quota.
    quotas: InUse,
    quota_texts: QuotaTexts,
    /// Different in each process, so that ids are not repeated after a restart.
    id_prefix: u32,
    id_next: AtomicU64,
}

impl Manners {
    pub(super) fn new(rules: Rules, metrics: RequestMetrics, quotas: InUse) -> Self {
        Self(Arc::new(Shared {
            rules,
            metrics,
            quotas,
            quota_texts: QuotaTexts::default(),
            id_prefix: rand::random(),
            id_next: AtomicU64::new(0),
        }))
    }
}

impl<S> Layer<S> for Manners {
    type Service = Mannered<S>;

    fn layer(&self, inner: S) -> Mannered<S> {
        Mannered {
            inner,
            shared: Arc::clone(&self.0),
        }
    }
}

/// A route with manners.
#[derive(Clone)]
pub(super) struct Mannered<S> {
    inner: S,
    shared: Arc<Shared>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<S> Service<Request> for Mannered<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Answer {
        let shared = Arc::clone(&self.shared);
        let asked = Asked::of(request.headers());
        let about = About::of(&request, &asked, &shared);
        let crosses = asked.has_origin;
        if let Some(mut response) = early(&request, &asked, &shared.rules) {
            if crosses {
                cors::allow(&mut response);
            }
            about.finish(&shared, &mut response);
            return Box::pin(std::future::ready(Ok(response)));
        }
        let accept = asked.accept_encoding.cloned();
        let is_coded = asked.is_coded;
        let deadline = about.deadline(&shared.rules, &request, is_coded);
        if deadline == TRANSFER {
            let held_for = HeldFor(shared.rules.request_timeout);
            request.extensions_mut().insert(held_for);
        }
        let slot = shared.quotas.get().then(Slot::default);
        if let Some(slot) = &slot {
            request.extensions_mut().insert(slot.clone());
        }
        if is_coded {
            request = decoding::decoded(request);
        }
        // Combinators rather than an async block, which would keep room for each future twice: as captured and as awaited.
        let answer = self.inner.call(request).then(move |answer| {
            let Ok(response) = answer;
            match accept {
                Some(accept) => Either::Left(Box::pin(decoding::encoded(response, accept))),
                None => Either::Right(std::future::ready(response)),
            }
        });
        let answer = AssertUnwindSafe(answer).catch_unwind();
        Box::pin(tokio::time::timeout(deadline, answer).map(move |answer| {
            let mut response = match answer {
                Ok(Ok(response)) => response,
                Ok(Err(_)) => Refusal::from(crate::engine::Error::Internal).into_response(),
                Err(_) => too_late(deadline).into_response(),
            };
            if let Some(slot) = slot {
                slot.finish(&shared.quota_texts, &mut response);
            }
            if crosses {
                cors::allow(&mut response);
            }
            about.finish(&shared, &mut response);
            Ok(response)
        }))
    }
}

/// The headers that manners go by, found in one pass over all of them: a look-up by name hashes the name each time.
#[derive(Default)]
struct Asked<'a> {
    request_id: Option<&'a HeaderValue>,
    host: Option<&'a HeaderValue>,
    accept_encoding: Option<&'a HeaderValue>,
    has_origin: bool,
    is_coded: bool,
    /// Names and values together.
    bytes: usize,
}

impl<'a> Asked<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut asked = Self::default();
        for (name, value) in headers {
            asked.bytes += name.as_str().len() + value.len();
            if *name == HOST {
                asked.host = asked.host.or(Some(value));
            } else if *name == ACCEPT_ENCODING {
                asked.accept_encoding = asked.accept_encoding.or(Some(value));
            } else if *name == ORIGIN {
                asked.has_origin = true;
            } else if *name == CONTENT_ENCODING {
                asked.is_coded = true;
            } else if *name == REQUEST_ID {
                asked.request_id = asked.request_id.or(Some(value));
            }
        }
        asked
    }
}

/// The answer to a request that no route needs to see.
fn early(request: &Request, asked: &Asked<'_>, rules: &Rules) -> Option<Response> {
    let foreign = if rules.open {
        local::foreign(request, asked.host, asked.has_origin)
    } else {
        None
    };
    let early = foreign
        .or_else(|| oversized(request.headers().len(), asked.bytes))
        .or_else(|| cors::preflight(request));
    if asked.is_coded {
        return early.or_else(|| decoding::check(request));
    }
    early
}

/// Refuses a head over the limit. The server's own limits are higher, and answer without a problem; only the number of
/// headers in HTTP/1.1 is counted there, because it costs each request an allocation to say another one.
fn oversized(headers: usize, bytes: usize) -> Option<Response> {
    let detail = if headers > HEADERS_MAX {
        format!("the request has more than {HEADERS_MAX} headers")
    } else if bytes > HEADER_BYTES_MAX {
        format!("the headers have more than {HEADER_BYTES_MAX} bytes together")
    } else {
        return None;
    };
    Some(Refusal::new(ErrorCode::HeadersTooLarge, detail).into_response())
}

fn too_late(deadline: Duration) -> Refusal {
    let detail = format!(
        "the request took longer than {} seconds; it may have had an effect",
        deadline.as_secs()
    );
    Refusal::new(ErrorCode::RequestTimeout, detail)
}

/// What is remembered of a request until it is answered.
struct About {
    began: Instant,
    id: HeaderValue,
    method: Method,
    route: Option<MatchedPath>,
}

impl About {
    fn of(request: &Request, asked: &Asked<'_>, shared: &Shared) -> Self {
        let given = asked.request_id.filter(|id| is_sane(id));
        Self {
            began: Instant::now(),
            id: given.cloned().unwrap_or_else(|| shared.next_id()),
            method: request.method().clone(),
            route: request.extensions().get().cloned(),
        }
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or("", MatchedPath::as_str)
    }

    /// A long poll may wait, and a body that streams may take its time (each pause of it is bounded in `body`).
    fn deadline(&self, rules: &Rules, request: &Request, coded: bool) -> Duration {
        let route = self.route();
        if route.ends_with("/receive") {
            return rules.request_timeout + Duration::from_secs(u64::from(*WAIT_SECONDS.end()));
        }
        if route.ends_with("/messages") && self.method == Method::POST {
            let bytes = request.body().size_hint().upper();
            let is_short = bytes.is_some_and(|bytes| bytes <= rules.held_max as u64);
            if coded || !is_short {
                return TRANSFER;
            }
        }
        rules.request_timeout
    }

    fn finish(self, shared: &Shared, response: &mut Response<Body>) {
        let took = self.began.elapsed();
        let status = response.status().as_u16();
        let (id, method, route) = (&self.id, &self.method, self.route());
        if status >= 500 {
            tracing::warn!(request_id = ?id, %method, route, status, ?took, "request failed");
        } else {
            tracing::debug!(request_id = ?id, %method, route, status, ?took, "request");
        }
        let metrics = &shared.metrics;
        metrics.observe(&self.method, self.route.as_ref(), status, took);
        response.headers_mut().insert(REQUEST_ID, self.id);
    }
}

/// The last digits of `number`, as many as there is room for.
fn put_hex(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// Visible ASCII only, and not too long: it goes into logs.
fn is_sane(id: &HeaderValue) -> bool {
    (1..=REQUEST_ID_CHARS_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

impl Shared {
    /// Written digit by digit: every request needs one, and the formatter takes ten times as long.
    fn next_id(&self) -> HeaderValue {
        let number = self.id_next.fetch_add(1, Ordering::Relaxed);
        let mut id = *b"00000000-0000000000";
        let (prefix, rest) = id.split_at_mut(8);
        put_hex(prefix, self.id_prefix.into());
        put_hex(&mut rest[1..], number);
        HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

#[cfg(test)]
mod tests;

//! The layer around every route. Each request gets an id, a deadline, a duration in the metrics and a line in the
//! access log; a panic is caught. Compression and CORS are added if a header asks for them. It is one layer, because
//! each layer costs an allocation or two per request. `http/mod.rs` applies it to the routes, with the deadline of
//! each.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::Either;
use tower::{Layer, Service};

use super::RequestMetrics;
use super::answer::encoding;
use super::answer::isolation;
use super::answer::problem::{Refusal, Shed};
use super::answer::throttle::QuotaTexts;
use super::request::admission::Slot;
use super::request::deadline::{Deadline, Timeouts, too_late};
use super::request::head::{Head, REQUEST_ID};
use super::request::held::Held;
use super::request::waiting::Waiting;
use super::request::{cors, decoding, digest};
use crate::engine::held::Budget;
use crate::engine::quota::InUse;

/// The settings of the layer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    /// The values from which deadlines are computed.
    pub(super) timeouts: Timeouts,
    /// Whether requests need no key. Pages of other sites are refused then.
    pub(super) is_open: bool,
}

/// Wraps a route in a [`RequestService`].
#[derive(Clone)]
pub(super) struct RequestLayer {
    shared: Arc<Shared>,
    deadline: Deadline,
}

struct Shared {
    rules: Rules,
    metrics: RequestMetrics,
    /// Whether any tenant has a quota.
    quotas: InUse,
    /// The budget of long bodies.
    bodies: Budget,
    quota_texts: QuotaTexts,
    /// Random per process, so that ids are not repeated after a restart.
    id_prefix: u32,
    id_next: AtomicU64,
}

impl RequestLayer {
    /// The layer for routes whose deadline is the request timeout.
    pub(super) fn new(
        rules: Rules,
        metrics: RequestMetrics,
        (quotas, bodies): (InUse, Budget),
    ) -> Self {
        let shared = Shared {
            rules,
            metrics,
            quotas,
            bodies,
            quota_texts: QuotaTexts::default(),
            id_prefix: rand::random(),
            id_next: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
            deadline: Deadline::Request,
        }
    }

    /// The same layer, for routes with another deadline.
    pub(super) fn within(&self, deadline: Deadline) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            deadline,
        }
    }
}

impl<S> Layer<S> for RequestLayer {
    type Service = RequestService<S>;

    fn layer(&self, inner: S) -> RequestService<S> {
        RequestService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A route inside the layer.
#[derive(Clone)]
pub(super) struct RequestService<S> {
    inner: S,
    layer: RequestLayer,
}

type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<S> Service<Request> for RequestService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> ResponseFuture {
        let shared = Arc::clone(&self.layer.shared);
        let head = Head::of(request.headers());
        let record = RequestRecord::of(&request, &head, &shared);
        let crosses = head.has_origin;
        if let Some(mut response) = head.early(&request, shared.rules.is_open) {
            if crosses {
                cors::allow(&mut response);
            }
            record.finish(&shared, &mut response);
            return Box::pin(std::future::ready(Ok(response)));
        }
        let accept = head.accept_encoding.cloned();
        let (has_digest, is_coded) = (head.has_digest, head.is_coded);
        let (watched, waiting) = Waiting::of(request);
        request = watched;
        if has_digest {
            request = digest::checked(request);
        }
        if is_coded {
            request = decoding::decoded(request);
        }
        let held = Held::of(&mut request, &shared.bodies, is_coded);
        let deadline = self.layer.deadline.of(&mut request, shared.rules.timeouts);
        let slot = shared.quotas.get().then(Slot::default);
        if let Some(slot) = &slot {
            request.extensions_mut().insert(slot.clone());
        }
        // Combinators instead of an async block: that would reserve memory for each future twice, as captured and as
        // awaited.
        let answer = self.inner.call(request).then(move |answer| {
            let Ok(response) = answer;
            match accept {
                Some(accept) => Either::Left(Box::pin(encoding::encoded(response, accept))),
                None => Either::Right(std::future::ready(response)),
            }
        });
        let answer = AssertUnwindSafe(answer).catch_unwind();
        Box::pin(tokio::time::timeout(deadline, answer).map(move |answer| {
            let mut response = match answer {
                Ok(Ok(response)) => response,
                Ok(Err(_)) => Refusal::from(crate::engine::Error::Internal).into_response(),
                Err(_) => too_late(deadline, waiting.is_for_client()).into_response(),
            };
            // What the body took of the budget is free again.
            drop(held);
            if let Some(slot) = slot {
                slot.finish(&shared.quota_texts, &mut response);
            }
            if crosses {
                cors::allow(&mut response);
            }
            record.finish(&shared, &mut response);
            Ok(response)
        }))
    }
}

/// Values of a request that its response needs.
struct RequestRecord {
    began: Instant,
    id: HeaderValue,
    method: Method,
    route: Option<MatchedPath>,
}

impl RequestRecord {
    fn of(request: &Request, head: &Head<'_>, shared: &Shared) -> Self {
        let given = head.request_id().cloned();
        Self {
            began: Instant::now(),
            id: given.unwrap_or_else(|| shared.next_id()),
            method: request.method().clone(),
            route: request.extensions().get().cloned(),
        }
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or("", MatchedPath::as_str)
    }

    fn finish(self, shared: &Shared, response: &mut Response<Body>) {
        let took = self.began.elapsed();
        let status = response.status().as_u16();
        let (id, method, route) = (&self.id, &self.method, self.route());
        let shed = response.extensions().get::<Shed>();
        if let Some(Shed(limit)) = shed {
            shared.metrics.count_shed(limit);
        }
        // What a limit refuses is counted and not warned of: there is a refusal for every request above the limit.
        if status >= 500 && shed.is_none() {
            tracing::warn!(request_id = ?id, %method, route, status, ?took, "request failed");
        } else {
            tracing::debug!(request_id = ?id, %method, route, status, ?took, "request");
        }
        let metrics = &shared.metrics;
        metrics.observe(&self.method, self.route.as_ref(), status, took);
        isolation::isolate(&self.method, response.headers_mut());
        response.headers_mut().insert(REQUEST_ID, self.id);
    }
}

/// Writes the last hex digits of `number` that fit.
fn put_hex(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

impl Shared {
    /// Written digit by digit: every request needs an id, and the formatter takes ten times as long.
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

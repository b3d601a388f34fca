//! gzip and zstd, both ways, by tower-http. Its services are put around a single request or response, and only when a
//! header asks for it, so that the many that need no coding do not carry the wrapped bodies. Limits count decoded bytes.

use std::convert::Infallible;

use api::ErrorCode;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING};
use axum::response::{IntoResponse, Response};
use tower::{Service, ServiceExt, service_fn};
use tower_http::compression::Compression;
use tower_http::decompression::{DecompressionBody, RequestDecompression};

use super::problem::Refusal;

/// Answers shorter than this are not worth coding.
const CODED_BYTES_MIN: u64 = 1024;

/// Calls `inner` with the body decoded.
pub(super) async fn decoded<S>(mut inner: S, request: Request) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let plain =
        service_fn(|request: Request<DecompressionBody<Body>>| inner.call(request.map(Body::new)));
    let response = RequestDecompression::new(plain).oneshot(request).await;
    response.map_or_else(|never| match never {}, |response| response.map(Body::new))
}

/// Refuses a request whose coding is not understood.
pub(super) fn check(request: &Request) -> Option<Response> {
    let mut codings = request.headers().get_all(CONTENT_ENCODING).iter();
    let coding = codings.next()?;
    let known = matches!(coding.as_bytes(), b"gzip" | b"zstd" | b"identity");
    if known && codings.next().is_none() {
        return None;
    }
    let detail = "Content-Encoding must be one of gzip, zstd and identity";
    let mut response = Refusal::new(ErrorCode::UnsupportedMediaType, detail).into_response();
    response
        .headers_mut()
        .insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
    Some(response)
}

/// `response`, coded when it is long and the client accepts a coding.
pub(super) async fn encoded(response: Response, accept: HeaderValue) -> Response {
    if !(accepts(&accept, b"gzip") || accepts(&accept, b"zstd")) || !is_worth_it(&response) {
        return response;
    }
    let mut request = Request::new(());
    request.headers_mut().insert(ACCEPT_ENCODING, accept);
    let mut response = Some(response);
    let ready = service_fn(move |_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(response.take().unwrap_or_default()))
    });
    let coded = Compression::new(ready).oneshot(request).await;
    coded.map_or_else(|never| match never {}, |response| response.map(Body::new))
}

fn accepts(accept: &HeaderValue, coding: &[u8]) -> bool {
    let mut windows = accept.as_bytes().windows(coding.len());
    windows.any(|window| window.eq_ignore_ascii_case(coding))
}

/// Long enough, and not the body of a message: its ETag and its ranges are of the bytes that were published.
fn is_worth_it(response: &Response) -> bool {
    let bytes = response.body().size_hint().exact();
    bytes.is_none_or(|bytes| bytes >= CODED_BYTES_MIN)
        && !response.headers().contains_key(ACCEPT_RANGES)
}

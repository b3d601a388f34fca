//! Compression of responses with gzip or zstd. `layer` calls this only for requests with an `Accept-Encoding`. Bodies
//! of messages are never compressed here.

use std::convert::Infallible;

use axum::body::{Body, HttpBody};
use axum::http::header::{ACCEPT_ENCODING, ACCEPT_RANGES};
use axum::http::{HeaderValue, Request};
use axum::response::Response;
use tower::{ServiceExt, service_fn};
use tower_http::compression::Compression;

/// Responses shorter than this are not compressed.
const ENCODED_BYTES_MIN: u64 = 1024;

/// Compresses a long response if the client accepts gzip or zstd.
pub(in crate::http) async fn encoded(response: Response, accept: HeaderValue) -> Response {
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

/// Whether a response is long enough and not the body of a message: ETag and ranges of a body refer to the published
/// bytes.
fn is_worth_it(response: &Response) -> bool {
    let bytes = response.body().size_hint().exact();
    bytes.is_none_or(|bytes| bytes >= ENCODED_BYTES_MIN)
        && !response.headers().contains_key(ACCEPT_RANGES)
}

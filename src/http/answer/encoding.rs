//! A response in gzip or zstd. Called by `layer` only when the request has an `Accept-Encoding`; the body of a message is
//! never compressed here.

use std::convert::Infallible;

use axum::body::{Body, HttpBody};
use axum::http::header::{ACCEPT_ENCODING, ACCEPT_RANGES};
use axum::http::{HeaderValue, Request};
use axum::response::Response;
use tower::{ServiceExt, service_fn};
use tower_http::compression::Compression;

/// Shorter responses are not worth compressing.
const ENCODED_BYTES_MIN: u64 = 1024;

/// The response, compressed when it is long and the client accepts gzip or zstd.
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

/// Long enough, and not the body of a message: its ETag and its ranges are of the bytes that were published.
fn is_worth_it(response: &Response) -> bool {
    let bytes = response.body().size_hint().exact();
    bytes.is_none_or(|bytes| bytes >= ENCODED_BYTES_MIN)
        && !response.headers().contains_key(ACCEPT_RANGES)
}

//! CORS: any origin is allowed, without credentials (if no key is needed, `local` has refused the pages of other sites
//! before). No response depends on the origin, so none needs `Vary`, and a request without `Origin` costs nothing.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;

/// The response to a preflight request; `None` for any other request.
pub(in crate::http) fn preflight(request: &Request) -> Option<Response> {
    if request.method() != Method::OPTIONS {
        return None;
    }
    let asked = request.headers();
    if !asked.contains_key(ORIGIN) || !asked.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    // `*` does not cover `Authorization`, and headers of attributes have any name: all requested headers are allowed.
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        headers.insert(VARY, HeaderValue::from(ACCESS_CONTROL_REQUEST_HEADERS));
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    Some(response)
}

/// Allows any origin to read `response`.
pub(in crate::http) fn allow(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    let exposed = HeaderValue::from_static(
        "accept-ranges, allow, content-digest, content-range, cursus-units, etag, link, ratelimit, ratelimit-policy, retry-after, www-authenticate, x-request-id",
    );
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
}

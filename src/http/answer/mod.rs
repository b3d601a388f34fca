//! What handlers and extractors return as an HTTP response: problems with their rate limit headers, messages as JSON, ranges
//! of bodies, units, coding.

pub(in crate::http) mod encoding;
pub(in crate::http) mod page;
pub(in crate::http) mod problem;
pub(in crate::http) mod range;
pub(in crate::http) mod shown;
pub(in crate::http) mod throttle;
pub(in crate::http) mod units;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

/// A JSON response from its text.
pub(in crate::http) fn json_text(text: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(text));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The status of a PUT.
pub(in crate::http) fn put_status(created: bool) -> StatusCode {
    if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    }
}

//! The HTTP responses of handlers and extractors: problems, rate limit headers, messages as JSON, ranges of bodies,
//! metering units, compression.

pub(in crate::http) mod encoding;
pub(in crate::http) mod exposition;
pub(in crate::http) mod held;
pub(in crate::http) mod isolation;
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

/// A JSON response with this text.
pub(in crate::http) fn json_text(text: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(text));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The status of a PUT: 201 if it created the resource, else 200.
pub(in crate::http) fn put_status(created: bool) -> StatusCode {
    if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    }
}

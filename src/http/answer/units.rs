//! `Cursus-Units`: a response header with the metering units of the request. Requests that are always free do not have
//! it.

use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use crate::engine::Metered;

static UNITS: HeaderName = HeaderName::from_static("cursus-units");

impl<T: IntoResponse> IntoResponse for Metered<T> {
    fn into_response(self) -> Response {
        let mut response = self.answer.into_response();
        let units = HeaderValue::from(self.units);
        response.headers_mut().insert(UNITS.clone(), units);
        response
    }
}

//! `Cursus-Units`: what a call cost, beside its answer. Calls that cost nothing by their nature do not say so.

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

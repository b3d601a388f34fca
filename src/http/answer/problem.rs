//! Refusals: every error is sent as `application/problem+json` (RFC 9457) through this file. It is the only place where
//! an engine error becomes an error code. It adds nothing to the error's text, so no inner cause can leak.

use api::error::echo;
use api::{ErrorCode, FieldError, Problem};
use axum::extract::MatchedPath;
use axum::http::header::{CONNECTION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::throttle;
use crate::engine::{self, Limit};
use crate::http::document;

/// A problem to be sent to the client. It is boxed, because every handler's result has room for it.
#[derive(Debug)]
pub(in crate::http) struct Refusal(Box<Details>);

/// Attached to the response of a request that a limit refused: the name of the limit.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Shed(pub(in crate::http) &'static str);

/// The problem and its limit.
#[derive(Debug)]
struct Details {
    problem: Problem,
    /// The limit that refused the request, if one did.
    limit: Option<Limit>,
}

impl Refusal {
    /// A problem with this code; `detail` describes this occurrence.
    pub(in crate::http) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }

    /// A problem with one invalid field.
    pub(in crate::http) fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Problem::invalid(vec![FieldError::new(pointer, detail)]).into()
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Box::new(Details {
            problem,
            limit: None,
        }))
    }
}

impl From<engine::Error> for Refusal {
    fn from(error: engine::Error) -> Self {
        Self(Box::new(Details {
            problem: Problem::from(&error),
            limit: limit(&error).copied(),
        }))
    }
}

/// The limit that an error reports.
fn limit(error: &engine::Error) -> Option<&Limit> {
    if let engine::Error::Limited(limit) = error {
        Some(limit)
    } else {
        None
    }
}

impl From<&engine::Error> for Problem {
    fn from(error: &engine::Error) -> Self {
        use engine::Error as E;
        let code = match error {
            E::Invalid(fields) => return Self::invalid(fields.clone()),
            E::AlreadyExists(_) => ErrorCode::AlreadyExists,
            E::TooLarge { .. } => ErrorCode::BodyTooLarge,
            E::Conflict(_) => ErrorCode::Conflict,
            E::KeyInUse => ErrorCode::IdempotencyKeyInUse,
            E::KeyMismatch => ErrorCode::IdempotencyKeyMismatch,
            E::LeaseLost => ErrorCode::LeaseLost,
            E::NotFound { .. } => ErrorCode::NotFound,
            E::ReceiptInvalid => ErrorCode::ReceiptInvalid,
            E::Limited(Limit::Quota(_) | Limit::Guesses) => ErrorCode::QuotaExceeded,
            E::Limited(
                Limit::HeldBodies
                | Limit::QueuedPublishes
                | Limit::QueuedTransfers
                | Limit::Receivers
                | Limit::Connections(_)
                | Limit::Guarantee(_),
            ) => ErrorCode::ReducedCapacity,
            E::Forbidden(_) | E::Suspended => ErrorCode::Forbidden,
            E::Unauthenticated => ErrorCode::Unauthenticated,
            E::BodyBroken => ErrorCode::InvalidRequest,
            E::BodyStalled => ErrorCode::RequestTimeout,
            E::Unavailable(_) => ErrorCode::Unavailable,
            E::DiskFull => ErrorCode::InsufficientStorage,
            E::Internal => ErrorCode::Internal,
        };
        let mut problem = Self::new(code, error.to_string());
        let limit = limit(error).into_iter();
        problem.violated_policies = limit.map(|limit| limit.terms().name.to_owned()).collect();
        problem
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Details { problem, limit } = *self.0;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
        let text = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, text).into_response();
        if let Some(limit) = &limit {
            response.extensions_mut().insert(Shed(limit.terms().name));
        }
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match problem.status {
            401 => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            429 | 503 => {
                throttle::put_limit(headers, limit.as_ref());
            }
            _ => {}
        }
        response
    }
}

/// Responds to requests on a connection beyond the limit, which ends with the response.
pub(in crate::http) fn closing(limit: Limit) -> Response {
    let mut response = Refusal::from(engine::Error::Limited(limit)).into_response();
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

/// Responds to requests that match no route.
pub(in crate::http) async fn no_route(uri: Uri) -> Refusal {
    let detail = format!("no route is called {}; see /docs", echo(uri.path()));
    Refusal::new(ErrorCode::NotFound, detail)
}

/// Responds to requests whose route has other methods; axum adds `Allow`.
pub(in crate::http) async fn no_method(
    method: Method,
    uri: Uri,
    route: Option<MatchedPath>,
) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let methods = route.and_then(|route| document::methods(route.as_str()));
    let methods = methods.unwrap_or("the methods of the Allow header");
    let detail = format!(
        "{} takes {methods}, not {}",
        echo(uri.path()),
        echo(method.as_str())
    );
    Refusal::new(ErrorCode::MethodNotAllowed, detail).into_response()
}

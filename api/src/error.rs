//! The closed list of error codes, and the problem document (RFC 9457) that carries one. The matches below have no `_`
//! arm, so a new code does not compile until its status, its retryability and its effect are decided.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::field::clip;
pub use crate::field::{FieldError, echo};
use crate::limits::{DETAIL_CHARS_MAX, FIELD_ERRORS_MAX};

/// Stable code of an error. Clients branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The resource already exists with other settings that cannot be changed.
    AlreadyExists,
    /// A body or batch is over its size limit.
    BodyTooLarge,
    /// The state of the resource, or a resource that depends on it, forbids the request.
    Conflict,
    /// The key or token lacks the required scope.
    Forbidden,
    /// The request has too many headers, or their total size is over its limit.
    HeadersTooLarge,
    /// Another request with the same idempotency key is still running.
    IdempotencyKeyInUse,
    /// The idempotency key was used before with a different request body.
    IdempotencyKeyMismatch,
    /// The disk of the service is nearly full. Messages can still be received and settled, which makes room.
    InsufficientStorage,
    /// Internal fault of the service.
    Internal,
    /// The request is malformed, or a value is out of range.
    InvalidRequest,
    /// The lease of the receipt has ended: the message was settled in another way than by this request, or was delivered
    /// again.
    LeaseLost,
    /// The route does not support this method.
    MethodNotAllowed,
    /// The resource does not exist in this tenant.
    NotFound,
    /// The request uses a part of HTTP that the service does not support.
    NotImplemented,
    /// A condition of the request (`If-Match`) does not hold.
    PreconditionFailed,
    /// A limit of the tenant's quota or of the service was reached.
    QuotaExceeded,
    /// The requested range lies outside of the body.
    RangeNotSatisfiable,
    /// The receipt is malformed, forged, or belongs to another subscription.
    ReceiptInvalid,
    /// The service is short of capacity and refuses requests above their guaranteed rate.
    ReducedCapacity,
    /// The request took longer to arrive than the service allows.
    RequestTimeout,
    /// A part of the service did not respond in time. The outcome is unknown: retry with the same idempotency key.
    Timeout,
    /// The request carries no valid API key or token.
    Unauthenticated,
    /// A dependency of the service, such as its database, does not respond. The outcome may be unknown: retry with the
    /// same idempotency key.
    Unavailable,
    /// The content type or content encoding is not supported.
    UnsupportedMediaType,
}

impl ErrorCode {
    /// All codes, in alphabetical order.
    pub const ALL: [Self; 24] = [
        Self::AlreadyExists,
        Self::BodyTooLarge,
        Self::Conflict,
        Self::Forbidden,
        Self::HeadersTooLarge,
        Self::IdempotencyKeyInUse,
        Self::IdempotencyKeyMismatch,
        Self::InsufficientStorage,
        Self::Internal,
        Self::InvalidRequest,
        Self::LeaseLost,
        Self::MethodNotAllowed,
        Self::NotFound,
        Self::NotImplemented,
        Self::PreconditionFailed,
        Self::QuotaExceeded,
        Self::RangeNotSatisfiable,
        Self::ReceiptInvalid,
        Self::ReducedCapacity,
        Self::RequestTimeout,
        Self::Timeout,
        Self::Unauthenticated,
        Self::Unavailable,
        Self::UnsupportedMediaType,
    ];

    /// HTTP status of a response with this code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::ReceiptInvalid => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::AlreadyExists | Self::Conflict | Self::IdempotencyKeyInUse | Self::LeaseLost => {
                409
            }
            Self::PreconditionFailed => 412,
            Self::BodyTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RangeNotSatisfiable => 416,
            Self::IdempotencyKeyMismatch => 422,
            Self::QuotaExceeded => 429,
            Self::HeadersTooLarge => 431,
            Self::Internal => 500,
            Self::NotImplemented => 501,
            Self::ReducedCapacity | Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::InsufficientStorage => 507,
        }
    }

    /// Whether the same request can succeed later, unchanged.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::IdempotencyKeyInUse
            | Self::InsufficientStorage
            | Self::Internal
            | Self::QuotaExceeded
            | Self::ReducedCapacity
            | Self::RequestTimeout
            | Self::Timeout
            | Self::Unavailable => true,
            Self::AlreadyExists
            | Self::BodyTooLarge
            | Self::Conflict
            | Self::Forbidden
            | Self::HeadersTooLarge
            | Self::IdempotencyKeyMismatch
            | Self::InvalidRequest
            | Self::LeaseLost
            | Self::MethodNotAllowed
            | Self::NotFound
            | Self::NotImplemented
            | Self::PreconditionFailed
            | Self::RangeNotSatisfiable
            | Self::ReceiptInvalid
            | Self::Unauthenticated
            | Self::UnsupportedMediaType => false,
        }
    }

    /// Whether the request certainly changed nothing.
    #[must_use]
    pub const fn had_no_effect(self) -> bool {
        match self {
            Self::Internal | Self::RequestTimeout | Self::Timeout | Self::Unavailable => false,
            Self::AlreadyExists
            | Self::BodyTooLarge
            | Self::Conflict
            | Self::Forbidden
            | Self::HeadersTooLarge
            | Self::IdempotencyKeyInUse
            | Self::IdempotencyKeyMismatch
            | Self::InsufficientStorage
            | Self::InvalidRequest
            | Self::LeaseLost
            | Self::MethodNotAllowed
            | Self::NotFound
            | Self::NotImplemented
            | Self::PreconditionFailed
            | Self::QuotaExceeded
            | Self::RangeNotSatisfiable
            | Self::ReceiptInvalid
            | Self::ReducedCapacity
            | Self::Unauthenticated
            | Self::UnsupportedMediaType => true,
        }
    }

    /// Short title for people; the same for every occurrence of the code.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::AlreadyExists => "Exists already",
            Self::BodyTooLarge => "Body too large",
            Self::Conflict => "Conflict",
            Self::Forbidden => "Forbidden",
            Self::HeadersTooLarge => "Headers too large",
            Self::IdempotencyKeyInUse => "Idempotency key in use",
            Self::IdempotencyKeyMismatch => "Idempotency key used with another body",
            Self::InsufficientStorage => "Insufficient storage",
            Self::Internal => "Internal error",
            Self::InvalidRequest => "Invalid request",
            Self::LeaseLost => "Lease lost",
            Self::MethodNotAllowed => "Method not allowed",
            Self::NotFound => "Not found",
            Self::NotImplemented => "Not implemented",
            Self::PreconditionFailed => "Precondition failed",
            Self::QuotaExceeded => "Quota exceeded",
            Self::RangeNotSatisfiable => "Range not satisfiable",
            Self::ReceiptInvalid => "Receipt invalid",
            Self::ReducedCapacity => "Reduced capacity",
            Self::RequestTimeout => "Request timeout",
            Self::Timeout => "Timeout",
            Self::Unauthenticated => "Unauthenticated",
            Self::Unavailable => "Unavailable",
            Self::UnsupportedMediaType => "Unsupported media type",
        }
    }

    /// The code as written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyExists => "already_exists",
            Self::BodyTooLarge => "body_too_large",
            Self::Conflict => "conflict",
            Self::Forbidden => "forbidden",
            Self::HeadersTooLarge => "headers_too_large",
            Self::IdempotencyKeyInUse => "idempotency_key_in_use",
            Self::IdempotencyKeyMismatch => "idempotency_key_mismatch",
            Self::InsufficientStorage => "insufficient_storage",
            Self::Internal => "internal",
            Self::InvalidRequest => "invalid_request",
            Self::LeaseLost => "lease_lost",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotFound => "not_found",
            Self::NotImplemented => "not_implemented",
            Self::PreconditionFailed => "precondition_failed",
            Self::QuotaExceeded => "quota_exceeded",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::ReceiptInvalid => "receipt_invalid",
            Self::ReducedCapacity => "reduced_capacity",
            Self::RequestTimeout => "request_timeout",
            Self::Timeout => "timeout",
            Self::Unauthenticated => "unauthenticated",
            Self::Unavailable => "unavailable",
            Self::UnsupportedMediaType => "unsupported_media_type",
        }
    }

    /// `type` of the problem: a URI registered with IANA, or a reference to the service's own documentation of the
    /// code.
    #[must_use]
    pub fn type_uri(self) -> String {
        let registered = if self == Self::QuotaExceeded {
            "quota-exceeded"
        } else if self == Self::ReducedCapacity {
            "temporary-reduced-capacity"
        } else {
            return format!("/problems/{}", self.as_str());
        };
        format!("https://iana.org/assignments/http-problem-types#{registered}")
    }
}

/// Problem document (RFC 9457), `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// URI reference that identifies the kind of problem and leads to its documentation.
    #[serde(rename = "type")]
    #[schema(example = "/problems/not_found")]
    pub type_uri: String,
    /// Title of the kind of problem; the same for every occurrence.
    pub title: String,
    /// HTTP status of the response.
    pub status: u16,
    /// Description of this occurrence, for people.
    pub detail: String,
    /// Stable code of the error, to branch on.
    pub code: ErrorCode,
    /// Whether the same request can succeed later, unchanged.
    pub retryable: bool,
    /// Invalid fields of the request. Absent when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Names of the quota policies in `RateLimit-Policy` that refused the request. Absent when there are none.
    #[serde(
        default,
        rename = "violated-policies",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schema(example = json!(["queue"]))]
    pub violated_policies: Vec<String>,
}

impl Problem {
    /// Makes a problem of `code`; `detail` describes this occurrence.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            type_uri: code.type_uri(),
            title: code.title().to_owned(),
            status: code.status(),
            detail: clip(detail.into(), DETAIL_CHARS_MAX),
            code,
            retryable: code.is_retryable(),
            errors: Vec::new(),
            violated_policies: Vec::new(),
        }
    }

    /// Makes an `invalid_request` problem that names the first [`FIELD_ERRORS_MAX`] invalid fields.
    #[must_use]
    pub fn invalid(mut errors: Vec<FieldError>) -> Self {
        let more = errors.len() > FIELD_ERRORS_MAX;
        errors.truncate(FIELD_ERRORS_MAX);
        errors.shrink_to_fit();
        let mut detail = errors
            .iter()
            .map(FieldError::sentence)
            .collect::<Vec<_>>()
            .join("; ");
        if more {
            detail = format!("more than {FIELD_ERRORS_MAX} invalid fields: {detail}");
        }
        Self {
            errors,
            ..Self::new(ErrorCode::InvalidRequest, detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_bounds_the_fields_it_names_and_the_text_it_repeats() {
        let long = "ä".repeat(10_000);
        let errors = vec![FieldError::new(format!("/{long}"), &long); 1_000];
        let problem = Problem::invalid(errors);
        assert_eq!(problem.errors.len(), 20);
        assert_eq!(problem.errors[0].pointer.chars().count(), 201);
        assert_eq!(problem.errors[0].detail.chars().count(), 201);
        assert!(
            problem
                .detail
                .starts_with("more than 20 invalid fields: /ää")
        );
        assert_eq!(problem.detail.chars().count(), 2_001);
        let short = Problem::new(ErrorCode::Conflict, "a short detail");
        assert_eq!(short.detail, "a short detail");
    }

    #[test]
    fn codes_are_alphabetical_and_spelled_as_on_the_wire() {
        let texts = ErrorCode::ALL.map(ErrorCode::as_str);
        assert!(texts.is_sorted());
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}

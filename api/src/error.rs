//! The closed list of errors a client can meet, and the problem document (RFC 9457) that carries one. The three matches
//! below have no `_`: a new code must say its status, whether trying again can help, and whether anything was done.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::{DETAIL_CHARS_MAX, ECHO_CHARS_MAX, FIELD_ERRORS_MAX};

/// Stable name of an error; clients branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// It exists already with other settings that cannot be changed.
    AlreadyExists,
    /// A body or batch is over its limit.
    BodyTooLarge,
    /// Others need it, or its state forbids this.
    Conflict,
    /// The key may not do this.
    Forbidden,
    /// The headers are too many, or too long together.
    HeadersTooLarge,
    /// A request with the same idempotency key is still running.
    IdempotencyKeyInUse,
    /// The idempotency key was used with another body.
    IdempotencyKeyMismatch,
    /// A fault of the service.
    Internal,
    /// The request is malformed or over a limit.
    InvalidRequest,
    /// The lease has ended: settled already, or the message was handed out again.
    LeaseLost,
    /// The route knows no such method.
    MethodNotAllowed,
    /// No such thing for this tenant.
    NotFound,
    /// Over the quota.
    QuotaExceeded,
    /// The body has no byte of the range.
    RangeNotSatisfiable,
    /// The receipt is forged, damaged, or of another subscription.
    ReceiptInvalid,
    /// The service sheds load.
    ReducedCapacity,
    /// The request took longer than the service waits.
    RequestTimeout,
    /// No valid API key.
    Unauthenticated,
    /// A part of the service does not answer; the outcome may be unknown, so retry with the same idempotency key.
    Unavailable,
    /// The content type or encoding is not understood here.
    UnsupportedMediaType,
}

impl ErrorCode {
    /// All codes, in alphabetical order.
    pub const ALL: [Self; 20] = [
        Self::AlreadyExists,
        Self::BodyTooLarge,
        Self::Conflict,
        Self::Forbidden,
        Self::HeadersTooLarge,
        Self::IdempotencyKeyInUse,
        Self::IdempotencyKeyMismatch,
        Self::Internal,
        Self::InvalidRequest,
        Self::LeaseLost,
        Self::MethodNotAllowed,
        Self::NotFound,
        Self::QuotaExceeded,
        Self::RangeNotSatisfiable,
        Self::ReceiptInvalid,
        Self::ReducedCapacity,
        Self::RequestTimeout,
        Self::Unauthenticated,
        Self::Unavailable,
        Self::UnsupportedMediaType,
    ];

    /// The HTTP status that goes with the code.
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
            Self::BodyTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RangeNotSatisfiable => 416,
            Self::IdempotencyKeyMismatch => 422,
            Self::QuotaExceeded => 429,
            Self::HeadersTooLarge => 431,
            Self::Internal => 500,
            Self::ReducedCapacity | Self::Unavailable => 503,
        }
    }

    /// Whether the same request can succeed later, unchanged.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::IdempotencyKeyInUse
            | Self::Internal
            | Self::QuotaExceeded
            | Self::ReducedCapacity
            | Self::RequestTimeout
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
            | Self::RangeNotSatisfiable
            | Self::ReceiptInvalid
            | Self::Unauthenticated
            | Self::UnsupportedMediaType => false,
        }
    }

    /// Whether it is certain that the request changed nothing.
    #[must_use]
    pub const fn had_no_effect(self) -> bool {
        match self {
            Self::Internal | Self::RequestTimeout | Self::Unavailable => false,
            Self::AlreadyExists
            | Self::BodyTooLarge
            | Self::Conflict
            | Self::Forbidden
            | Self::HeadersTooLarge
            | Self::IdempotencyKeyInUse
            | Self::IdempotencyKeyMismatch
            | Self::InvalidRequest
            | Self::LeaseLost
            | Self::MethodNotAllowed
            | Self::NotFound
            | Self::QuotaExceeded
            | Self::RangeNotSatisfiable
            | Self::ReceiptInvalid
            | Self::ReducedCapacity
            | Self::Unauthenticated
            | Self::UnsupportedMediaType => true,
        }
    }

    /// A sentence for people that is the same for every occurrence.
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
            Self::Internal => "Internal error",
            Self::InvalidRequest => "Invalid request",
            Self::LeaseLost => "Lease lost",
            Self::MethodNotAllowed => "Method not allowed",
            Self::NotFound => "Not found",
            Self::QuotaExceeded => "Quota exceeded",
            Self::RangeNotSatisfiable => "Range not satisfiable",
            Self::ReceiptInvalid => "Receipt invalid",
            Self::ReducedCapacity => "Reduced capacity",
            Self::RequestTimeout => "Request timeout",
            Self::Unauthenticated => "Unauthenticated",
            Self::Unavailable => "Unavailable",
            Self::UnsupportedMediaType => "Unsupported media type",
        }
    }

    /// The code as it stands on the wire.
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
            Self::Internal => "internal",
            Self::InvalidRequest => "invalid_request",
            Self::LeaseLost => "lease_lost",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotFound => "not_found",
            Self::QuotaExceeded => "quota_exceeded",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::ReceiptInvalid => "receipt_invalid",
            Self::ReducedCapacity => "reduced_capacity",
            Self::RequestTimeout => "request_timeout",
            Self::Unauthenticated => "unauthenticated",
            Self::Unavailable => "unavailable",
            Self::UnsupportedMediaType => "unsupported_media_type",
        }
    }

    /// The `type` of the problem: one that IANA has registered, or else a reference that resolves against the service to
    /// its docs.
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

/// One invalid field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the request body, or `header:<name>`, `query:<name>`, `path:<name>`.
    #[schema(example = "/messages/0/tag")]
    pub pointer: String,
    /// What is wrong, with the limit.
    pub detail: String,
}

impl FieldError {
    /// A field error from its two parts; both are cut to [`ECHO_CHARS_MAX`], because both may repeat the request.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: clip(pointer.into(), ECHO_CHARS_MAX),
            detail: clip(detail.into(), ECHO_CHARS_MAX),
        }
    }
}

/// What an error repeats of a request, cut to [`ECHO_CHARS_MAX`].
#[must_use]
pub fn echo(text: &str) -> String {
    clip(text.to_owned(), ECHO_CHARS_MAX)
}

/// A longer text gives back its memory, too: it may be as large as the request.
fn clip(text: String, chars_max: usize) -> String {
    if text.len() <= chars_max {
        return text;
    }
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A problem document, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where this kind of problem is explained.
    #[serde(rename = "type")]
    #[schema(example = "/problems/not_found")]
    pub type_uri: String,
    /// The same for every problem of this kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// Stable name to branch on.
    pub code: ErrorCode,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// Invalid fields, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Names of the policies in `RateLimit-Policy` that stood against the request, if any.
    #[serde(
        default,
        rename = "violated-policies",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schema(example = json!(["queue"]))]
    pub violated_policies: Vec<String>,
}

impl Problem {
    /// A problem of `code` with what happened this time.
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

    /// An invalid request that names its fields, the first [`FIELD_ERRORS_MAX`] of them.
    #[must_use]
    pub fn invalid(mut errors: Vec<FieldError>) -> Self {
        let more = errors.len() > FIELD_ERRORS_MAX;
        errors.truncate(FIELD_ERRORS_MAX);
        errors.shrink_to_fit();
        let mut detail = errors
            .iter()
            .map(|e| format!("{}: {}", e.pointer, e.detail))
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
    fn a_problem_names_only_so_many_fields_and_repeats_only_so_much() {
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
        let short = Problem::new(ErrorCode::Conflict, "as it is");
        assert_eq!(short.detail, "as it is");
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

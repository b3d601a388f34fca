//! Maps the SDK's errors to ours by what the caller can do. The SDK's error is kept as the source, for the log.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::super::{BoxError, Error};

/// For `map_err` after `send()`. `key` is the object that a 404 response means; without it a 404 is a refusal.
pub(super) fn failed<E>(
    action: &'static str,
    key: Option<&str>,
) -> impl FnOnce(SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    move |error| {
        let status = error
            .raw_response()
            .map(|response| response.status().as_u16());
        let code = error.code().map(str::to_owned);
        let says = error.message().unwrap_or_default().to_owned();
        match (status, code, key) {
            (Some(404), code, Some(key)) if code.as_deref().is_none_or(is_missing_key) => {
                Error::NotFound {
                    key: key.to_owned(),
                }
            }
            // Conflict, rate limit or timeout of the server: worth a retry. S3 responds with 400 to a body that was too slow.
            (Some(408 | 409 | 425 | 429), ..) => unavailable(action, error),
            (Some(400), Some(code), _) if code == "RequestTimeout" => unavailable(action, error),
            // 3xx is another region or endpoint, 501 a header that the storage does not know.
            (Some(status @ (300..=499 | 501)), code, _) => Error::Refused {
                action,
                code: code.unwrap_or_else(|| status.to_string()),
                says,
                source: error.into(),
            },
            _ => unavailable(action, error),
        }
    }
}

fn is_missing_key(code: &str) -> bool {
    matches!(code, "NoSuchKey" | "NotFound")
}

fn unavailable(action: &'static str, source: impl Into<BoxError>) -> Error {
    Error::unavailable(action)(source)
}

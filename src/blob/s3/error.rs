//! Sorts the SDK's errors into ours by what the caller can do. Keeps the SDK's error as the source, for the log.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::super::{BoxError, Error};

/// For `map_err` after `send()`. `key` is what to call missing when the answer is 404.
pub(super) fn failed<E>(
    action: &'static str,
    key: Option<&str>,
) -> impl FnOnce(SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    move |error| {
        let status = error.raw_response().map(|answer| answer.status().as_u16());
        let code = error.code().map(str::to_owned);
        match (status, code, key) {
            (Some(404), code, Some(key)) if code.as_deref().is_none_or(is_missing_key) => {
                Error::NotFound {
                    key: key.to_owned(),
                }
            }
            // Too early, too often, or timed out over there: worth another try. S3 says 400 to a body that was too slow.
            (Some(408 | 409 | 425 | 429), ..) => unavailable(action, error),
            (Some(400), Some(code), _) if code == "RequestTimeout" => unavailable(action, error),
            (Some(status @ 400..500), code, _) => Error::Refused {
                action,
                code: code.unwrap_or_else(|| status.to_string()),
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

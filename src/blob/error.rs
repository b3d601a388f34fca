//! Errors of object storage, grouped by what the caller does next: retry, report the client's fault, or alert the
//! operator. The inner texts are for the log and never reach a client.

use std::time::Duration;

/// A cause of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An operation on object storage failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not exist.
    #[error("object {key} does not exist")]
    NotFound {
        /// The key asked for.
        key: String,
    },
    /// The key is not one that this program makes. Always a bug of the caller.
    #[error("object key {key:?} is not valid")]
    InvalidKey {
        /// The key as given.
        key: String,
    },
    /// The body or range is larger than allowed.
    #[error("more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The stream being uploaded failed, usually because the client disconnected.
    #[error("the source of the upload failed")]
    Source(#[source] BoxError),
    /// The stream being uploaded paused for too long, or was too slow on average.
    #[error("the source of the upload paused for {limit:?}, or sent too slowly on average")]
    SourceStalled {
        /// The longest pause allowed.
        limit: Duration,
    },
    /// The reader of a body paused for too long, or was too slow on average.
    #[error("the taker of the body paused for {limit:?}, or took it too slowly on average")]
    TakerStalled {
        /// The longest pause allowed.
        limit: Duration,
    },
    /// Storage returned less than the range: a cut connection, or an object shorter than its metadata says.
    #[error("object {key}: {got} bytes instead of {expected}")]
    Truncated {
        /// The object.
        key: String,
        /// Bytes requested.
        expected: u64,
        /// Bytes received.
        got: u64,
    },
    /// All slots of a pool stayed in use until the deadline.
    #[error("all {limit} object storage slots for {pool} are taken")]
    Busy {
        /// Name of the pool.
        pool: &'static str,
        /// Number of its slots.
        limit: usize,
    },
    /// Storage refused, and a retry would be refused as well: wrong keys, missing bucket, missing permission.
    #[error("object storage refused {action}: {code}: {says}")]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// The error code of the storage, e.g. `SignatureDoesNotMatch`.
        code: String,
        /// The words of the storage; may be empty.
        says: String,
        /// The SDK's error.
        source: BoxError,
    },
    /// Storage did not respond, responded with 5xx, or could not do it now.
    #[error("object storage is unavailable: {action} failed")]
    Unavailable {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        source: BoxError,
    },
}

impl Error {
    /// Whether the same call can succeed later without any change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Truncated { .. } | Self::Busy { .. } | Self::Unavailable { .. } => true,
            Self::NotFound { .. }
            | Self::InvalidKey { .. }
            | Self::TooLarge { .. }
            | Self::Source(_)
            | Self::SourceStalled { .. }
            | Self::TakerStalled { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// The error with its first cause, for the log: what the storage said, or why it was not reached.
    #[must_use]
    pub fn cause(&self) -> String {
        let Self::Unavailable { source, .. } = self else {
            return self.to_string();
        };
        let mut first: &dyn std::error::Error = source.as_ref();
        while let Some(next) = first.source() {
            first = next;
        }
        format!("{self}: {first}")
    }

    /// The code with which storage refuses requests, if it does.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        if let Self::Refused { code, .. } = self {
            Some(code)
        } else {
            None
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self.code() {
            Some("NoSuchBucket" | "404") => {
                "create the bucket, or correct S3_BUCKET or S3_ENDPOINT"
            }
            Some(
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidToken"
                | "ExpiredToken"
                | "401",
            ) => "check S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY",
            Some("AccessDenied" | "403" | "AllAccessDisabled") => {
                "the key needs to list, read, write and delete objects of the bucket"
            }
            Some("PermanentRedirect" | "AuthorizationHeaderMalformed" | "301" | "307") => {
                "set S3_REGION to the region of the bucket"
            }
            Some("NotImplemented" | "501") => "set S3_CHECKSUMS=false",
            Some(_) => "check the S3_* settings",
            None => "check S3_ENDPOINT, and whether object storage runs",
        }
    }

    /// For `map_err` on failures that are worth a retry.
    pub(super) fn unavailable<E: Into<BoxError>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Unavailable {
            action,
            source: source.into(),
        }
    }
}

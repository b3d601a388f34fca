//! What can go wrong with object storage, told apart by what the caller does next: retry, blame the client, or wake the
//! operator. The inner texts are for the log; nothing of them goes to a client.

use std::time::Duration;

/// A cause of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why an operation on object storage failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such object.
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
    /// The stream being uploaded failed: usually a client that went away.
    #[error("the source of the upload failed")]
    Source(#[source] BoxError),
    /// The stream being uploaded stood still, or only trickled.
    #[error("the source of the upload paused for {limit:?}, or sent too slowly on average")]
    SourceStalled {
        /// The longest pause allowed.
        limit: Duration,
    },
    /// Nobody took what was read, or only in a trickle.
    #[error("the taker of the body paused for {limit:?}, or took it too slowly on average")]
    TakerStalled {
        /// The longest pause allowed.
        limit: Duration,
    },
    /// Storage gave less than asked: a cut connection, or an object shorter than its metadata says.
    #[error("object {key}: {got} bytes instead of {expected}")]
    Truncated {
        /// The object.
        key: String,
        /// Bytes asked for.
        expected: u64,
        /// Bytes received.
        got: u64,
    },
    /// Every slot of a pool stayed taken until the deadline.
    #[error("all {limit} object storage slots for {pool} are taken")]
    Busy {
        /// Which pool.
        pool: &'static str,
        /// Its size.
        limit: usize,
    },
    /// Storage answered no, and will again: wrong keys, missing bucket, missing permission.
    #[error("object storage refused {action}: {code}")]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// The error code of the storage, e.g. `SignatureDoesNotMatch`.
        code: String,
        /// The whole answer.
        source: BoxError,
    },
    /// Storage did not answer, answered 5xx, or could not do it now.
    #[error("object storage is unavailable: {action} failed")]
    Unavailable {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        source: BoxError,
    },
}

impl Error {
    /// Whether the same call can succeed later without anybody changing anything.
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

    /// For `map_err` around anything that is worth another try.
    pub(super) fn unavailable<E: Into<BoxError>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Unavailable {
            action,
            source: source.into(),
        }
    }
}

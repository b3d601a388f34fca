//! Errors of the engine, one variant per decision that a client can take. `http` maps them to responses. Causes are
//! logged where they occur and not kept: [`Error::Unavailable`] and [`Error::Internal`] do not contain them.

use api::FieldError;
use api::limits::BODY_IDLE_SECONDS;

use crate::engine::limit::Limit;
use crate::{blob, store};

/// Why a call of the engine was refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It exists with settings that cannot change.
    #[error("{0}")]
    AlreadyExists(String),
    /// It exceeds a limit on bytes.
    #[error("{what} has more than {max} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit in bytes.
        max: u64,
    },
    /// Other things need it, or its state forbids this.
    #[error("{0}")]
    Conflict(String),
    /// A request with the same idempotency key is running.
    #[error("a request with this idempotency key is still running; try again when it has ended")]
    KeyInUse,
    /// The idempotency key was used with another body before.
    #[error(
        "this idempotency key was used with another body within the topic's deduplication window"
    )]
    KeyMismatch,
    /// Some fields are invalid.
    #[error("invalid fields")]
    Invalid(Vec<FieldError>),
    /// The lease has ended.
    #[error("the lease has ended: the message was settled in another way, or was handed out again")]
    LeaseLost,
    /// It does not exist for this tenant.
    #[error("{what} {name} does not exist")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// Which one.
        name: String,
    },
    /// The receipt is forged, damaged, or of another subscription.
    #[error("the receipt is damaged, or is not of this subscription")]
    ReceiptInvalid,
    /// A limit is reached.
    #[error("{0}")]
    Limited(Limit),
    /// No valid key or token was given.
    #[error("give a valid API key or token: Authorization: Bearer <key>")]
    Unauthenticated,
    /// The key or token is valid, but lacks this permission.
    #[error("{0}")]
    Forbidden(String),
    /// The caller's tenant is suspended.
    #[error("the tenant is suspended; the operator of the service knows why")]
    Suspended,
    /// The client stopped sending in the middle of a body, or what it sent cannot be decoded.
    #[error("the request body ended early, or is not what its Content-Encoding says")]
    BodyBroken,
    /// The client paused for too long in the middle of a body.
    #[error("no byte of the request body came for {BODY_IDLE_SECONDS} seconds")]
    BodyStalled,
    /// The database or object storage is unavailable. The outcome may be unknown.
    #[error(
        "{0} cannot be used at the moment; nothing is lost, try again (with the same idempotency key to be safe)"
    )]
    Unavailable(&'static str),
    /// There is no room on the disk for further messages.
    #[error(
        "the disk of the service is nearly full: it takes messages again when some are consumed and gone, or the disk is larger"
    )]
    DiskFull,
    /// A fault of the service.
    #[error("the request failed by a fault of the service")]
    Internal,
}

impl Error {
    /// [`Error::NotFound`] of a kind of thing and its name.
    pub fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound {
            what,
            name: name.to_string(),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match &error {
            store::Error::Unreachable(_)
            | store::Error::Unavailable(_)
            | store::Error::Raced(_)
            | store::Error::Locked(_)
            | store::Error::OtherHistory => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "database unavailable"
                );
                Self::Unavailable("the database")
            }
            store::Error::Strict
            | store::Error::Conflict(_)
            | store::Error::Database(_)
            | store::Error::Corrupt { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "store failed");
                Self::Internal
            }
        }
    }
}

impl From<blob::Error> for Error {
    fn from(error: blob::Error) -> Self {
        tracing::warn!(error = error.cause(), "object storage failed");
        // All slots of this node are in use; object storage itself may be available.
        if matches!(error, blob::Error::Busy { .. }) {
            return Self::Limited(Limit::QueuedTransfers);
        }
        Self::Unavailable("object storage")
    }
}

//! What can go wrong, one variant per decision that a client can take. Causes are logged where they happen and never
//! travel further than [`Error::Unavailable`] and [`Error::Internal`], which say nothing of them.

use api::FieldError;
use api::limits::BODY_IDLE_SECONDS;

use crate::engine::limit::Limit;
use crate::{blob, store};

/// Why the engine refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It exists with settings that cannot change.
    #[error("{0}")]
    AlreadyExists(String),
    /// A limit on bytes.
    #[error("{what} has more than {max} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit in bytes.
        max: u64,
    },
    /// Others need it, or its state forbids this.
    #[error("{0}")]
    Conflict(String),
    /// A request with the same idempotency key is running.
    #[error("a request with this idempotency key is still running; try again when it has ended")]
    KeyInUse,
    /// The idempotency key came with another body before.
    #[error(
        "this idempotency key was used with another body within the topic's deduplication window"
    )]
    KeyMismatch,
    /// Fields that are invalid.
    #[error("invalid fields")]
    Invalid(Vec<FieldError>),
    /// The lease has ended.
    #[error("the lease has ended: the message is settled, or was handed out again")]
    LeaseLost,
    /// No such thing for this tenant.
    #[error("{what} {name} does not exist")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// Which one.
        name: String,
    },
    /// Forged, damaged or foreign.
    #[error("the receipt is damaged, or is not of this subscription")]
    ReceiptInvalid,
    /// A limit stands against it.
    #[error("{0}")]
    Limited(Limit),
    /// No valid key.
    #[error("give a valid API key or token: Authorization: Bearer <key>")]
    Unauthenticated,
    /// It was let in, but not for this.
    #[error("{0}")]
    Forbidden(String),
    /// Its tenant is suspended.
    #[error("the tenant is suspended; the operator of the service knows why")]
    Suspended,
    /// The client stopped sending in the middle of a body, or what it sent cannot be decoded.
    #[error("the request body ended early, or is not what its Content-Encoding says")]
    BodyBroken,
    /// The client paused for too long in the middle of a body.
    #[error("no byte of the request body came for {BODY_IDLE_SECONDS} seconds")]
    BodyStalled,
    /// Database or object storage does not answer; the outcome may be unknown.
    #[error(
        "{0} does not answer; nothing is lost, try again (with the same idempotency key to be safe)"
    )]
    Unavailable(&'static str),
    /// A fault of ours.
    #[error("the request failed by a fault of the service")]
    Internal,
}

impl Error {
    /// A missing thing.
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
            store::Error::Unavailable(_) | store::Error::Raced(_) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "database unavailable"
                );
                Self::Unavailable("the database")
            }
            store::Error::Conflict(_)
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
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "object storage failed"
        );
        // All slots taken is this node's load: storage itself may be well.
        if matches!(error, blob::Error::Busy { .. }) {
            return Self::Limited(Limit::QueuedTransfers);
        }
        Self::Unavailable("object storage")
    }
}

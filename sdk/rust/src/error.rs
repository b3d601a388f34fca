//! How a request fails. A problem of the service is typed; an answer of something between, such as a proxy, is not.

use std::error::Error as _;
use std::time::Duration;

use api::ErrorCode;

/// An answer of the service that is an error (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The document.
    pub problem: api::Problem,
    /// Time after which the service asks to try again.
    pub retry_after: Option<Duration>,
}

/// A request that failed, after its retries.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service refuses it.
    #[error("{}: {}", .0.problem.code.as_str(), .0.problem.detail)]
    Problem(Box<Problem>),
    /// The answer is an error, and not one of the service: of a proxy, or of another server.
    #[error("status {status}: {text}")]
    Answer {
        /// Status of the answer.
        status: u16,
        /// Beginning of its body.
        text: String,
        /// Time after which to try again.
        retry_after: Option<Duration>,
    },
    /// No connection could be made: the request was not sent.
    #[error("no connection: {0}")]
    Connect(String),
    /// The connection ended, or the time ran out, before the answer was complete. The outcome is unknown.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The answer is a success that cannot be read: this is no Cursus, or one of another version.
    #[error("the answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The request cannot be made of these parts.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// The code of the service's problem.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        let Self::Problem(problem) = self else {
            return None;
        };
        Some(problem.problem.code)
    }

    /// Time after which the answer asks to try again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem(problem) => problem.retry_after,
            Self::Answer { retry_after, .. } => *retry_after,
            Self::Connect(_) | Self::NoAnswer(_) | Self::Unreadable(_) | Self::Invalid(_) => None,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.problem.retryable,
            Self::Answer { status, .. } => matches!(status, 429 | 502 | 503 | 504),
            Self::Connect(_) | Self::NoAnswer(_) => true,
            Self::Unreadable(_) | Self::Invalid(_) => false,
        }
    }

    /// Whether the request certainly changed nothing, so that one that must not be repeated may be.
    pub(crate) fn had_no_effect(&self) -> bool {
        matches!(self, Self::Connect(_)) || self.code().is_some_and(ErrorCode::had_no_effect)
    }

    pub(crate) fn of_answer(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        match serde_json::from_slice(body) {
            Ok(problem) => Self::Problem(Box::new(Problem {
                problem,
                retry_after,
            })),
            Err(_) => Self::Answer {
                status,
                text: String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
                retry_after,
            },
        }
    }

    pub(crate) fn of_client(error: &hyper_util::client::legacy::Error) -> Self {
        // The outer texts only say that it failed.
        let (mut text, mut source) = (error.to_string(), error.source());
        while let Some(inner) = source {
            text = inner.to_string();
            source = inner.source();
        }
        if error.is_connect() {
            Self::Connect(text)
        } else {
            Self::NoAnswer(text)
        }
    }
}

impl From<api::Problem> for Error {
    fn from(problem: api::Problem) -> Self {
        Self::Problem(Box::new(Problem {
            problem,
            retry_after: None,
        }))
    }
}

//! What the service says about itself: whether it lives, whether it is ready, and what its errors mean.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ErrorCode;

/// The process lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always `ok`: a process that is not does not answer.
    #[schema(example = "ok")]
    pub status: String,
}

/// Whether requests can be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// All parts answer.
    pub ready: bool,
    /// The parts, one by one.
    pub parts: Vec<PartReadiness>,
}

/// Whether one part of the service answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartReadiness {
    /// Its name.
    #[schema(example = "database")]
    pub part: String,
    /// Whether it answers.
    pub ready: bool,
    /// What is missing, when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub missing: Option<String>,
}

/// A kind of problem: what the `type` of a problem document leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemKind {
    /// Stable name to branch on.
    pub code: ErrorCode,
    /// What it is called.
    pub title: String,
    /// The HTTP status it comes with.
    pub status: u16,
    /// Whether the same request can succeed later, unchanged.
    pub retryable: bool,
    /// Whether it is certain that the request changed nothing.
    pub had_no_effect: bool,
}

impl ProblemKind {
    /// The kind of `code`.
    #[must_use]
    pub fn of(code: ErrorCode) -> Self {
        Self {
            code,
            title: code.title().to_owned(),
            status: code.status(),
            retryable: code.is_retryable(),
            had_no_effect: code.had_no_effect(),
        }
    }
}

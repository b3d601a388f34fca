//! Health and readiness of a node, and the catalogue of problems.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::ErrorCode;

/// Liveness of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always `ok`: a process that is not alive does not respond.
    #[schema(example = "ok")]
    pub status: String,
}

/// Query parameters of a check of readiness.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadinessQuery {
    /// Part that does not count. Its state is reported all the same.
    #[param(inline, nullable = false)]
    pub exclude: Option<ReadinessPart>,
}

/// Part of the service that a node needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadinessPart {
    /// The database.
    Database,
    /// Object storage.
    ObjectStorage,
    /// The node itself, which may be stopping.
    Node,
}

impl ReadinessPart {
    /// All parts.
    pub const ALL: [Self; 3] = [Self::Database, Self::ObjectStorage, Self::Node];

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::ObjectStorage => "object_storage",
            Self::Node => "node",
        }
    }
}

/// Readiness of a node to serve requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether all parts that count are ready.
    pub ready: bool,
    /// Readiness of each part.
    pub parts: Vec<PartReadiness>,
}

/// Readiness of one part of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartReadiness {
    /// Name of the part.
    #[schema(example = "database")]
    pub part: String,
    /// Whether the part is ready.
    pub ready: bool,
    /// Reason why the part is not ready. Absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub missing: Option<String>,
}

/// A kind of problem; the `type` of a problem document leads to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemKind {
    /// Stable code, to branch on.
    pub code: ErrorCode,
    /// Title of the kind of problem.
    pub title: String,
    /// HTTP status of a response with this code.
    pub status: u16,
    /// Whether the same request can succeed later, unchanged.
    pub retryable: bool,
    /// Whether the request certainly changed nothing.
    pub had_no_effect: bool,
}

impl ProblemKind {
    /// The kind with this code.
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

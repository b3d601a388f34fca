//! Nodes on the wire, as operators see them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;

/// A node of the fleet that is up, or was a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Random, new at every start.
    #[schema(example = "1b4e28ba-2fa1-41d2-883f-0016d3cca427")]
    pub id: String,
    /// Version of the program.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was last heard, about once a second.
    pub seen_at: Timestamp,
}

//! Nodes on the wire, as the operator of the service sees them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;

/// A node of the service that is running, or was until a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceNode {
    /// Random id, new at every start of the node.
    #[schema(example = "1b4e28ba-2fa1-41d2-883f-0016d3cca427")]
    pub id: String,
    /// Version of the program.
    pub version: String,
    /// Time of its start.
    pub started_at: Timestamp,
    /// Time of its last heartbeat; a node sends one about every second.
    pub seen_at: Timestamp,
}

//! The audit log on the wire: who changed what in the control plane, and when.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::name::TenantName;

/// A change of the control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who: `key:<id>`, `token:<issuer>/<subject>`, `open` for a node that asks for no key, `cli` for the command line.
    #[schema(example = "key:5f0c7a1e9b3d2468")]
    pub actor: String,
    /// What was done.
    #[schema(example = "topic.put")]
    pub action: String,
    /// To what: a name or an id.
    #[schema(example = "orders")]
    pub target: String,
    /// The tenant that it belongs to; absent when it belongs to none, as an issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tenant: Option<TenantName>,
    /// What was asked for; never a secret.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
}

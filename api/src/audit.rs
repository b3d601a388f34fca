//! Entries of the audit log on the wire: which caller changed which resource of the control plane, and when.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::name::TenantName;

/// One change of the control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Time of the change.
    pub at: Timestamp,
    /// Caller that made the change: `key:<id>` for an API key, `token:<issuer>/<subject>` for a token, `open` for a
    /// request to a node that requires no key, `cli` for the command line.
    #[schema(example = "key:5f0c7a1e9b3d2468")]
    pub actor: String,
    /// Operation, as `<resource>.<verb>`.
    #[schema(example = "topic.put")]
    pub action: String,
    /// Name or id of the changed resource.
    #[schema(example = "orders")]
    pub target: String,
    /// Tenant that the resource belongs to. Absent when it belongs to none, such as an issuer of tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tenant: Option<TenantName>,
    /// Settings that the request carried, as a JSON object. Never contains a secret.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
}

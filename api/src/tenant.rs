//! Tenants on the wire, as operators see them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::error::FieldError;
use crate::limits::REASON_CHARS_MAX;
use crate::message::check_text;
use crate::name::TenantName;

/// Settings of a tenant. There are none yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantSettings {}

impl TenantSettings {
    /// The fields that are out of range.
    #[must_use]
    pub fn validate(&self) -> Vec<FieldError> {
        Vec::new()
    }
}

/// Why a tenant is suspended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Suspension {
    /// For the record; those who are refused are not told.
    #[schema(
        min_length = 1,
        max_length = 512,
        pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$"
    )]
    pub reason: Option<String>,
}

impl Suspension {
    /// The fields that are out of range.
    #[must_use]
    pub fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(reason) = &self.reason {
            let pointer = || "/reason".to_owned();
            check_text(&mut errors, pointer, reason, REASON_CHARS_MAX);
        }
        errors
    }
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// Whether its keys and tokens are refused.
    pub suspended: bool,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub suspended_reason: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last suspended or let in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub updated_at: Option<Timestamp>,
}

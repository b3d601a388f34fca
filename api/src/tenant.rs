//! Tenants on the wire, as operators see them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::error::FieldError;
use crate::limits::REASON_CHARS_MAX;
use crate::message::check_text;
use crate::name::TenantName;

/// Settings of a tenant. An absent field keeps its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantSettings {
    /// Whether its keys and tokens are refused, but for reading its usage; nothing of it is deleted but what retention
    /// ends. False when it is created without.
    pub suspended: Option<bool>,
    /// Why, for the record; those who are refused are not told.
    #[schema(
        min_length = 1,
        max_length = 512,
        pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$"
    )]
    pub suspended_reason: Option<String>,
}

impl TenantSettings {
    /// The fields that are out of range.
    #[must_use]
    pub fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(reason) = &self.suspended_reason {
            let pointer = || "/suspended_reason".to_owned();
            check_text(&mut errors, pointer, reason, REASON_CHARS_MAX);
            if self.suspended != Some(true) {
                let detail = "goes with suspended: true";
                errors.push(FieldError::new(pointer(), detail));
            }
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

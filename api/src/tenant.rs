//! Tenants on the wire, as operators see them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::limits::REASON_CHARS_MAX;
use crate::message::check_text;
use crate::name::{InvalidName, PlanName, TenantName};
use crate::validate::Validate;
use crate::{Day, Timestamp};

/// The plan of a tenant as it is put: a name, or nothing to take it away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$", max_length = 128)]
pub struct PlanChoice(pub Option<PlanName>);

impl TryFrom<String> for PlanChoice {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|plan| Self(Some(plan)))
    }
}

impl From<PlanChoice> for String {
    fn from(choice: PlanChoice) -> Self {
        choice.0.map_or_else(Self::new, Self::from)
    }
}

/// Settings of a tenant. What is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantSettings {
    /// Name of its price plan; an empty text takes it away. It prices what is used from `plan_from` on, until the day of
    /// another one that was given before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanChoice>,
    /// With `plan`: the day (UTC) from whose start the tenant has it; today when absent. A later day is a plan for the
    /// future. An earlier one is possible for the first plan of a tenant only, because what may have been billed does not
    /// change. Prices of another currency begin on the first day of a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_from: Option<Day>,
}

impl Validate for TenantSettings {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.plan.is_none() && self.plan_from.is_some() {
            errors.push(FieldError::new("/plan_from", "must come with a plan"));
        }
        errors
    }
}

/// A day from which a tenant has a price plan, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantPlan {
    /// From the start of this day (UTC) on, until the next one.
    pub valid_from: Day,
    /// Its plan; absent when its usage has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub plan: Option<PlanName>,
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

impl Validate for Suspension {
    fn validate(&self) -> Vec<FieldError> {
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
    /// Its price plan of today; absent when its usage has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub plan: Option<PlanName>,
    /// The plans that it had and will have, in order of time; before the first its usage has no price.
    pub plans: Vec<TenantPlan>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed: suspended, let in again, or given another plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub updated_at: Option<Timestamp>,
}

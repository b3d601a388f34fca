//! Tenants on the wire, as the operator of the service sees them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::limits::REASON_CHARS_MAX;
use crate::message::check_text;
use crate::name::{InvalidName, PlanName, TenantName};
use crate::validate::Validate;
use crate::{Day, Timestamp};

/// Name of a price plan, or an empty string for none.
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

/// Settings of a tenant. An absent field keeps its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantSettings {
    /// Name of the tenant's price plan; an empty string removes the plan. The plan prices usage from `plan_from` on,
    /// until the day of a later plan that was set before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanChoice>,
    /// Only with `plan`: day (UTC) from whose start the plan applies. Today when absent. A later day schedules the
    /// plan. An earlier day is accepted only for the first plan of a tenant, because usage that may have been billed
    /// keeps its price. A plan in another currency must begin on the first day of a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_from: Option<Day>,
}

impl Validate for TenantSettings {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.plan.is_none() && self.plan_from.is_some() {
            errors.push(FieldError::new("/plan_from", "is allowed only with plan"));
        }
        errors
    }
}

/// Price plan of a tenant from a given day on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantPlan {
    /// Day (UTC) from whose start the plan applies, until the next one does.
    pub valid_from: Day,
    /// Name of the price plan. Absent when usage from this day on has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub plan: Option<PlanName>,
}

/// Options of the suspension of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Suspension {
    /// Reason of the suspension, for the operator. It is not returned to the clients that are refused.
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
    /// Name of the tenant.
    pub name: TenantName,
    /// Whether the tenant is suspended: its keys and tokens are refused.
    pub suspended: bool,
    /// Reason of the suspension. Absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub suspended_reason: Option<String>,
    /// Current price plan. Absent when today's usage has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub plan: Option<PlanName>,
    /// Past, current and scheduled price plans, in order of time. Usage before the first one has no price.
    pub plans: Vec<TenantPlan>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time at which it was last suspended, resumed or given another price plan. Absent when it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub updated_at: Option<Timestamp>,
}

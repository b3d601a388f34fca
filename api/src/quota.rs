//! Quotas on the wire: the limits of a tenant and its current use of them. An absent limit means no limit.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::limits::{QUOTA, QUOTA_GUARANTEED};
use crate::topic::check_range;
use crate::validate::Validate;

/// Limit of a rate, for all nodes together. Requests within the guarantee are served even when the service is short of
/// capacity. Requests above it, up to the ceiling, are served while there is capacity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateQuota {
    /// Guaranteed amount per second. The whole ceiling when absent.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 0, maximum = 1_000_000_000_000_000_u64)]
    pub guaranteed: Option<u64>,
    /// Maximum per second. No limit when absent.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    pub ceiling: Option<u64>,
}

/// Limits of a tenant, for all nodes together. An absent limit means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Requests of any kind per second.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub requests_per_second: Option<RateQuota>,
    /// Published messages per second. Capacity for the guaranteed part is reserved for the tenant and may have an
    /// hourly price.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub messages_per_second: Option<RateQuota>,
    /// Bytes of published messages per second, including their attributes.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub bytes_per_second: Option<RateQuota>,
    /// Requests under way at the same time, including long polls.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    pub concurrent_requests: Option<u64>,
    /// Bytes of stored messages, as stored (compressed).
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    pub stored_bytes: Option<u64>,
    /// Number of topics.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    pub topics: Option<u64>,
    /// Number of subscriptions.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    pub subscriptions: Option<u64>,
    /// Messages handed out and not settled, over all subscriptions.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    pub in_flight_messages: Option<u64>,
}

impl Quota {
    /// Limits per second: requests, messages, bytes.
    #[must_use]
    pub const fn rates(&self) -> [Option<RateQuota>; 3] {
        [
            self.requests_per_second,
            self.messages_per_second,
            self.bytes_per_second,
        ]
    }
}

impl Validate for Quota {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let pointers = [
            "/requests_per_second",
            "/messages_per_second",
            "/bytes_per_second",
        ];
        for (pointer, rate) in pointers.into_iter().zip(self.rates()) {
            let RateQuota {
                guaranteed,
                ceiling,
            } = rate.unwrap_or_default();
            let at = format!("{pointer}/guaranteed");
            check_range(&mut errors, &at, guaranteed, &QUOTA_GUARANTEED);
            if let (Some(guaranteed), Some(ceiling)) = (guaranteed, ceiling)
                && guaranteed > ceiling
            {
                let detail = format!("must not be above the ceiling of {ceiling}");
                errors.push(FieldError::new(at, detail));
            }
            let at = format!("{pointer}/ceiling");
            check_range(&mut errors, &at, ceiling, &QUOTA);
        }
        for (pointer, cap) in [
            ("/concurrent_requests", self.concurrent_requests),
            ("/stored_bytes", self.stored_bytes),
            ("/topics", self.topics),
            ("/subscriptions", self.subscriptions),
            ("/in_flight_messages", self.in_flight_messages),
        ] {
            check_range(&mut errors, pointer, cap, &QUOTA);
        }
        errors
    }
}

/// Current use of a tenant's quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaUse {
    /// Admitted requests per second, measured over about the last half second.
    pub requests_per_second: u64,
    /// Published messages per second, measured in the same way.
    pub messages_per_second: u64,
    /// Published bytes per second, measured in the same way.
    pub bytes_per_second: u64,
    /// Requests under way on the node that responds.
    pub concurrent_requests: u64,
    /// Number of topics.
    pub topics: u64,
    /// Number of subscriptions.
    pub subscriptions: u64,
    /// Approximate bytes of stored messages. Present only when they are limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stored_bytes: Option<u64>,
    /// Approximate number of messages handed out and not settled. Present only when they are limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub in_flight_messages: Option<u64>,
}

/// Quota of a tenant and its current use. Rates are measured only for a tenant with at least one limit; otherwise they
/// are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaStatus {
    /// Limits of the tenant.
    pub limits: Quota,
    /// Current use.
    pub used: QuotaUse,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(quota: &str) -> Vec<String> {
        let quota: Quota = serde_json::from_str(quota).unwrap();
        let errors = quota.validate().into_iter();
        errors.map(|error| error.pointer).collect()
    }

    #[test]
    fn a_guarantee_is_not_above_its_ceiling() {
        assert_eq!(
            wrong(r#"{"requests_per_second":{"guaranteed":0,"ceiling":5},"topics":1}"#),
            [""; 0]
        );
        assert_eq!(wrong("{}"), [""; 0]);
        assert_eq!(
            wrong(r#"{"bytes_per_second":{"guaranteed":6,"ceiling":5}}"#),
            ["/bytes_per_second/guaranteed"]
        );
        assert_eq!(
            wrong(r#"{"messages_per_second":{"ceiling":0},"topics":0,"stored_bytes":1e15}"#),
            ["/messages_per_second/ceiling", "/topics"]
        );
    }

    #[test]
    fn an_absent_limit_is_not_shown() {
        let text = r#"{"messages_per_second":{"ceiling":7}}"#;
        let quota: Quota = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&quota).unwrap(), text);
    }
}

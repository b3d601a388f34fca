//! Quotas on the wire: what a tenant may do, and how much of it is in use at the moment. An absent limit is no limit.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::limits::{QUOTA, QUOTA_GUARANTEED};
use crate::topic::check_range;
use crate::validate::Validate;

/// A rate of the whole fleet. What is inside the guarantee is served also when the service is short of capacity; what is
/// above it is served up to the ceiling while there is room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateQuota {
    /// Guaranteed each second; absent: everything up to the ceiling is.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 0, maximum = 1_000_000_000_000_000_u64)]
    pub guaranteed: Option<u64>,
    /// The most in a second; absent: no limit.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    pub ceiling: Option<u64>,
}

/// The limits of a tenant. They hold for all nodes together; an absent one is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Requests of any kind.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub requests_per_second: Option<RateQuota>,
    /// Messages published. What is guaranteed of it is kept free for the tenant and may have a price by the hour.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub messages_per_second: Option<RateQuota>,
    /// Bytes of messages published, their attributes included.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub bytes_per_second: Option<RateQuota>,
    /// Requests at the same time, long polls included.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    pub concurrent_requests: Option<u64>,
    /// Bytes of messages kept, as stored.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    pub stored_bytes: Option<u64>,
    /// Topics.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    pub topics: Option<u64>,
    /// Subscriptions.
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
    /// What is limited by the second: requests, messages, bytes.
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

/// What a tenant uses at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaUse {
    /// Requests admitted in the last half second or so, as a rate.
    pub requests_per_second: u64,
    /// Messages published, in the same way.
    pub messages_per_second: u64,
    /// Bytes published, in the same way.
    pub bytes_per_second: u64,
    /// Requests under way on this node.
    pub concurrent_requests: u64,
    /// Topics.
    pub topics: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Bytes of messages kept, about; only where there is a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stored_bytes: Option<u64>,
    /// Messages handed out and not settled, about; only where there is a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub in_flight_messages: Option<u64>,
}

/// The quota of a tenant and its use. Rates are measured where there is any limit; elsewhere they are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaStatus {
    /// What it may do.
    pub limits: Quota,
    /// What it does at the moment.
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
    fn what_is_no_limit_is_not_shown() {
        let text = r#"{"messages_per_second":{"ceiling":7}}"#;
        let quota: Quota = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&quota).unwrap(), text);
    }
}

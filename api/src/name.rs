//! Names of topics, subscriptions, tenants, issuers, price plans, budgets and event sinks. They are validated when
//! parsed, so a value of these types is always a valid name. All share one pattern; a type for each keeps them from
//! being mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::NAME_CHARS_MAX;

/// The text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to 128 characters of A-Z a-z 0-9 . _ - and starts with a letter or digit")]
pub struct InvalidName;

/// Whether a text matches the pattern of a name.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= NAME_CHARS_MAX
        && text
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric)
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", min_length = 1, max_length = 128)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                if is_name(&text) { Ok(Self(text)) } else { Err(InvalidName) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// Name of a topic, unique within its tenant.
    TopicName
}
name! {
    /// Name of a subscription, unique within its tenant.
    SubscriptionName
}
name! {
    /// Name of a tenant.
    TenantName
}
name! {
    /// Name of an issuer of tokens in this service.
    IssuerName
}
name! {
    /// Name of a price plan.
    PlanName
}
name! {
    /// Name of a budget, unique within its tenant.
    BudgetName
}
name! {
    /// Name of an event sink, unique within its tenant.
    EventSinkName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_accepted_or_refused_by_its_pattern() {
        for good in ["a", "0", "orders", "orders.eu-1_x", &"a".repeat(128)] {
            assert!(good.parse::<TopicName>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "_a", "a b", "a/b", "ä", &"a".repeat(129)] {
            assert!(bad.parse::<TopicName>().is_err(), "{bad}");
        }
    }
}

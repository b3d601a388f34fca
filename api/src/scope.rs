//! Scopes: the permissions of a key or token. `publish` covers all topics, `publish:orders.*` those whose names begin
//! with `orders.`. Scopes are validated when parsed; the HTTP layer decides which scope a route requires.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::name::is_name;
use crate::text::as_text;

/// Kind of operation that a scope permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permission {
    /// Publish to topics.
    Publish,
    /// Receive from subscriptions, settle, and read messages of topics without consuming them.
    Receive,
    /// Create, change, delete and list topics, subscriptions and other resources of the tenant.
    Manage,
    /// Read usage and its cost.
    Usage,
    /// Operate the service: tenants, keys, issuers. The names in its scopes are names of tenants.
    Admin,
}

impl Permission {
    /// All permissions.
    pub const ALL: [Self; 5] = [
        Self::Publish,
        Self::Receive,
        Self::Manage,
        Self::Usage,
        Self::Admin,
    ];

    /// The permission as written in a scope.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Receive => "receive",
            Self::Manage => "manage",
            Self::Usage => "usage",
            Self::Admin => "admin",
        }
    }
}

/// The text is not a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a scope is publish, receive, manage, usage or admin, or one of them with a name or a prefix of names, such as publish:orders.*"
)]
pub struct InvalidScope;

/// A permission, for all names or for some.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope {
    permission: Permission,
    names: Names,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Names {
    All,
    One(String),
    Prefix(String),
}

impl Scope {
    /// A scope of the permission for all names.
    #[must_use]
    pub const fn all(permission: Permission) -> Self {
        Self {
            permission,
            names: Names::All,
        }
    }

    /// Permission of the scope.
    #[must_use]
    pub const fn permission(&self) -> Permission {
        self.permission
    }

    /// Whether the scope covers all names.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        self.names == Names::All
    }

    /// What both scopes permit: the narrower of the two where one lies inside the other.
    #[must_use]
    pub fn both(&self, other: &Self) -> Option<Self> {
        let inner = if other.includes(self) { self } else { other };
        (self.includes(inner) && other.includes(inner)).then(|| inner.clone())
    }

    /// Whether the scope permits all that `other` does.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        let includes_names = match (&self.names, &other.names) {
            (Names::All, _) => true,
            (_, Names::All) | (Names::One(_), Names::Prefix(_)) => false,
            (_, Names::One(name)) => self.covers(name),
            (Names::Prefix(prefix), Names::Prefix(longer)) => longer.starts_with(prefix),
        };
        self.permission == other.permission && includes_names
    }

    /// Whether the scope covers `name`.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        match &self.names {
            Names::All => true,
            Names::One(one) => one == name,
            Names::Prefix(prefix) => name.starts_with(prefix),
        }
    }
}

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        let (word, names) = match text.split_once(':') {
            Some((word, names)) => (word, Some(names)),
            None => (text, None),
        };
        let permission = Permission::ALL.into_iter().find(|p| p.as_str() == word);
        let names = match names {
            None | Some("*") => Names::All,
            Some(names) => match names.strip_suffix('*') {
                Some(prefix) if is_name(prefix) => Names::Prefix(prefix.to_owned()),
                None if is_name(names) => Names::One(names.to_owned()),
                Some(_) | None => return Err(InvalidScope),
            },
        };
        Ok(Self {
            permission: permission.ok_or(InvalidScope)?,
            names,
        })
    }
}

impl PartialSchema for Scope {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(
                r"^(publish|receive|manage|usage|admin)(:([A-Za-z0-9][A-Za-z0-9._-]{0,127}\*?|\*))?$",
            ))
            .examples(["publish:orders.*"])
            .description(Some("A permission for all names, for one name (`publish:orders`) or for the names with a prefix (`publish:orders.*`)"))
            .into()
    }
}

impl ToSchema for Scope {}

as_text! {
    Scope, InvalidScope;
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.permission.as_str())?;
        match &self.names {
            Names::All => Ok(()),
            Names::One(name) => write!(f, ":{name}"),
            Names::Prefix(prefix) => write!(f, ":{prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_permission_for_all_one_or_some_names() {
        for (text, covered, not) in [
            ("publish", "anything", None),
            ("receive:orders", "orders", Some("orders.eu")),
            ("publish:orders.*", "orders.eu", Some("orders")),
        ] {
            let scope: Scope = text.parse().unwrap();
            assert_eq!(scope.to_string(), text);
            assert!(scope.covers(covered), "{text} {covered}");
            assert!(not.is_none_or(|name| !scope.covers(name)), "{text}");
        }
        assert_eq!("usage:*".parse(), Ok(Scope::all(Permission::Usage)));
    }

    #[test]
    fn two_scopes_permit_together_what_each_of_them_permits() {
        for (one, other, both) in [
            ("publish", "publish", Some("publish")),
            ("publish", "receive", None),
            ("publish", "publish:a", Some("publish:a")),
            ("publish:a.*", "publish:a.b.*", Some("publish:a.b.*")),
            ("publish:a.*", "publish:a.b", Some("publish:a.b")),
            ("publish:a.*", "publish:b.*", None),
            ("publish:a*", "publish:a", Some("publish:a")),
            ("publish:a", "publish:b", None),
            ("admin", "manage", None),
        ] {
            let (one, other): (Scope, Scope) = (one.parse().unwrap(), other.parse().unwrap());
            let expected = both.map(|text| text.parse().unwrap());
            assert_eq!(one.both(&other), expected, "{one} {other}");
            assert_eq!(other.both(&one), expected, "{other} {one}");
            assert_eq!(one.includes(&other), expected.as_ref() == Some(&other));
        }
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for text in [
            "",
            "eat",
            "Publish",
            "publish:",
            "publish:a b",
            "publish:*a",
            "publish:a*b",
            "publish:.a",
            "publish:a:b",
            "publish ",
            "admin:**",
        ] {
            assert_eq!(text.parse::<Scope>(), Err(InvalidScope), "{text}");
        }
    }
}

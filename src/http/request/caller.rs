//! The caller of a request and its permission: the key or token in `Authorization: Bearer <…>` is checked against the
//! requirement of the route. These are extractors, so a handler cannot read a tenant's resource without a requirement
//! (I7), and gets a name in the path only together with the permission for it. For a request without a key the engine
//! decides: embedded mode has one tenant. The request also counts against the tenant's quota here.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use api::{EventSinkName, Permission, SubscriptionName, TenantName, TopicName};
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::path::Named;
use super::{admission, forwarded, path, query};
use crate::engine::{Access, Capacity, Engine};
use crate::http::answer::problem::Refusal;
use crate::listen::Peer;

/// The requirement of a route.
pub(in crate::http) trait Requirement: Send + Sync {
    /// The caller needs one of these permissions.
    const PERMISSIONS: &'static [Permission];
    /// Whether the route reads its query. All other routes refuse any query parameter, because the client expects an
    /// effect of it.
    const READS_QUERY: bool = false;
    /// Whether the request is refused above the tenant's guarantee while the service is short of capacity.
    const YIELDS: bool = true;
}

macro_rules! requirements {
    ($($(#[$doc:meta])* $name:ident: $($permission:ident)+ $(, $reads_query:literal)?;)+) => {
        $(
            $(#[$doc])*
            pub(in crate::http) struct $name;

            impl Requirement for $name {
                const PERMISSIONS: &'static [Permission] = &[$(Permission::$permission),+];
                $(const READS_QUERY: bool = $reads_query;)?
            }
        )+
    };
}

requirements! {
    /// Publishing to a topic.
    Publish: Publish;
    /// Receiving messages of a subscription, or reading a message.
    Receive: Receive;
    /// Browsing the messages of a topic.
    BrowseTopic: Receive, true;
    /// Creating, changing or deleting a resource.
    Manage: Manage;
    /// Listing resources.
    List: Manage, true;
    /// Reading the settings and stats of a topic.
    SeeTopic: Manage Publish Receive;
    /// Reading the settings and stats of a subscription.
    SeeSubscription: Manage Receive;
    /// Reading usage.
    SeeUsage: Usage, true;
    /// Reading the cost of all usage.
    SeeCosts: Usage;
    /// Reading the quota.
    SeeQuota: Manage Usage;
    /// Operating a tenant.
    Operate: Admin;
    /// Listing tenants and their resources.
    OperateList: Admin, true;
}

/// Settling messages of a subscription. It makes room, so it is served also when publishes and receives are refused.
pub(in crate::http) struct Settle;

impl Requirement for Settle {
    const PERMISSIONS: &'static [Permission] = Receive::PERMISSIONS;
    const YIELDS: bool = false;
}

/// An authenticated caller whose request was admitted by its quota.
pub(in crate::http) struct Admitted {
    access: Arc<Access>,
    /// The capacity that serves the request.
    pub(in crate::http) capacity: Capacity,
}

impl Admitted {
    /// The caller, for work that continues after the handler returns.
    pub(in crate::http) fn access(&self) -> Arc<Access> {
        self.access.clone()
    }
}

impl Deref for Admitted {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

/// A caller that meets requirement `A` for at least one name.
pub(in crate::http) struct Caller<A>(
    pub(in crate::http) Admitted,
    pub(in crate::http) PhantomData<A>,
);

/// A caller that meets requirement `A` for the name in the path.
pub(in crate::http) struct To<A, N>(
    pub(in crate::http) Admitted,
    pub(in crate::http) N,
    pub(in crate::http) PhantomData<A>,
);

/// A kind of name that scopes can restrict.
pub(in crate::http) trait PathName:
    Named + FromStr<Err: Display> + Display + Send
{
    /// The name as text.
    fn text(&self) -> &str;
}

macro_rules! path_name {
    ($($name:ident)+) => {
        $(impl PathName for $name {
            fn text(&self) -> &str {
                self.as_str()
            }
        })+
    };
}

path_name!(TopicName SubscriptionName TenantName EventSinkName);

/// Handlers put `To<_, TopicName>` into their `params`: the extractor also documents the parameter.
impl<A, N: Named> IntoParams for To<A, N> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![path::parameter::<N>()]
    }
}

impl<A: Requirement> FromRequestParts<Engine> for Caller<A> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<Self, Refusal> {
        let access = authenticate(parts, engine).await?;
        engine.gate().permit(&access, A::PERMISSIONS, None).await?;
        check_query::<A>(parts)?;
        let caller = admitted::<A>(access, parts, engine).await?;
        Ok(Self(caller, PhantomData))
    }
}

impl<A: Requirement, N: PathName> FromRequestParts<Engine> for To<A, N> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<Self, Refusal> {
        let access = authenticate(parts, engine).await?;
        // Checked first: a caller without the permission for any name must not learn whether a name is valid.
        engine.gate().permit(&access, A::PERMISSIONS, None).await?;
        let name: N = path::parse(parts, N::PARAMETER).await?;
        let name_text = Some(name.text());
        engine
            .gate()
            .permit(&access, A::PERMISSIONS, name_text)
            .await?;
        check_query::<A>(parts)?;
        let caller = admitted::<A>(access, parts, engine).await?;
        Ok(Self(caller, name, PhantomData))
    }
}

fn check_query<A: Requirement>(parts: &Parts) -> Result<(), Refusal> {
    if A::READS_QUERY {
        return Ok(());
    }
    query::none(&parts.uri)
}

async fn admitted<A: Requirement>(
    access: Arc<Access>,
    parts: &Parts,
    engine: &Engine,
) -> Result<Admitted, Refusal> {
    let capacity = admission::admit(parts, engine, access.tenant(), A::YIELDS).await?;
    Ok(Admitted { access, capacity })
}

async fn authenticate(parts: &Parts, engine: &Engine) -> Result<Arc<Access>, Refusal> {
    let header = parts.headers.get(AUTHORIZATION);
    let bearer = header.and_then(|value| bearer(value.to_str().ok()?));
    let gate = engine.gate();
    let client = parts.extensions.get().map(|Peer(address)| {
        forwarded::client(&parts.headers, *address, |peer| gate.is_trusted_proxy(peer))
    });
    Ok(gate.authenticate(bearer, client).await?)
}

/// The key or token in the value of an `Authorization` header. The scheme is case-insensitive.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| key.trim())
        .filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_key_is_a_key() {
        assert_eq!(bearer("Bearer k"), Some("k"));
        assert_eq!(bearer("bearer  k "), Some("k"));
        for none in ["Basic k", "k", "Bearer ", ""] {
            assert_eq!(bearer(none), None, "{none}");
        }
    }
}

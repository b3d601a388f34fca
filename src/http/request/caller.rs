//! Who calls, and whether they may: the key or token in `Authorization: Bearer <…>` and what the route asks for. Extractors,
//! so that a handler of a tenant's resource cannot be written without saying what it takes (I7), and gets a name from the
//! path only together with the permission for it. Without a key the engine decides: the embedded mode has one tenant. Here
//! also a request is counted against the tenant's quota.

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
use super::{admission, path, query};
use crate::engine::{Access, Capacity, Engine};
use crate::http::answer::problem::Refusal;
use crate::listen::Peer;

/// What a route asks of its caller.
pub(in crate::http) trait Asks: Send + Sync {
    /// One of these permissions.
    const PERMISSIONS: &'static [Permission];
    /// Whether the route reads its query. A route that does not refuses any parameter, because its sender expects an effect.
    const READS_QUERY: bool = false;
}

macro_rules! asks {
    ($($(#[$doc:meta])* $name:ident: $($permission:ident)+ $(, $reads_query:literal)?;)+) => {
        $(
            $(#[$doc])*
            pub(in crate::http) struct $name;

            impl Asks for $name {
                const PERMISSIONS: &'static [Permission] = &[$(Permission::$permission),+];
                $(const READS_QUERY: bool = $reads_query;)?
            }
        )+
    };
}

asks! {
    /// To publish to a topic.
    Publish: Publish;
    /// To receive from a subscription and settle, or to look at a message.
    Receive: Receive;
    /// To browse the messages of a topic.
    BrowseTopic: Receive, true;
    /// To create, change or delete.
    Manage: Manage;
    /// To list what there is.
    List: Manage, true;
    /// To look at the settings and stats of a topic.
    SeeTopic: Manage Publish Receive;
    /// To look at the settings and stats of a subscription.
    SeeSubscription: Manage Receive;
    /// To read what was used.
    SeeUsage: Usage, true;
    /// To read what all usage costs.
    SeeCosts: Usage;
    /// To see the quota.
    SeeQuota: Manage Usage;
    /// To operate a tenant.
    Operate: Admin;
    /// To list tenants and what belongs to them.
    OperateList: Admin, true;
}

/// A caller that is authenticated, and whose quota has room for this request.
pub(in crate::http) struct Admitted {
    access: Arc<Access>,
    /// What the request is served from.
    pub(in crate::http) capacity: Capacity,
}

impl Admitted {
    /// The caller, for work that outlives the request.
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

/// A caller with a permission that `A` asks for, for at least one name.
pub(in crate::http) struct Caller<A>(
    pub(in crate::http) Admitted,
    pub(in crate::http) PhantomData<A>,
);

/// A caller with a permission that `A` asks for, for the name in the path.
pub(in crate::http) struct To<A, N>(
    pub(in crate::http) Admitted,
    pub(in crate::http) N,
    pub(in crate::http) PhantomData<A>,
);

/// A name in the path that scopes go by.
pub(in crate::http) trait PathName:
    Named + FromStr<Err: Display> + Display + Send
{
    /// As text.
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

/// A handler names `To<_, TopicName>` in its `params`: the parameter is documented by what reads it.
impl<A, N: Named> IntoParams for To<A, N> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![path::parameter::<N>()]
    }
}

impl<A: Asks> FromRequestParts<Engine> for Caller<A> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<Self, Refusal> {
        let access = authenticate(parts, engine).await?;
        access.check(A::PERMISSIONS, None)?;
        check_query::<A>(parts)?;
        Ok(Self(admitted(access, parts, engine).await?, PhantomData))
    }
}

impl<A: Asks, N: PathName> FromRequestParts<Engine> for To<A, N> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<Self, Refusal> {
        let access = authenticate(parts, engine).await?;
        // A caller without the permission for any name learns nothing about names.
        access.check(A::PERMISSIONS, None)?;
        let name: N = path::parse(parts, N::PARAMETER).await?;
        access.check(A::PERMISSIONS, Some(name.text()))?;
        check_query::<A>(parts)?;
        let caller = admitted(access, parts, engine).await?;
        Ok(Self(caller, name, PhantomData))
    }
}

fn check_query<A: Asks>(parts: &Parts) -> Result<(), Refusal> {
    if A::READS_QUERY {
        return Ok(());
    }
    query::none(&parts.uri)
}

async fn admitted(
    access: Arc<Access>,
    parts: &Parts,
    engine: &Engine,
) -> Result<Admitted, Refusal> {
    let capacity = admission::admit(parts, engine, access.tenant()).await?;
    Ok(Admitted { access, capacity })
}

async fn authenticate(parts: &Parts, engine: &Engine) -> Result<Arc<Access>, Refusal> {
    let header = parts.headers.get(AUTHORIZATION);
    let bearer = header.and_then(|value| bearer(value.to_str().ok()?));
    let peer = parts.extensions.get().map(|Peer(address)| *address);
    Ok(engine.gate().authenticate(bearer, peer).await?)
}

/// The key or token in the value of an `Authorization` header; the scheme is written in any case.
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

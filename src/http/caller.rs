//! Who calls: the tenant of the API key in `Authorization: Bearer <key>`. An extractor, so that a handler of a tenant's
//! resource cannot be written without one (I7). Without a key the engine decides: the embedded mode has one tenant. Here
//! also a request is counted against the tenant's quota.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::problem::Refusal;
use super::{admission, query};
use crate::engine::{Engine, Tenant};

/// The tenant that a request acts for, on a route that takes no query: a parameter that nobody reads is refused, because
/// whoever sent it believes that it does something.
pub(super) struct Caller(pub(super) Tenant);

/// The same on a route that reads its query.
pub(super) struct Asker(pub(super) Tenant);

impl FromRequestParts<Engine> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<Self, Refusal> {
        let tenant = tenant(parts, engine).await?;
        query::none(&parts.uri)?;
        admission::admit(parts, engine, tenant).await?;
        Ok(Self(tenant))
    }
}

impl FromRequestParts<Engine> for Asker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<Self, Refusal> {
        let tenant = tenant(parts, engine).await?;
        admission::admit(parts, engine, tenant).await?;
        Ok(Self(tenant))
    }
}

async fn tenant(parts: &Parts, engine: &Engine) -> Result<Tenant, Refusal> {
    let header = parts.headers.get(AUTHORIZATION);
    let key = header.and_then(|value| bearer(value.to_str().ok()?));
    Ok(engine.authenticate(key).await?)
}

/// The key in the value of an `Authorization` header; the scheme is written in any case.
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

//! Access by token (JWT, RFC 7519). A token is valid when a registered issuer signed it with an algorithm that the
//! issuer's settings allow, when its audience is this service, and when it is not expired. Its claims name the tenant
//! and the scopes, and permit nothing beyond the ceiling of its issuer (`ceiling`). `jws` reads its form.

use std::sync::Arc;

use api::limits::{SCOPES_MAX, TOKEN_CHARS_MAX};
use api::{Scope, TenantName};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use crate::engine::access::ceiling::{Withheld, split};
use crate::engine::access::issuers::Issuer;
use crate::engine::access::jws::{self, Jws};
use crate::engine::access::{Access, Gate, Tenant};
use crate::engine::error::Error;
use crate::store;
use crate::store::issuer::IssuerRow;

/// Characters of the `sub` claim that the audit log keeps.
const SUBJECT_CHARS: usize = 256;

/// The claims of a token.
type Claims = Map<String, Value>;

impl Gate {
    pub(super) async fn by_token(&self, token: &str) -> Result<Access, Error> {
        if token.len() > TOKEN_CHARS_MAX {
            return Err(Error::Unauthenticated);
        }
        let jws = Jws::parse(token).ok_or(Error::Unauthenticated)?;
        // The signature is not verified yet: this claim only selects the issuer whose keys verify it.
        let issuer = text(&jws.claims, "iss")?.and_then(|iss| self.issuers.get(iss));
        let issuer = issuer.ok_or(Error::Unauthenticated)?;
        if !allows(&issuer.row, jws.algorithm) {
            return Err(Error::Unauthenticated);
        }
        self.verify(&jws, &issuer).await?;
        let claims = &jws.claims;
        if !is_for(claims, &issuer.row.audiences) {
            return Err(Error::Unauthenticated);
        }
        let expires_at = check_time(claims, &issuer.row, self.clock.estimate())?;
        let subject = text(claims, "sub")?.unwrap_or_default();
        let subject: String = subject.chars().take(SUBJECT_CHARS).collect();
        // A scope that this version does not know permits nothing.
        let ceiling = issuer.row.scopes.iter();
        let ceiling: Vec<Scope> = ceiling.filter_map(|scope| scope.parse().ok()).collect();
        let (scopes, above) = split(&scopes(claims, &issuer.row.scope_claim), &ceiling);
        let (tenant, suspended) = self.tenant_of(claims, &issuer.row).await?;
        let actor = format!("token:{}/{subject}", issuer.row.name);
        Ok(Access {
            suspended,
            expires_at: Some(expires_at),
            withheld: Withheld::new(&issuer.row.name, above),
            ..Access::new(tenant, actor, scopes)
        })
    }

    /// Checks that one of the issuer's keys signed the token. Fetches the keys again when it may have been one that is
    /// not known yet.
    async fn verify(&self, jws: &Jws<'_>, issuer: &Arc<Issuer>) -> Result<(), Error> {
        let id = jws.key_id.as_deref();
        let keys = &issuer.keys;
        let is_signed = || jws.is_signed_by(&keys.candidates(jws.algorithm, id));
        let is_known = || keys.names(jws.algorithm, id);
        let now = self.clock.estimate();
        if keys.is_trusted(now) && is_signed() {
            return Ok(());
        }
        if !keys.is_trusted(now) || !is_known() {
            self.fetch_keys(issuer).await;
            if !keys.is_trusted(now) {
                return Err(Error::Unavailable("the issuer of the token"));
            }
            if is_signed() {
                return Ok(());
            }
        }
        Err(Error::Unauthenticated)
    }

    async fn tenant_of(
        &self,
        claims: &Claims,
        issuer: &IssuerRow,
    ) -> Result<(Tenant, bool), Error> {
        let no_tenant = || Error::Forbidden("the token names no tenant of this service".to_owned());
        let name = match (&issuer.tenant, &issuer.tenant_claim) {
            (Some(tenant), _) => Some(&**tenant),
            (None, Some(claim)) => claims.get(claim).and_then(Value::as_str),
            (None, None) => None,
        };
        let name: TenantName = name
            .and_then(|name| name.parse().ok())
            .ok_or_else(no_tenant)?;
        let mut session = self.store.session().await?;
        let row = store::tenant::by_name(&mut session, name.as_str())
            .await?
            .ok_or_else(no_tenant)?;
        Ok((Tenant(row.tenant_id), row.suspended_at.is_some()))
    }
}

/// Whether an issuer's settings allow this algorithm.
fn allows(issuer: &IssuerRow, algorithm: Algorithm) -> bool {
    let mut allowed = issuer.algorithms.iter();
    allowed.any(|name| jws::algorithm(name) == Some(algorithm))
}

/// A claim that must be text where it is present.
fn text<'a>(claims: &'a Claims, name: &str) -> Result<Option<&'a str>, Error> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::Unauthenticated),
    }
}

/// Whether the token is for one of these audiences.
fn is_for(claims: &Claims, audiences: &[String]) -> bool {
    let is_ours = |name: &Value| audiences.iter().any(|ours| name == ours);
    match claims.get("aud") {
        Some(Value::Array(names)) => names.iter().any(is_ours),
        Some(name) => is_ours(name),
        None => false,
    }
}

/// Refuses a token that is expired or not valid yet; returns when it expires, clock skew included.
fn check_time(
    claims: &Claims,
    issuer: &IssuerRow,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, Error> {
    let skew = Duration::seconds(i64::from(issuer.clock_skew_seconds));
    let seconds = |name| match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(time) => time.as_f64().map(Some).ok_or(Error::Unauthenticated),
    };
    let ends = seconds("exp")?.ok_or(Error::Unauthenticated)?;
    let expires_at = at(ends) + skew;
    let begins_at = seconds("nbf")?.map(at);
    if expires_at <= now || begins_at.is_some_and(|begins_at| begins_at - skew > now) {
        return Err(Error::Unauthenticated);
    }
    Ok(expires_at)
}

/// A time in seconds since 1970, limited to years that Postgres can store.
fn at(seconds: f64) -> OffsetDateTime {
    let most = f64::from(u32::MAX) * 50.0;
    OffsetDateTime::UNIX_EPOCH + Duration::seconds_f64(seconds.clamp(0.0, most))
}

/// The scopes in a claim. Other words in it belong to other services and are ignored.
fn scopes(claims: &Claims, claim: &str) -> Vec<Scope> {
    let words: Vec<&str> = match claims.get(claim) {
        Some(Value::String(text)) => text.split(' ').collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let scopes = words.iter().filter_map(|word| word.parse().ok());
    scopes.take(SCOPES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(text: &str) -> Claims {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn scopes_stand_in_a_text_or_a_list_among_other_words() {
        for text in [
            r#"{"exp":1,"scope":"openid publish:a.* profile receive"}"#,
            r#"{"exp":1,"scope":["openid","publish:a.*",7,"receive"]}"#,
        ] {
            let scopes = scopes(&claims(text), "scope");
            let texts: Vec<_> = scopes.iter().map(ToString::to_string).collect();
            assert_eq!(texts, ["publish:a.*", "receive"]);
        }
        assert!(scopes(&claims(r#"{"exp":1}"#), "scope").is_empty());
    }

    #[test]
    fn the_audience_is_a_text_or_a_list() {
        let ours = ["a".to_owned(), "b".to_owned()];
        for (text, is_ours) in [
            (r#"{"aud":"a"}"#, true),
            (r#"{"aud":["x","b"]}"#, true),
            (r#"{"aud":"x"}"#, false),
            (r#"{"aud":["x"]}"#, false),
            (r#"{"aud":[]}"#, false),
            (r#"{"aud":[["a"]]}"#, false),
            (r#"{"aud":null}"#, false),
            (r#"{}"#, false),
        ] {
            assert_eq!(is_for(&claims(text), &ours), is_ours, "{text}");
        }
    }

    #[test]
    fn times_of_tokens_are_never_out_of_range() {
        assert_eq!(at(-1.0), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(at(f64::MAX), at(f64::from(u32::MAX) * 50.0));
        assert_eq!(at(1.5).unix_timestamp_nanos(), 1_500_000_000);
    }
}

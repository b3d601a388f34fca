//! Access by token (JWT, RFC 7519). A token is valid when a registered issuer signed it with an algorithm that the
//! issuer's settings allow, when its audience is this service, and when it is not expired. Its claims name the tenant
//! and the scopes. The token's header does not choose how it is verified: each key verifies one algorithm only, and
//! neither HMAC nor `none` is ever accepted.

use api::issuer::TokenAlgorithm;
use api::limits::{SCOPES_MAX, TOKEN_CHARS_MAX};
use api::{Scope, TenantName};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use crate::engine::access::key_sets::PublicKey;
use crate::engine::access::{Access, Gate, Tenant};
use crate::engine::error::Error;
use crate::store;
use crate::store::issuer::IssuerRow;

/// Characters of the `sub` claim that the audit log keeps.
const SUBJECT_CHARS: usize = 256;

/// Whether a bearer value has the form of a token: three parts separated by dots. An API key contains no dot.
pub(super) fn is_token(bearer: &str) -> bool {
    bearer.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The claims of a token: those that are always checked, and all others.
#[derive(Debug, Deserialize)]
struct Claims {
    exp: f64,
    nbf: Option<f64>,
    sub: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Gate {
    pub(super) async fn by_token(&self, token: &str) -> Result<Access, Error> {
        #[derive(Deserialize)]
        struct Iss {
            iss: String,
        }
        if token.len() > TOKEN_CHARS_MAX {
            return Err(Error::Unauthenticated);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Error::Unauthenticated)?;
        // The signature is not verified yet: this claim only selects the issuer whose keys verify it.
        let unchecked = jsonwebtoken::dangerous::insecure_decode_claims::<Iss>(token);
        let Iss { iss } = unchecked.map_err(|_| Error::Unauthenticated)?;
        let issuer = self.issuers.get(&iss).ok_or(Error::Unauthenticated)?;
        if !allows(&issuer.row, header.alg) {
            return Err(Error::Unauthenticated);
        }
        let keys = self
            .public_keys(&issuer, header.alg, header.kid.as_deref())
            .await?;
        let claims = verify(token, &issuer.row, header.alg, &keys)?;
        let expires_at = check_time(&claims, &issuer.row, self.clock.estimate())?;
        let scopes = scopes(&claims, &issuer.row.scope_claim);
        let (tenant, suspended) = self.tenant_of(&claims, &issuer.row).await?;
        let subject: String = claims
            .sub
            .iter()
            .flat_map(|sub| sub.chars())
            .take(SUBJECT_CHARS)
            .collect();
        let actor = format!("token:{}/{subject}", issuer.row.name);
        Ok(Access {
            suspended,
            expires_at: Some(expires_at),
            ..Access::new(tenant, actor, scopes)
        })
    }

    async fn tenant_of(
        &self,
        claims: &Claims,
        issuer: &IssuerRow,
    ) -> Result<(Tenant, bool), Error> {
        let no_tenant = || Error::Forbidden("the token names no tenant of this service".to_owned());
        let name = match (&issuer.tenant, &issuer.tenant_claim) {
            (Some(tenant), _) => Some(&**tenant),
            (None, Some(claim)) => claims.others.get(claim).and_then(Value::as_str),
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
    let known = [
        (Algorithm::RS256, TokenAlgorithm::RS256),
        (Algorithm::ES256, TokenAlgorithm::ES256),
        (Algorithm::EdDSA, TokenAlgorithm::EdDsa),
    ];
    let named = |name: &str| issuer.algorithms.iter().any(|allowed| allowed == name);
    known
        .into_iter()
        .any(|(of_token, ours)| of_token == algorithm && named(ours.as_str()))
}

/// Verifies that one of the keys signed the token for this service, and returns its claims.
fn verify(
    token: &str,
    issuer: &IssuerRow,
    algorithm: Algorithm,
    keys: &[PublicKey],
) -> Result<Claims, Error> {
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[&issuer.issuer]);
    validation.set_audience(&issuer.audiences);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    // Times are compared with the database's clock, not the node's: see `check_time`.
    validation.validate_exp = false;
    for PublicKey { key, .. } in keys {
        match jsonwebtoken::decode::<Claims>(token, key, &validation) {
            Ok(token) => return Ok(token.claims),
            Err(error) if *error.kind() == ErrorKind::InvalidSignature => {}
            Err(_) => break,
        }
    }
    Err(Error::Unauthenticated)
}

/// Refuses a token that is expired or not valid yet; returns when it expires, clock skew included.
fn check_time(
    claims: &Claims,
    issuer: &IssuerRow,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, Error> {
    let skew = Duration::seconds(i64::from(issuer.clock_skew_seconds));
    let expires_at = at(claims.exp) + skew;
    let begins_at = claims.nbf.map(at);
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
    let words: Vec<&str> = match claims.others.get(claim) {
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
    fn times_of_tokens_are_never_out_of_range() {
        assert_eq!(at(-1.0), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(at(f64::MAX), at(f64::from(u32::MAX) * 50.0));
        assert_eq!(at(1.5).unix_timestamp_nanos(), 1_500_000_000);
    }

    #[test]
    fn three_parts_are_a_token() {
        assert!(is_token("a.b.c") && !is_token("cursus_0_1") && !is_token("a.b.c.d.e"));
    }
}

//! Issuers of tokens on the wire: whose JWTs are accepted, and which of their claims name the tenant and the scopes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::error::FieldError;
use crate::limits::{
    AUDIENCES_MAX, CLAIM_CHARS_MAX, CLOCK_SKEW_SECONDS, SCOPES_MAX, URL_CHARS_MAX,
};
use crate::message::check_text;
use crate::name::{IssuerName, TenantName};
use crate::scope::{Permission, Scope};
use crate::topic::check_range;
use crate::validate::Validate;

/// Signature algorithm of a token. Only asymmetric algorithms are supported: a service that verifies tokens must not be
/// able to make them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum TokenAlgorithm {
    /// RSA with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519. The header of a token may name it `EdDSA` or `Ed25519` (RFC 9864).
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl TokenAlgorithm {
    /// All algorithms.
    pub const ALL: [Self; 3] = [Self::RS256, Self::ES256, Self::EdDsa];

    /// The algorithm as written in the header of a token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Tenant that the tokens of an issuer give access to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenTenant {
    /// Always this tenant.
    #[schema(title = "TokenTenantName")]
    Name(TenantName),
    /// The tenant that this claim names. The operator of the issuer can thereby access every tenant, within `scopes`.
    #[schema(title = "TokenTenantClaim")]
    Claim(ClaimName),
}

/// Name of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 128,
    pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$",
    example = "tenant"
)]
pub struct ClaimName(pub String);

/// A value of the claim `aud`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 2048,
    pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$",
    example = "cursus"
)]
pub struct Audience(pub String);

/// Settings of an issuer whose tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// Exact value of `iss` in its tokens.
    #[schema(min_length = 1, max_length = 2048, example = "https://login.example/")]
    pub issuer: String,
    /// URL of its public keys (RFC 7517): `https` at a public address or one that the operator allowed
    /// (`--outbound-allow`), or `http` on a loopback address. Without user and password.
    #[schema(
        min_length = 1,
        max_length = 2048,
        example = "https://login.example/jwks.json"
    )]
    pub jwks_url: String,
    /// Accepted audiences: `aud` of a token must contain one of them.
    #[schema(min_items = 1, max_items = 16)]
    pub audiences: Vec<Audience>,
    /// Accepted signature algorithms. All three when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 3)]
    pub algorithms: Option<Vec<TokenAlgorithm>>,
    /// Tenant that its tokens give access to.
    pub tenant: TokenTenant,
    /// Claim that holds the scopes, as a list or a string separated by spaces; `scope` when absent. Words in it that
    /// are not scopes of Cursus are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_claim: Option<ClaimName>,
    /// The most that its tokens may do. What a token's scopes ask for beyond it is refused with 403, and recorded in the
    /// audit log. `publish`, `receive`, `manage` and `usage` when absent: a token operates the service only if `admin`
    /// is listed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 32)]
    pub scopes: Option<Vec<Scope>>,
    /// Tolerated difference between the clocks of the issuer and of the service, in seconds. 30 when absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::whole::option"
    )]
    #[schema(minimum = 0, maximum = 300)]
    pub clock_skew_seconds: Option<u32>,
}

impl IssuerSettings {
    /// The most that its tokens may do.
    #[must_use]
    pub fn ceiling(&self) -> Vec<Scope> {
        let permissions = Permission::ALL.into_iter();
        let tame = permissions.filter(|permission| *permission != Permission::Admin);
        self.scopes
            .clone()
            .unwrap_or_else(|| tame.map(Scope::all).collect())
    }
}

impl Validate for IssuerSettings {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut text = |pointer: &str, text: &str, max| {
            check_text(&mut errors, || pointer.to_owned(), text, max);
        };
        text("/issuer", &self.issuer, URL_CHARS_MAX);
        text("/jwks_url", &self.jwks_url, URL_CHARS_MAX);
        for (index, audience) in self.audiences.iter().enumerate() {
            text(&format!("/audiences/{index}"), &audience.0, URL_CHARS_MAX);
        }
        if let TokenTenant::Claim(claim) = &self.tenant {
            text("/tenant/claim", &claim.0, CLAIM_CHARS_MAX);
        }
        if let Some(claim) = &self.scope_claim {
            text("/scope_claim", &claim.0, CLAIM_CHARS_MAX);
        }
        let mut refuse = |pointer, detail| errors.push(FieldError::new(pointer, detail));
        if !(1..=AUDIENCES_MAX).contains(&self.audiences.len()) {
            refuse(
                "/audiences",
                format!("must have 1 to {AUDIENCES_MAX} items"),
            );
        }
        if self.algorithms.as_ref().is_some_and(Vec::is_empty) {
            let all = TokenAlgorithm::ALL.len();
            refuse("/algorithms", format!("must have 1 to {all} items"));
        }
        let scopes = self.scopes.as_ref().map(Vec::len);
        if scopes.is_some_and(|count| !(1..=SCOPES_MAX).contains(&count)) {
            refuse("/scopes", format!("must have 1 to {SCOPES_MAX} items"));
        }
        let skew = self.clock_skew_seconds;
        check_range(
            &mut errors,
            "/clock_skew_seconds",
            skew,
            &CLOCK_SKEW_SECONDS,
        );
        errors
    }
}

/// An issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Issuer {
    /// Name of the issuer in this service.
    pub name: IssuerName,
    /// Settings of the issuer.
    pub settings: IssuerSettings,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change of the settings.
    pub updated_at: Timestamp,
    /// Time at which its public keys were last read. Absent when they have not been read yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub keys_read_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_operates_nothing_unless_its_settings_say_so() {
        let text =
            r#"{"issuer":"i","jwks_url":"https://a/jwks","audiences":["c"],"tenant":{"name":"t"}}"#;
        let mut settings: IssuerSettings = serde_json::from_str(text).unwrap();
        let ceiling = settings.ceiling();
        assert_eq!(ceiling.len(), Permission::ALL.len() - 1);
        assert!(
            ceiling
                .iter()
                .all(|scope| scope.permission() != Permission::Admin)
        );
        settings.scopes = Some(vec![Scope::all(Permission::Admin)]);
        assert_eq!(settings.ceiling(), [Scope::all(Permission::Admin)]);
    }

    #[test]
    fn an_issuer_names_what_is_wrong_with_it() {
        let text = r#"{"issuer":"","jwks_url":"https://a/jwks","audiences":[],"algorithms":[],"tenant":{"claim":""},"scopes":[],"clock_skew_seconds":301}"#;
        let settings: IssuerSettings = serde_json::from_str(text).unwrap();
        let errors = settings.validate();
        let pointers: Vec<_> = errors.iter().map(|error| &*error.pointer).collect();
        let expected = [
            "/issuer",
            "/tenant/claim",
            "/audiences",
            "/algorithms",
            "/scopes",
            "/clock_skew_seconds",
        ];
        assert_eq!(pointers, expected);
        for algorithm in ["none", "HS256"] {
            let text = text.replace(
                r#""algorithms":[]"#,
                &format!(r#""algorithms":["{algorithm}"]"#),
            );
            assert!(serde_json::from_str::<IssuerSettings>(&text).is_err());
        }
        for algorithm in TokenAlgorithm::ALL {
            assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.as_str());
        }
    }
}

//! Issuers of tokens on the wire: whose JWTs are let in, and which of their claims say for what.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::error::FieldError;
use crate::limits::{AUDIENCES_MAX, CLAIM_CHARS_MAX, CLOCK_SKEW_SECONDS, URL_CHARS_MAX};
use crate::message::check_text;
use crate::name::{IssuerName, TenantName};
use crate::topic::check_range;
use crate::validate::Validate;

/// How tokens are signed. Asymmetric only: whoever checks a token must not be able to make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum TokenAlgorithm {
    /// RSA with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl TokenAlgorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RS256, Self::ES256, Self::EdDsa];

    /// The algorithm as it stands in a token's head.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Which tenant the tokens of an issuer open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenTenant {
    /// This one and no other.
    Name(TenantName),
    /// The one that this claim names: whoever runs the issuer can let itself into every tenant.
    Claim(ClaimName),
}

/// The name of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 128,
    pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$",
    example = "tenant"
)]
pub struct ClaimName(pub String);

/// A value of `aud`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 2048,
    pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$",
    example = "cursus"
)]
pub struct Audience(pub String);

/// An issuer whose tokens are let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// The `iss` of its tokens, as it stands there.
    #[schema(min_length = 1, max_length = 2048, example = "https://login.example/")]
    pub issuer: String,
    /// Where its public keys are (RFC 7517): `https`, or `http` on a loopback address.
    #[schema(
        min_length = 1,
        max_length = 2048,
        example = "https://login.example/jwks.json"
    )]
    pub jwks_url: String,
    /// One of these must stand in `aud`.
    #[schema(min_items = 1, max_items = 16)]
    pub audiences: Vec<Audience>,
    /// The algorithms that its tokens may be signed with; all three when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, max_items = 3)]
    pub algorithms: Option<Vec<TokenAlgorithm>>,
    /// The tenant that its tokens open.
    pub tenant: TokenTenant,
    /// The claim that has the scopes, as a list or separated by spaces; `scope` when absent. Words in it that are no
    /// scopes of Cursus are passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub scope_claim: Option<ClaimName>,
    /// Seconds that the issuer's clock may be apart from ours; 30 when absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::whole::option"
    )]
    #[schema(nullable = false, minimum = 0, maximum = 300)]
    pub clock_skew_seconds: Option<u32>,
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

/// An issuer, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Issuer {
    /// What it is called here.
    pub name: IssuerName,
    /// Its settings.
    pub settings: IssuerSettings,
    /// When it was let in.
    pub created_at: Timestamp,
    /// When its settings last changed.
    pub updated_at: Timestamp,
    /// When its public keys were last read; absent when they never were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub keys_read_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_names_what_is_wrong_with_it() {
        let text = r#"{"issuer":"","jwks_url":"https://a/jwks","audiences":[],"algorithms":[],"tenant":{"claim":""},"clock_skew_seconds":301}"#;
        let settings: IssuerSettings = serde_json::from_str(text).unwrap();
        let errors = settings.validate();
        let pointers: Vec<_> = errors.iter().map(|error| &*error.pointer).collect();
        let expected = [
            "/issuer",
            "/tenant/claim",
            "/audiences",
            "/algorithms",
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

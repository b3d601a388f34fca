//! Names and ids in the path: parsed before the handler runs, refused with the parameter they stand in. Names that scopes
//! go by are `caller`'s.

use std::fmt::Display;
use std::str::FromStr;

use api::error::echo;
use api::{BudgetName, Day, ErrorCode, IssuerName, KeyId, MessageId, PlanName};
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use crate::http::answer::problem::Refusal;

/// `{id}` of the path.
pub(in crate::http) struct MessagePath(pub(in crate::http) MessageId);

/// `{key}` of the path.
pub(in crate::http) struct KeyPath(pub(in crate::http) KeyId);

/// `{issuer}` of the path.
pub(in crate::http) struct IssuerPath(pub(in crate::http) IssuerName);

/// `{budget}` of the path.
pub(in crate::http) struct BudgetPath(pub(in crate::http) BudgetName);

/// `{plan}` and `{valid_from}` of the path.
pub(in crate::http) struct VersionPath(pub(in crate::http) PlanName, pub(in crate::http) Day);

/// `{code}` of the path.
pub(in crate::http) struct CodePath(pub(in crate::http) ErrorCode);

/// The parameter `name` of the path.
pub(in crate::http) async fn parse<T: FromStr<Err: Display>>(
    parts: &mut Parts,
    name: &str,
) -> Result<T, Refusal> {
    let params = RawPathParams::from_request_parts(parts, &()).await;
    let params = params
        .map_err(|_| Refusal::field(format!("path:{name}"), "must be UTF-8, percent-encoded"))?;
    let value = params.iter().find(|(param, _)| *param == name);
    let text = value.map_or("", |(_, text)| text);
    text.parse()
        .map_err(|error: T::Err| Refusal::field(format!("path:{name}"), error.to_string()))
}

impl<S: Sync> FromRequestParts<S> for MessagePath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parse(parts, "id").await.map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for KeyPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parse(parts, "key").await.map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for IssuerPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parse(parts, "issuer").await.map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for BudgetPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parse(parts, "budget").await.map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for VersionPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let plan = parse(parts, "plan").await?;
        Ok(Self(plan, parse(parts, "valid_from").await?))
    }
}

impl<S: Sync> FromRequestParts<S> for CodePath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let text: String = parse(parts, "code").await?;
        let code = ErrorCode::ALL
            .into_iter()
            .find(|code| code.as_str() == text);
        code.map(Self).ok_or_else(|| {
            let detail = format!("no error has the code {}", echo(&text));
            Refusal::new(ErrorCode::NotFound, detail)
        })
    }
}

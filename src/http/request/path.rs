//! Names and ids in the path. They are parsed before the handler runs, refused with the name of their parameter, and
//! documented once for all routes. `caller` extracts the names that scopes can restrict, together with the permission.

use std::fmt::Display;
use std::str::FromStr;

use api::error::echo;
use api::{
    BudgetName, Day, ErrorCode, EventSinkName, IssuerName, KeyId, MessageId, PlanName,
    SubscriptionName, TenantName, TopicName,
};
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use utoipa::openapi::Ref;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::{IntoParams, ToSchema};

use crate::http::answer::problem::Refusal;

/// Name and description of a path parameter.
pub(in crate::http) trait Named: ToSchema {
    /// Name of the parameter.
    const PARAMETER: &'static str;
    /// Its description.
    const DESCRIPTION: &'static str;
    /// Its sample in the document.
    const SAMPLE: &'static str;
}

macro_rules! named {
    ($($name:ident: $parameter:literal, $description:literal, $sample:literal;)+) => {
        $(impl Named for $name {
            const PARAMETER: &'static str = $parameter;
            const DESCRIPTION: &'static str = $description;
            const SAMPLE: &'static str = $sample;
        })+
    };
}

named! {
    TopicName: "topic", "Name of the topic", "orders";
    SubscriptionName: "subscription", "Name of the subscription", "billing";
    TenantName: "tenant", "Name of the tenant", "acme";
    EventSinkName: "sink", "Name of the event sink", "usage";
    MessageId: "id", "Id of the message", "000000010000000002s3";
    KeyId: "key", "Id of the API key", "5f0c7a1e9b3d2468";
    IssuerName: "issuer", "Name of the issuer", "login";
    BudgetName: "budget", "Name of the budget", "monthly";
    PlanName: "plan", "Name of the price plan", "standard";
    Day: "valid_from", "The day (UTC) from which the version applies", "2030-01-01";
    ErrorCode: "code", "Error code", "not_found";
}

/// The OpenAPI entry of a path parameter.
pub(in crate::http) fn parameter<N: Named>() -> Parameter {
    ParameterBuilder::new()
        .name(N::PARAMETER)
        .parameter_in(ParameterIn::Path)
        .required(utoipa::openapi::Required::True)
        .description(Some(N::DESCRIPTION))
        .example(Some(N::SAMPLE.into()))
        .schema(Some(Ref::from_schema_name(N::name())))
        .build()
}

macro_rules! path {
    ($($(#[$doc:meta])* $name:ident($($of:ident),+);)+) => {
        $(
            $(#[$doc])*
            pub(in crate::http) struct $name($(pub(in crate::http) $of),+);

            impl<S: Sync> FromRequestParts<S> for $name {
                type Rejection = Refusal;

                async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
                    Ok(Self($(parse::<$of>(parts, $of::PARAMETER).await?),+))
                }
            }

            documented!($name: $($of),+);
        )+
    };
}

macro_rules! documented {
    ($name:ident: $($of:ident),+) => {
        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                vec![$(parameter::<$of>()),+]
            }
        }
    };
}

path! {
    /// `{id}` of the path.
    MessagePath(MessageId);
    /// `{tenant}` of the path, where no key is needed.
    TenantPath(TenantName);
    /// `{key}` of the path.
    KeyPath(KeyId);
    /// `{issuer}` of the path.
    IssuerPath(IssuerName);
    /// `{budget}` of the path.
    BudgetPath(BudgetName);
    /// `{plan}` and `{valid_from}` of the path.
    VersionPath(PlanName, Day);
}

/// `{code}` of the path.
pub(in crate::http) struct CodePath(pub(in crate::http) ErrorCode);

documented!(CodePath: ErrorCode);

/// Parses the path parameter `name`.
pub(in crate::http) async fn parse<T: FromStr<Err: Display>>(
    parts: &mut Parts,
    name: &str,
) -> Result<T, Refusal> {
    let params = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|_| {
            Refusal::field(
                format!("parameter:{name}"),
                "must be UTF-8, percent-encoded",
            )
        })?;
    let value = params.iter().find(|(param, _)| *param == name);
    let text = value.map_or("", |(_, text)| text);
    text.parse()
        .map_err(|error: T::Err| Refusal::field(format!("parameter:{name}"), error.to_string()))
}

impl<S: Sync> FromRequestParts<S> for CodePath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let text: String = parse(parts, ErrorCode::PARAMETER).await?;
        let code = ErrorCode::ALL
            .into_iter()
            .find(|code| code.as_str() == text);
        code.map(Self).ok_or_else(|| {
            let detail = format!("no error has the code {}", echo(&text));
            Refusal::new(ErrorCode::NotFound, detail)
        })
    }
}

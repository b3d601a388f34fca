//! `GET /v1/usage`: the usage of the tenant. The engine checks the range and its windows, because it knows what is
//! kept.

use api::usage::{Granularity, UsageBy, UsagePage, UsageQuery};
use axum::extract::{FromRequestParts, State};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::response::Response;

use crate::engine::Engine;
use crate::engine::bill::usage::UsageRequest;
use crate::http::answer::page;
use crate::http::answer::problem::Refusal;
use crate::http::document::GeneralErrors;
use crate::http::request::caller::{Caller, SeeUsage};
use crate::http::request::json::Json;
use crate::http::request::query::{self, Pairs};

/// Get usage
///
/// Returns usage by window of time and meter and, if `by` asks for it, by topic and subscription: metering units (one
/// per started 64 KiB of a message), messages, bytes, GiB-hours of storage, and the cost if the tenant has a price
/// plan. A window that is partly in the range is returned as a whole. Receives without a message, settling, and reading
/// topics, subscriptions and messages are free and not listed.
#[utoipa::path(
    get, path = "/v1/usage", operation_id = "get_usage", tag = "Usage",
    security(("api_key" = ["usage"])),
    params(UsageQuery),
    responses((status = 200, description = "A page of usage", body = UsagePage), GeneralErrors)
)]
pub(in crate::http) async fn get_usage(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<SeeUsage>,
    uri: Uri,
    UsageParams(request): UsageParams,
) -> Result<Response, Refusal> {
    let page = engine.usage(&caller, request).await?;
    let next = page.next.clone();
    Ok(page::linked(&uri, next.as_deref(), Json(page)))
}

/// The query, documented as [`UsageQuery`].
pub(in crate::http) struct UsageParams(UsageRequest);

impl<S: Sync> FromRequestParts<S> for UsageParams {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parse_query(&parts.uri).map(Self)
    }
}

fn parse_query(uri: &Uri) -> Result<UsageRequest, Refusal> {
    let mut pairs = Pairs::of(uri);
    let limit = pairs.limit();
    let times =
        ["from", "to"].map(|name| pairs.parsed(name, "must be a time (RFC 3339)", query::time));
    let granularities = [Granularity::Minute, Granularity::Hour, Granularity::Day];
    let granularity = pairs.parsed("granularity", "must be minute, hour or day", |text| {
        granularities.into_iter().find(|all| all.as_str() == text)
    });
    let by = pairs.parsed(
        "by",
        "must be meter, topic or subscription",
        |text| match text {
            "meter" => Some(UsageBy::Meter),
            "topic" => Some(UsageBy::Topic),
            "subscription" => Some(UsageBy::Subscription),
            _ => None,
        },
    );
    let after = pairs.parsed("after", "must be the next of the page before", |text| {
        text.parse().ok()
    });
    let [from, to] = times;
    pairs.finish(UsageRequest {
        from,
        to,
        granularity: granularity.unwrap_or_default(),
        by: by.unwrap_or_default(),
        after,
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<UsageRequest, Refusal> {
        parse_query(&format!("/v1/usage?{query}").parse().unwrap())
    }

    #[test]
    fn a_query_says_which_usage() {
        let request = parse("").unwrap();
        assert_eq!(
            (request.from, request.granularity),
            (None, Granularity::Hour)
        );
        let query = "from=2030-01-01T00:00:00Z&to=2030-01-01T01:00:00%2B01:00&granularity=minute&by=subscription&limit=7";
        let request = parse(&format!("{query}&after=1~publish~t~s")).unwrap();
        assert_eq!(request.from, request.to, "the same moment");
        assert_eq!(
            (request.granularity, request.by),
            (Granularity::Minute, UsageBy::Subscription)
        );
        assert!(request.after.is_some() && request.limit == 7);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, name) in [
            ("from=yesterday", "parameter:from"),
            ("to=", "parameter:to"),
            ("granularity=week", "parameter:granularity"),
            ("by=colour", "parameter:by"),
            ("after=x", "parameter:after"),
            ("limit=0", "parameter:limit"),
            ("tenant=2", "parameter:tenant"),
            ("by=topic&by=topic", "parameter:by"),
        ] {
            let refusal = format!("{:?}", parse(query).unwrap_err());
            assert!(refusal.contains(name), "{query}: {refusal}");
        }
    }
}

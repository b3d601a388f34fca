//! `/v1/usage/month` and `/v1/usage/focus`: the cost of a month of the tenant, as JSON and as a FOCUS export.

use api::Month;
use api::bill::{PeriodQuery, UsageMonth};
use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};

use crate::engine::bill::focus::Export;
use crate::engine::{Engine, Error};
use crate::http::answer::problem::Refusal;
use crate::http::document::{ExportErrors, GeneralErrors};
use crate::http::request::caller::{Caller, SeeUsage};
use crate::http::request::json::Json;
use crate::http::request::query::Pairs;

/// Get the cost of a month
///
/// Usage and cost of a calendar month (UTC) so far, by meter and by item of the price plan: the used quantity, the
/// billed quantity and the cost, with an estimate for the whole month. The estimate assumes that usage continues at its
/// average since the month began. A month without a price plan has usage only.
#[utoipa::path(
    get, path = "/v1/usage/month", operation_id = "get_usage_month", tag = "Usage",
    security(("api_key" = ["usage"])),
    params(PeriodQuery),
    responses((status = 200, description = "The month", body = UsageMonth), GeneralErrors)
)]
pub(in crate::http) async fn get_usage_month(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<SeeUsage>,
    Period(month): Period,
) -> Result<Json<UsageMonth>, Refusal> {
    Ok(Json(engine.usage_month(&caller, month).await?))
}

/// Export the charges of a month
///
/// As FOCUS 1.2 (FinOps Open Cost and Usage Specification): CSV (RFC 4180) with a header line and one row per day,
/// meter, topic, subscription and price tier. Costs are exact to twelve decimal places and add up to the cost of the
/// month. An empty field is null. Days without a price plan have no charges. A tenant that never had a price plan has
/// no charges at all.
#[utoipa::path(
    get, path = "/v1/usage/focus", operation_id = "export_usage", tag = "Usage",
    security(("api_key" = ["usage"])),
    params(PeriodQuery),
    responses((status = 200, description = "The charges as CSV", headers(("Content-Disposition" = String, description = "`attachment`, with a file name for the month")), content_type = "text/csv", body = String), ExportErrors)
)]
pub(in crate::http) async fn export_usage(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<SeeUsage>,
    Period(month): Period,
) -> Result<Response, Refusal> {
    let (first, export) = engine.export_usage(caller.access(), month).await?;
    Ok(csv(engine, first, export))
}

/// Pages are read at the speed of the client. If one fails, the connection ends early, and the client sees an
/// incomplete body.
fn csv(engine: Engine, first: String, export: Export) -> Response {
    let file = format!("attachment; filename=\"focus-{}.csv\"", export.month());
    let more = stream::try_unfold(export, move |mut export| {
        let engine = engine.clone();
        async move {
            let page = engine.export_page(&mut export).await?;
            Ok::<_, Error>(page.map(|page| (page, export)))
        }
    });
    let body = Body::from_stream(stream::iter([Ok(first)]).chain(more));
    let head = [
        (
            CONTENT_TYPE,
            "text/csv; charset=utf-8; header=present".to_owned(),
        ),
        (CONTENT_DISPOSITION, file),
    ];
    (head, body).into_response()
}

/// The query, documented as [`PeriodQuery`].
pub(in crate::http) struct Period(Option<Month>);

impl<S: Sync> FromRequestParts<S> for Period {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let mut pairs = Pairs::of(&parts.uri);
        let must = "must be a month from 2000-01 on: 2026-11";
        let period = pairs.parsed("period", must, |text| text.parse().ok());
        pairs.finish(Self(period))
    }
}

//! `/v1/budgets` and `/v1/budgets/{budget}`: what the tenant means to spend in a month. About all of its usage, so for
//! callers who may read, or manage, all names.

use api::budget::{Budget, BudgetSettings};
use api::list::Page;
use axum::extract::State;
use axum::http::StatusCode;

use crate::engine::Engine;
use crate::http::answer::problem::Refusal;
use crate::http::answer::put_status;
use crate::http::document::{ListErrors, PutErrors, ReadErrors};
use crate::http::request::caller::{Caller, Manage, SeeCosts};
use crate::http::request::json::Json;
use crate::http::request::path::BudgetPath;

/// Create a budget, or change it
///
/// Replaces the whole budget. About every ten seconds the cost of the tenant's usage in the calendar month (UTC) is compared
/// with it. When a percent of `alert_percents` is reached, an event `cursus.budget` goes to the tenant's event sinks, once a
/// month; a budget that is raised above what is spent sends it again. Its `data` is `budget`, `period`, `percent`, `amount`, `cost`, `currency`
/// and `stopped`. With `hard_stop`, a tenant that has spent the amount is refused publishes
/// and receives on all nodes (`quota_exceeded`, policy `budget`), until the month ends or the budget is raised, deleted or
/// stops no more; settling, reading and managing go on. Usage is known a few seconds late, storage and guaranteed capacity
/// five minutes, and both go on costing: somewhat more than the amount is spent. A receive that waits when the tenant is
/// stopped waits to its end. An event for a topic waits until the tenant may publish, so send an event that must arrive to a
/// URL. Without a price plan nothing has a cost, and nothing happens.
#[utoipa::path(
    put, path = "/v1/budgets/{budget}", operation_id = "put_budget", tag = "Budgets",
    security(("api_key" = ["manage"])),
    params(BudgetPath),
    request_body = BudgetSettings,
    responses(
        (status = 200, description = "It existed and has these settings now", body = Budget),
        (status = 201, description = "It was created", body = Budget),
        PutErrors
    )
)]
pub(in crate::http) async fn put_budget(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Manage>,
    BudgetPath(budget): BudgetPath,
    Json(settings): Json<BudgetSettings>,
) -> Result<(StatusCode, Json<Budget>), Refusal> {
    let (budget, created) = engine.put_budget(&caller, &budget, &settings).await?;
    Ok((put_status(created), Json(budget)))
}

/// Get a budget
///
/// With what is spent of it this month, the alerts that were sent, and whether it has stopped the tenant.
#[utoipa::path(
    get, path = "/v1/budgets/{budget}", operation_id = "get_budget", tag = "Budgets",
    security(("api_key" = ["usage"])),
    params(BudgetPath),
    responses((status = 200, description = "The budget", body = Budget), ReadErrors)
)]
pub(in crate::http) async fn get_budget(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<SeeCosts>,
    BudgetPath(budget): BudgetPath,
) -> Result<Json<Budget>, Refusal> {
    Ok(Json(engine.budget(&caller, &budget).await?))
}

/// List the budgets by name
///
/// All of them at once: there are at most 20.
#[utoipa::path(
    get, path = "/v1/budgets", operation_id = "list_budgets", tag = "Budgets",
    security(("api_key" = ["usage"])),
    responses((status = 200, description = "The budgets", body = Page<Budget>), ListErrors)
)]
pub(in crate::http) async fn list_budgets(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<SeeCosts>,
) -> Result<Json<Page<Budget>>, Refusal> {
    Ok(Json(engine.budgets(&caller).await?))
}

/// Delete a budget
///
/// A tenant that only this one has stopped may publish and receive again.
#[utoipa::path(
    delete, path = "/v1/budgets/{budget}", operation_id = "delete_budget", tag = "Budgets",
    security(("api_key" = ["manage"])),
    params(BudgetPath),
    responses((status = 204, description = "It is deleted"), ReadErrors)
)]
pub(in crate::http) async fn delete_budget(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Manage>,
    BudgetPath(budget): BudgetPath,
) -> Result<StatusCode, Refusal> {
    engine.delete_budget(&caller, &budget).await?;
    Ok(StatusCode::NO_CONTENT)
}

//! `/v1/budgets` and `/v1/budgets/{budget}`: monthly budgets of the tenant. A budget covers all of its usage, so the
//! caller needs a permission for all names.

use api::budget::{Budget, BudgetSettings};
use api::list::Page;
use axum::extract::State;
use axum::http::StatusCode;

use crate::engine::Engine;
use crate::http::answer::problem::Refusal;
use crate::http::answer::put_status;
use crate::http::document::{GeneralErrors, PutErrors, ReadErrors};
use crate::http::request::caller::{Caller, Manage, SeeCosts};
use crate::http::request::json::Json;
use crate::http::request::path::BudgetPath;

/// Create a budget, or change it
///
/// Replaces all settings of the budget.
///
/// About every ten seconds the cost of the tenant's usage in the calendar month (UTC) is compared with the budget. When
/// a percentage of `alert_percents` is reached, an event `cursus.budget` goes to the tenant's event sinks, once a
/// month. After the budget is raised above the cost so far, the event can be sent again. Its `data` has the fields
/// `budget`, `period`, `percent`, `amount`, `cost`, `currency` and `stopped`.
///
/// With `hard_stop`, all nodes refuse publishes and receives of the tenant when the cost reaches the amount
/// (`quota_exceeded`, policy `budget`). This ends with the month, or when the budget is raised, deleted or set to
/// `hard_stop: false`. Settling, reading and managing are not refused. A receive that is already waiting waits until
/// its end.
///
/// The cost may exceed the amount: usage counts with a delay of a few seconds, storage and guaranteed capacity with a
/// delay of five minutes, and both continue to cost. An event for a topic waits until the tenant may publish again, so
/// send events that must arrive in time to a URL. Without a price plan nothing has a cost, and a budget has no effect.
#[utoipa::path(
    put, path = "/v1/budgets/{budget}", operation_id = "put_budget", tag = "Budgets",
    security(("api_key" = ["manage"])),
    params(BudgetPath),
    request_body = BudgetSettings,
    responses(
        (status = 200, description = "The budget was changed", body = Budget),
        (status = 201, description = "The budget was created", body = Budget),
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
/// Returns its settings, the cost of this month so far, the alerts that were sent, and whether it has stopped the
/// tenant.
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
/// Returns all budgets at once; there are at most 20.
#[utoipa::path(
    get, path = "/v1/budgets", operation_id = "list_budgets", tag = "Budgets",
    security(("api_key" = ["usage"])),
    responses((status = 200, description = "The budgets", body = Page<Budget>), GeneralErrors)
)]
pub(in crate::http) async fn list_budgets(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<SeeCosts>,
) -> Result<Json<Page<Budget>>, Refusal> {
    Ok(Json(engine.budgets(&caller).await?))
}

/// Delete a budget
///
/// If no other budget has stopped the tenant, it may publish and receive again.
#[utoipa::path(
    delete, path = "/v1/budgets/{budget}", operation_id = "delete_budget", tag = "Budgets",
    security(("api_key" = ["manage"])),
    params(BudgetPath),
    responses((status = 204, description = "The budget was deleted"), ReadErrors)
)]
pub(in crate::http) async fn delete_budget(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Manage>,
    BudgetPath(budget): BudgetPath,
) -> Result<StatusCode, Refusal> {
    engine.delete_budget(&caller, &budget).await?;
    Ok(StatusCode::NO_CONTENT)
}

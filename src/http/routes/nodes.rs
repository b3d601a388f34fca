//! `GET /v1/admin/nodes`: the running nodes of the fleet. For operators of all tenants.

use api::list::Page;
use api::node::ServiceNode;
use axum::extract::State;

use crate::engine::Engine;
use crate::http::answer::problem::Refusal;
use crate::http::document::GeneralErrors;
use crate::http::request::caller::{Caller, Operate};
use crate::http::request::json::Json;

/// List the nodes of the fleet
///
/// Returns all nodes at once, in order of their start. A node that crashed stays in the list for ten minutes, with an
/// old `seen_at`.
#[utoipa::path(
    get, path = "/v1/admin/nodes", operation_id = "list_nodes", tag = "Admin",
    security(("api_key" = ["admin"])),
    responses((status = 200, description = "The nodes", body = Page<ServiceNode>), GeneralErrors)
)]
pub(in crate::http) async fn list_nodes(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Operate>,
) -> Result<Json<Page<ServiceNode>>, Refusal> {
    Ok(Json(engine.nodes(&caller).await?))
}

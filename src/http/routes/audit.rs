//! `GET /v1/admin/audit`: the changes of the control plane and their authors. For operators.

use api::audit::AuditEntry;
use api::list::Page;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;

use crate::engine::Engine;
use crate::http::answer::page;
use crate::http::answer::problem::Refusal;
use crate::http::document::ReadErrors;
use crate::http::request::caller::{Caller, OperateList};
use crate::http::request::query::AuditOf;

/// Read the audit log
///
/// Returns changes of the control plane, such as those of tenants, keys, issuers, topics and subscriptions, latest
/// first, one page at a time. Entries are kept for 400 days. An operator of some tenants must name one of them.
#[utoipa::path(
    get, path = "/v1/admin/audit", operation_id = "read_audit_log", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(
        ("tenant" = Option<api::TenantName>, Query, description = "Return only entries of this tenant", nullable = false),
        ("after" = Option<String>, Query, description = "`next` of the page before", pattern = "^[0-9]{1,18}$", nullable = false),
        ("limit" = Option<u32>, Query, description = "Most entries to return, 1 to 1,000; default 100", minimum = 1, maximum = 1000, nullable = false)
    ),
    responses((status = 200, description = "A page of entries", body = Page<AuditEntry>), ReadErrors)
)]
pub(in crate::http) async fn read_audit_log(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<OperateList>,
    uri: Uri,
    of: AuditOf,
) -> Result<Response, Refusal> {
    let tenant = of.tenant.as_ref();
    let page = engine
        .audit_log(&caller, tenant, of.after, of.limit)
        .await?;
    Ok(page::paged(&uri, page))
}

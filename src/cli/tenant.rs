//! `cursus tenant`: tenants, for operators.

use api::tenant::{PlanChoice, Suspension, TenantSettings};
use api::{Day, TenantName};
use clap::{Args, Subcommand};
use cursus_sdk::Request;
use hyper::Method;
use serde_json::Value;

use super::output::Column;
use super::{Common, Context, Failure};
use crate::config::Service;

const COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("SUSPENDED", "/suspended"),
    ("REASON", "/suspended_reason"),
    ("PLAN", "/plan"),
    ("CREATED", "/created_at"),
];

/// `cursus tenant`.
#[derive(Debug, Args)]
pub(super) struct Tenant {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all tenants
    #[command(after_help = "Example:\n  cursus tenant list")]
    List,
    /// Create a tenant, or change its price plan
    #[command(
        visible_alias = "set",
        after_help = "Example:\n  cursus tenant create shop --plan standard"
    )]
    Create {
        /// Name of the tenant
        #[arg(value_name = "TENANT")]
        tenant: TenantName,
        /// Price plan; an empty text removes it
        #[arg(long, value_parser = plan)]
        plan: Option<PlanChoice>,
        /// Day (UTC) from which the plan applies; today by default
        #[arg(long, value_name = "DAY", requires = "plan")]
        plan_from: Option<Day>,
    },
    /// Show a tenant
    #[command(after_help = "Example:\n  cursus tenant show shop")]
    Show(Name),
    /// Suspend a tenant: its keys are refused
    #[command(after_help = "Example:\n  cursus tenant suspend shop --reason unpaid")]
    Suspend {
        /// Name of the tenant
        #[arg(value_name = "TENANT")]
        tenant: TenantName,
        /// Reason, for operators
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Resume a suspended tenant
    #[command(after_help = "Example:\n  cursus tenant resume shop")]
    Resume(Name),
}

#[derive(Debug, Args)]
struct Name {
    /// Name of the tenant
    #[arg(value_name = "TENANT")]
    tenant: TenantName,
}

fn plan(text: &str) -> Result<PlanChoice, api::name::InvalidName> {
    PlanChoice::try_from(text.to_owned())
}

impl Tenant {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let context = Context::of(&self.common, used)?;
        let client = &context.client;
        let path = |name: &TenantName| format!("/v1/admin/tenants/{name}");
        let tenant: Value = match self.verb {
            Verb::List => return context.list("/v1/admin/tenants", COLUMNS).await,
            Verb::Create {
                tenant,
                plan,
                plan_from,
            } => {
                client
                    .put(path(&tenant), &TenantSettings { plan, plan_from })
                    .await?
            }
            Verb::Show(Name { tenant }) => client.get(path(&tenant)).await?,
            Verb::Suspend { tenant, reason } => {
                let request = Request::new(Method::POST, path(&tenant) + "/suspend");
                client.json(request.json(&Suspension { reason })?).await?
            }
            Verb::Resume(Name { tenant }) => {
                let request = Request::new(Method::POST, path(&tenant) + "/resume");
                client.json(request).await?
            }
        };
        context.output.one(&tenant)
    }
}

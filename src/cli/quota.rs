//! `cursus quota`: the limits of a tenant.

use api::TenantName;
use api::quota::{Quota as Limits, QuotaStatus, RateQuota};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::Column;
use super::{Common, Context, Failure};
use crate::config::Service;

const COLUMNS: &[Column] = &[
    ("LIMIT", "/limit"),
    ("GUARANTEED", "/guaranteed"),
    ("CEILING", "/ceiling"),
    ("USED", "/used"),
];

/// `cursus quota`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = false,
    after_help = "Example:\n  cursus quota"
)]
pub(super) struct Quota {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the limits of the key's own tenant, and how much of them is used; the same as no verb
    #[command(after_help = "Example:\n  cursus quota show")]
    Show,
    /// Show the limits of a tenant, for operators
    #[command(after_help = "Example:\n  cursus quota of shop")]
    Of {
        /// Name of the tenant
        tenant: TenantName,
    },
    /// Set the limits of a tenant, for operators. A limit that is not named is removed
    #[command(
        after_help = "Example:\n  cursus quota set shop --messages-per-second 1000:5000 --topics 100"
    )]
    Set(Box<Set>),
}

#[derive(Debug, Args)]
struct Set {
    /// Name of the tenant
    tenant: TenantName,
    /// Requests per second
    #[arg(long, value_name = "[GUARANTEED:]CEILING", value_parser = rate)]
    requests_per_second: Option<RateQuota>,
    /// Published messages per second
    #[arg(long, value_name = "[GUARANTEED:]CEILING", value_parser = rate)]
    messages_per_second: Option<RateQuota>,
    /// Published bytes per second
    #[arg(long, value_name = "[GUARANTEED:]CEILING", value_parser = rate)]
    bytes_per_second: Option<RateQuota>,
    /// Requests at the same time
    #[arg(long, value_name = "N")]
    concurrent_requests: Option<u64>,
    /// Bytes of stored messages
    #[arg(long, value_name = "N")]
    stored_bytes: Option<u64>,
    /// Topics
    #[arg(long, value_name = "N")]
    topics: Option<u64>,
    /// Subscriptions
    #[arg(long, value_name = "N")]
    subscriptions: Option<u64>,
    /// Messages that are handed out and not settled
    #[arg(long, value_name = "N")]
    in_flight_messages: Option<u64>,
}

fn rate(text: &str) -> Result<RateQuota, String> {
    let number = |text: &str| {
        let number = text.parse::<u64>();
        number.map_err(|_| "expected a number, or two such as 1000:5000".to_owned())
    };
    let (guaranteed, ceiling) = match text.split_once(':') {
        Some((guaranteed, ceiling)) => (Some(number(guaranteed)?), number(ceiling)?),
        None => (None, number(text)?),
    };
    Ok(RateQuota {
        guaranteed,
        ceiling: Some(ceiling),
    })
}

impl Quota {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let Context { client, output, .. } = Context::of(&self.common, used)?;
        let path = |tenant: &TenantName| format!("/v1/admin/tenants/{tenant}/quota");
        match self.verb {
            None | Some(Verb::Show) => {
                let status: QuotaStatus = client.get("/v1/quota").await?;
                if output.json {
                    return output.one(&status);
                }
                let limits = serde_json::to_value(status.limits)?;
                output.list(&rows(&limits, &serde_json::to_value(status.used)?), COLUMNS)
            }
            Some(Verb::Of { tenant }) => {
                let limits: Limits = client.get(path(&tenant)).await?;
                output.one(&limits)
            }
            Some(Verb::Set(set)) => {
                let limits = Limits {
                    requests_per_second: set.requests_per_second,
                    messages_per_second: set.messages_per_second,
                    bytes_per_second: set.bytes_per_second,
                    concurrent_requests: set.concurrent_requests,
                    stored_bytes: set.stored_bytes,
                    topics: set.topics,
                    subscriptions: set.subscriptions,
                    in_flight_messages: set.in_flight_messages,
                };
                let limits: Limits = client.put(path(&set.tenant), &limits).await?;
                output.one(&limits)
            }
        }
    }
}

/// A row for everything that is measured or limited.
fn rows(limits: &Value, used: &Value) -> Vec<Value> {
    let names = |value: &Value| {
        value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    };
    let mut all = names(used);
    all.extend(names(limits));
    all.sort();
    all.dedup();
    let row = |name: &String| {
        let limit = &limits[name];
        let ceiling = if limit.is_object() {
            &limit["ceiling"]
        } else {
            limit
        };
        json!({"limit": name, "guaranteed": limit["guaranteed"], "ceiling": ceiling, "used": used[name]})
    };
    all.iter().map(row).collect()
}

//! `cursus stats`: what waits in subscriptions.

use api::SubscriptionName;
use api::subscription::{Subscription, SubscriptionStats};
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::output::Column;
use super::{Common, Context, Failure};
use crate::config::Service;

/// Requests at a time.
const AT_ONCE: usize = 8;

const COLUMNS: &[Column] = &[
    ("SUBSCRIPTION", "/subscription"),
    ("READY", "/stats/ready"),
    ("IN FLIGHT", "/stats/in_flight"),
    ("DELAYED", "/stats/delayed"),
    ("OLDEST (S)", "/stats/oldest_ready_age_seconds"),
    ("PUSH", "/stats/push/state"),
];

/// `cursus stats`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cursus stats\n  cursus stats billing --json | jq .stats.ready"
)]
pub(super) struct Stats {
    /// Subscriptions; all of them by default
    subscriptions: Vec<SubscriptionName>,
    #[command(flatten)]
    common: Common,
}

impl Stats {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let Context { client, output, .. } = &Context::of(&self.common, used)?;
        let mut names = self.subscriptions;
        if names.is_empty() {
            let all = client.each::<Subscription>("/v1/subscriptions?limit=1000");
            names = all
                .map_ok(|subscription| subscription.name)
                .try_collect()
                .await?;
        }
        let of = |name: SubscriptionName| async move {
            let stats = client
                .get(format!("/v1/subscriptions/{name}/stats"))
                .await?;
            let stats: SubscriptionStats = stats;
            Ok::<Value, cursus_sdk::Error>(json!({"subscription": name, "stats": stats}))
        };
        let rows: Vec<Value> = stream::iter(names)
            .map(of)
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        output.list(&rows, COLUMNS)
    }
}

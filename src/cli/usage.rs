//! `cursus usage`: what was used, and what it costs.

use api::bill::UsageMonth;
use api::usage::UsageItem;
use api::{Month, Timestamp};
use clap::{Args, ValueEnum};
use futures_util::TryStreamExt;

use super::output::{Column, print};
use super::{Common, Context, Failure};
use crate::config::Service;

const COLUMNS: &[Column] = &[
    ("START", "/start"),
    ("METER", "/meter"),
    ("TOPIC", "/topic"),
    ("SUBSCRIPTION", "/subscription"),
    ("MESSAGES", "/messages"),
    ("BYTES", "/bytes"),
    ("UNITS", "/units"),
    ("COST", "/cost"),
];

const LINES: &[Column] = &[
    ("ITEM", "/item"),
    ("QUANTITY", "/quantity"),
    ("UNIT", "/unit"),
    ("COST", "/cost"),
    ("BILLED", "/billed"),
    ("ESTIMATE", "/estimate"),
];

/// `cursus usage`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cursus usage --by topic --granularity day --from 2026-11-01T00:00:00Z
  cursus usage --month")]
pub(super) struct Usage {
    /// A time within the first window; by default the windows cover a day
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// A time in the last window; now by default
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
    /// Length of a window
    #[arg(long, value_enum, default_value = "hour")]
    granularity: Granularity,
    /// What usage is grouped by
    #[arg(long, value_enum, default_value = "meter")]
    by: By,
    /// Show the cost of a month (such as 2026-11) instead; the current one by default
    #[arg(long, value_name = "MONTH", num_args = 0..=1, conflicts_with_all = ["from", "to", "granularity", "by"])]
    month: Option<Option<Month>>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Granularity {
    Minute,
    Hour,
    Day,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    Meter,
    Topic,
    Subscription,
}

fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

impl Usage {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let Context { client, output, .. } = Context::of(&self.common, used)?;
        if let Some(month) = self.month {
            let query = month.map_or_else(String::new, |month| format!("?period={month}"));
            let month: UsageMonth = client.get(format!("/v1/usage/month{query}")).await?;
            if output.json {
                return output.one(&month);
            }
            output.list(&month.lines, LINES)?;
            let cost = match (&month.cost, &month.currency) {
                (Some(cost), Some(currency)) => {
                    format!("{}: {cost} {currency} so far\n", month.period)
                }
                _ => format!("{}: no price plan applies\n", month.period),
            };
            return print(&cost);
        }
        let mut path = format!(
            "/v1/usage?limit=1000&granularity={}&by={}",
            name(&self.granularity),
            name(&self.by)
        );
        for (name, time) in [("from", self.from), ("to", self.to)] {
            if let Some(time) = time {
                path += &format!("&{name}={time}");
            }
        }
        let items: Vec<UsageItem> = client.each(&path).try_collect().await?;
        output.list(&items, COLUMNS)
    }
}

//! `cursus topic`: topics.

use api::TopicName;
use api::topic::TopicSettings;
use clap::{Args, Subcommand};
use futures_util::TryStreamExt;
use serde_json::Value;

use super::output::Column;
use super::{Common, Context, Failure};
use crate::config::{Period, Service};

const COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("RETENTION (S)", "/retention_seconds"),
    ("DEDUP WINDOW (S)", "/dedup_window_seconds"),
    ("KEEPS CONSUMED", "/keep_consumed"),
    ("CREATED", "/created_at"),
];

/// `cursus topic`.
#[derive(Debug, Args)]
pub(super) struct Topic {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all topics
    #[command(after_help = "Example:\n  cursus topic list --json")]
    List,
    /// Create a topic, or change one: what is not named keeps its value
    #[command(
        visible_alias = "set",
        after_help = "Example:\n  cursus topic create orders --retention 7d"
    )]
    Create(Settings),
    /// Show a topic
    #[command(after_help = "Example:\n  cursus topic show orders")]
    Show(Name),
    /// Show how many messages a topic has
    #[command(after_help = "Example:\n  cursus topic stats orders")]
    Stats(Name),
    /// Delete a topic and its messages, once no subscription reads it
    #[command(after_help = "Example:\n  cursus topic delete orders")]
    Delete(Name),
}

#[derive(Debug, Args)]
struct Name {
    /// Name of the topic
    #[arg(value_name = "TOPIC")]
    topic: TopicName,
}

#[derive(Debug, Args)]
struct Settings {
    /// Name of the topic
    #[arg(value_name = "TOPIC")]
    topic: TopicName,
    /// Age at which a message is deleted, consumed or not
    #[arg(long, value_name = "TIME")]
    retention: Option<Period>,
    /// Time within which a repeated dedup id or idempotency key is recognised
    #[arg(long, value_name = "TIME")]
    dedup_window: Option<Period>,
    /// Keep messages that all subscriptions have consumed until their retention ends
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    keep_consumed: Option<bool>,
}

/// A time as whole seconds.
pub(super) fn seconds(time: Option<Period>) -> Option<u32> {
    let seconds = time?.duration().as_secs();
    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
}

impl Topic {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let Context { client, output, .. } = Context::of(&self.common, used)?;
        match self.verb {
            Verb::List => {
                let topics: Vec<Value> = client.each("/v1/topics?limit=1000").try_collect().await?;
                output.list(&topics, COLUMNS)
            }
            Verb::Create(settings) => {
                let wanted = TopicSettings {
                    retention_seconds: seconds(settings.retention),
                    keep_consumed: settings.keep_consumed,
                    dedup_window_seconds: seconds(settings.dedup_window),
                };
                let path = format!("/v1/topics/{}", settings.topic);
                let topic: Value = client.put(path, &wanted).await?;
                output.one(&topic)
            }
            Verb::Show(Name { topic }) => {
                let topic: Value = client.get(format!("/v1/topics/{topic}")).await?;
                output.one(&topic)
            }
            Verb::Stats(Name { topic }) => {
                let stats: Value = client.get(format!("/v1/topics/{topic}/stats")).await?;
                output.one(&stats)
            }
            Verb::Delete(Name { topic }) => {
                client.delete(format!("/v1/topics/{topic}")).await?;
                output.done(
                    &serde_json::json!({"deleted": topic}),
                    &format!("topic {topic} is deleted"),
                )
            }
        }
    }
}

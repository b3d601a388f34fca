//! `cursus topic`: topics.

use api::TopicName;
use api::topic::TopicSettings;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

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
        let context = Context::of(&self.common, used)?;
        let client = &context.client;
        let path = |name: &TopicName| format!("/v1/topics/{name}");
        let shown: Value = match self.verb {
            Verb::List => return context.list("/v1/topics", COLUMNS).await,
            Verb::Create(settings) => {
                let wanted = TopicSettings {
                    retention_seconds: seconds(settings.retention),
                    keep_consumed: settings.keep_consumed,
                    dedup_window_seconds: seconds(settings.dedup_window),
                };
                client.put(path(&settings.topic), &wanted).await?
            }
            Verb::Show(Name { topic }) => client.get(path(&topic)).await?,
            Verb::Stats(Name { topic }) => client.get(path(&topic) + "/stats").await?,
            Verb::Delete(Name { topic }) => {
                client.delete(path(&topic)).await?;
                let text = format!("topic {topic} is deleted");
                return context.output.done(&json!({"deleted": topic}), &text);
            }
        };
        context.output.one(&shown)
    }
}

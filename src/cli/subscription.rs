//! `cursus subscription`: subscriptions, and the endpoints of those that are pushed.

use api::fairness::Fairness;
use api::push::PushSettings;
use api::subscription::{StartPosition, SubscriptionSettings};
use api::{SubscriptionName, TopicName};
use clap::{Args, Subcommand};
use cursus_sdk::Request;
use hyper::Method;
use serde_json::{Value, json};

use super::output::Column;
use super::topic::seconds;
use super::{Common, Context, Failure};
use crate::config::{Period, Service};

const COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("TOPIC", "/topic"),
    ("VISIBILITY (S)", "/visibility_timeout_seconds"),
    ("ATTEMPTS", "/max_attempts"),
    ("DEAD LETTERS", "/dead_letter_topic"),
    ("PUSHED TO", "/push/url"),
];

/// `cursus subscription`.
#[derive(Debug, Args)]
pub(super) struct Subscription {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all subscriptions
    #[command(after_help = "Example:\n  cursus subscription list")]
    List,
    /// Create a subscription, or change one: what is not named keeps its value
    #[command(
        visible_alias = "set",
        after_help = "Examples:\n  cursus subscription create billing --topic orders --max-attempts 5 \
            --dead-letter-topic orders-dead\n  \
            cursus subscription create hooks --topic orders --push https://example.com/hook"
    )]
    Create(Box<Settings>),
    /// Show a subscription
    #[command(after_help = "Example:\n  cursus subscription show billing")]
    Show(Name),
    /// Show what waits in a subscription
    #[command(after_help = "Example:\n  cursus subscription stats billing")]
    Stats(Name),
    /// Pause the deliveries to the endpoint of a subscription
    #[command(after_help = "Example:\n  cursus subscription pause hooks")]
    Pause(Name),
    /// Resume the deliveries to the endpoint of a subscription
    #[command(after_help = "Example:\n  cursus subscription resume hooks")]
    Resume(Name),
    /// Delete a subscription: where it stood is forgotten
    #[command(after_help = "Example:\n  cursus subscription delete billing")]
    Delete(Name),
}

#[derive(Debug, Args)]
struct Name {
    /// Name of the subscription
    #[arg(value_name = "SUBSCRIPTION")]
    subscription: SubscriptionName,
}

#[derive(Debug, Args)]
struct Settings {
    /// Name of the subscription
    #[arg(value_name = "SUBSCRIPTION")]
    subscription: SubscriptionName,
    /// Topic to read; required for a new subscription
    #[arg(long)]
    topic: Option<TopicName>,
    /// Begin with the oldest message that the topic keeps; only when the subscription is created
    #[arg(long)]
    from_start: bool,
    /// Time for which a received message is hidden from other receivers
    #[arg(long, value_name = "TIME")]
    visibility: Option<Period>,
    /// Attempts after which a message is dead-lettered
    #[arg(long, value_name = "N")]
    max_attempts: Option<u16>,
    /// Topic for messages whose attempts are used up; an empty text removes it
    #[arg(long, value_name = "TOPIC")]
    dead_letter_topic: Option<String>,
    /// Most messages that are handed out and not settled
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u32>,
    /// Customers take turns; their name is the attribute `fairness_key` of messages
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    fair: Option<bool>,
    /// Deliver messages to this endpoint; an empty text ends it. The secret that signs them is shown once
    #[arg(long, value_name = "URL")]
    push: Option<String>,
}

impl Settings {
    fn wanted(&self) -> SubscriptionSettings {
        let fairness = self.fair.map(|enabled| Fairness {
            enabled: Some(enabled),
            ..Fairness::default()
        });
        let push = self.push.as_ref().map(|url| PushSettings {
            enabled: Some(!url.is_empty()),
            url: Some(url.clone()).filter(|url| !url.is_empty()),
            ..PushSettings::default()
        });
        SubscriptionSettings {
            topic: self.topic.clone(),
            from: self.from_start.then_some(StartPosition::Start),
            visibility_timeout_seconds: seconds(self.visibility),
            max_attempts: self.max_attempts,
            dead_letter_topic: self.dead_letter_topic.clone(),
            max_in_flight: self.max_in_flight,
            fairness,
            push,
        }
    }
}

impl Subscription {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let context = Context::of(&self.common, used)?;
        let client = &context.client;
        let path = |name: &SubscriptionName| format!("/v1/subscriptions/{name}");
        let shown: Value = match self.verb {
            Verb::List => return context.list("/v1/subscriptions", COLUMNS).await,
            Verb::Create(settings) => {
                let path = path(&settings.subscription);
                client.put(path, &settings.wanted()).await?
            }
            Verb::Show(Name { subscription }) => client.get(path(&subscription)).await?,
            Verb::Stats(Name { subscription }) => {
                client.get(path(&subscription) + "/stats").await?
            }
            Verb::Pause(Name { subscription }) => {
                let path = path(&subscription) + "/push/pause";
                client.json(Request::new(Method::POST, path)).await?
            }
            Verb::Resume(Name { subscription }) => {
                let path = path(&subscription) + "/push/resume";
                client.json(Request::new(Method::POST, path)).await?
            }
            Verb::Delete(Name { subscription }) => {
                client.delete(path(&subscription)).await?;
                let text = format!("subscription {subscription} is deleted");
                return context
                    .output
                    .done(&json!({"deleted": subscription}), &text);
            }
        };
        context.output.one(&shown)
    }
}

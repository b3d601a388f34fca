//! `cursus message`, and how messages are shown.

use api::MessageId;
use api::message::{Message as Wire, ReceivedMessage};
use clap::Args;
use serde_json::Value;

use super::output::{self, Output, shown};
use super::{Common, Context, Failure};
use crate::config::Service;

/// `cursus message`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cursus message 000000010000000002s3
  cursus message 000000010000000002s3 --body > photo.jpg")]
pub(super) struct Message {
    /// Id of the message
    id: MessageId,
    /// Print the bytes of the body and nothing else
    #[arg(long)]
    body: bool,
    #[command(flatten)]
    common: Common,
}

impl Message {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let context = Context::of(&self.common, used)?;
        if self.body {
            return output::bytes(&context.client.body(self.id).await?);
        }
        let message: Value = context
            .client
            .get(format!("/v1/messages/{}", self.id))
            .await?;
        context.output.one(&message)
    }
}

impl Output {
    /// Prints a message of a topic.
    pub(super) fn message(self, message: &Wire) -> Result<(), Failure> {
        if self.json {
            return output::print(&format!("{}\n", serde_json::to_string(message)?));
        }
        output::print(&format!("{}\n  {}\n", head(message), body(message)))
    }

    /// Prints a message that was received.
    pub(super) fn received(self, received: &ReceivedMessage) -> Result<(), Failure> {
        if self.json {
            return output::print(&format!("{}\n", serde_json::to_string(received)?));
        }
        let message = &received.message;
        let (head, body) = (head(message), body(message));
        let ReceivedMessage {
            attempt, receipt, ..
        } = received;
        output::print(&format!(
            "{head}  attempt {attempt}\n  {body}\n  receipt {receipt}\n"
        ))
    }
}

fn head(message: &Wire) -> String {
    let mut head = format!("{}  {}", message.id, message.published_at);
    for (name, value) in [("tag", &message.tag), ("key", &message.key)] {
        if let Some(value) = value {
            head += &format!("  {name}={}", shown(value));
        }
    }
    for (name, value) in &message.attributes {
        head += &format!("  {}={}", shown(name), shown(value));
    }
    head
}

fn body(message: &Wire) -> String {
    match (&message.body, message.data()) {
        (Some(text), _) => shown(text),
        (None, Some(bytes)) => format!(
            "({} bytes of {}, no text)",
            bytes.len(),
            message.content_type
        ),
        (None, None) => format!("(large: cursus message {} --body)", message.id),
    }
}

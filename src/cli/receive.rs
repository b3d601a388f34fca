//! `cursus receive`: messages of a subscription, handed out to the one who asks.

use api::SubscriptionName;
use api::message::{ReceiveRequest, ReceivedMessage};
use clap::Args;

use super::output::{self, note};
use super::topic::seconds;
use super::{Common, Context, Failure, settle};
use crate::config::{Period, Service};

/// `cursus receive`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cursus receive billing --max 10 --wait 20s
  cursus receive billing --json | cursus ack billing -
  cursus receive billing --ack --body

A received message is hidden from others until it is settled, or its visibility timeout is over. Without a message the exit
code is 0, and nothing is printed.")]
pub(super) struct Receive {
    /// Subscription to receive from
    subscription: SubscriptionName,
    /// Most messages to receive, 1 to 100
    #[arg(short = 'n', long, value_name = "N", default_value = "1")]
    max: u32,
    /// Time to wait for the first message, up to 30s
    #[arg(long, value_name = "TIME", default_value = "0s")]
    wait: Period,
    /// Time for which the messages are hidden from others; by default that of the subscription
    #[arg(long, value_name = "TIME")]
    visibility: Option<Period>,
    /// Acknowledge each message once it is printed
    #[arg(long)]
    ack: bool,
    /// Print the bytes of the bodies and nothing else
    #[arg(long, conflicts_with = "json")]
    body: bool,
    #[command(flatten)]
    common: Common,
}

impl Receive {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let context = Context::of(&self.common, used)?;
        let asked = ReceiveRequest {
            max_messages: Some(self.max),
            wait_seconds: seconds(Some(self.wait)),
            visibility_timeout_seconds: seconds(self.visibility),
        };
        let name = self.subscription.as_str();
        let messages = context.client.receive(name, asked).await?;
        for (at, message) in messages.iter().enumerate() {
            if let Err(failure) = self.show(&context, message).await {
                let rest = &messages[at..];
                return Err(settle::give_back(&context, name, rest, at, failure).await);
            }
            if self.ack {
                context.client.ack(name, &message.receipt).await?;
            }
        }
        if !self.ack && !context.output.json && !self.body && !messages.is_empty() {
            note(&format!(
                "to be settled within their visibility timeout: cursus ack {name} RECEIPT"
            ));
        }
        Ok(())
    }

    async fn show(&self, context: &Context, message: &ReceivedMessage) -> Result<(), Failure> {
        if !self.body {
            return context.output.received(message);
        }
        match message.message.data() {
            Some(bytes) => output::bytes(&bytes),
            None => output::bytes(&context.client.body(message.message.id).await?),
        }
    }
}

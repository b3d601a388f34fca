//! `cursus ack`, `nack` and `settle`: receipts from arguments, or from what `cursus receive --json` prints.

use std::io::BufRead;

use api::SubscriptionName;
use api::limits::BATCH_MESSAGES_MAX;
use api::message::ReceivedMessage;
use api::settle::{SettleAction, SettleItem};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::topic::seconds;
use super::{Common, Context, Failure};
use crate::config::{Period, Service};

/// Messages to settle.
#[derive(Debug, Args)]
struct Receipts {
    /// Subscription that handed the messages out
    subscription: SubscriptionName,
    /// Receipts; `-` reads them from standard input, one a line, or as `cursus receive --json` prints messages
    #[arg(value_name = "RECEIPT", required = true)]
    receipts: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// `cursus ack`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cursus receive billing --json | cursus ack billing -")]
pub(super) struct Ack {
    #[command(flatten)]
    receipts: Receipts,
}

/// `cursus nack`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cursus nack billing RECEIPT --delay 30s")]
pub(super) struct Nack {
    #[command(flatten)]
    receipts: Receipts,
    /// Time until the messages are handed out again
    #[arg(long, value_name = "TIME")]
    delay: Option<Period>,
}

/// `cursus settle`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cursus settle billing RECEIPT --action dead-letter --reason 'no such table'
  cursus settle billing RECEIPT --action extend --visibility 10m")]
pub(super) struct Settle {
    #[command(flatten)]
    receipts: Receipts,
    /// What to do with the messages
    #[arg(long, value_enum)]
    action: Action,
    /// With nack: time until the messages are handed out again
    #[arg(long, value_name = "TIME")]
    delay: Option<Period>,
    /// With extend: time from now for which the messages stay hidden
    #[arg(long, value_name = "TIME")]
    visibility: Option<Period>,
    /// With dead-letter: reason, kept with the dead letter
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    Ack,
    Nack,
    Extend,
    DeadLetter,
}

impl Ack {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        self.receipts.settle(used, &item(SettleAction::Ack)).await
    }
}

impl Nack {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let how = SettleItem {
            delay_seconds: seconds(self.delay),
            ..item(SettleAction::Nack)
        };
        self.receipts.settle(used, &how).await
    }
}

impl Settle {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let how = SettleItem {
            delay_seconds: seconds(self.delay),
            visibility_timeout_seconds: seconds(self.visibility),
            reason: self.reason.map(Into::into),
            ..item(match self.action {
                Action::Ack => SettleAction::Ack,
                Action::Nack => SettleAction::Nack,
                Action::Extend => SettleAction::Extend,
                Action::DeadLetter => SettleAction::DeadLetter,
            })
        };
        self.receipts.settle(used, &how).await
    }
}

/// What is done with each receipt.
fn item(action: SettleAction) -> SettleItem<'static> {
    SettleItem::new("", action)
}

impl Receipts {
    async fn settle(self, used: &mut Option<Service>, how: &SettleItem<'_>) -> Result<(), Failure> {
        let context = Context::of(&self.common, used)?;
        let receipts = match self.receipts.as_slice() {
            [dash] if dash == "-" => from_input()?,
            _ => self.receipts,
        };
        let (mut done, mut failed) = (0, Vec::new());
        for group in receipts.chunks(BATCH_MESSAGES_MAX) {
            let of = |receipt: &String| SettleItem {
                receipt: receipt.clone().into(),
                ..how.clone()
            };
            let items = group.iter().map(of).collect();
            let results = context
                .client
                .settle(self.subscription.as_str(), items)
                .await?;
            for (receipt, result) in group.iter().zip(results) {
                match &result.error {
                    Some(problem) => failed.push(format!(
                        "{receipt}: {} ({})",
                        problem.detail,
                        problem.code.as_str()
                    )),
                    None => done += 1,
                }
                if context.output.json {
                    context.output.one(&result)?;
                }
            }
        }
        if !context.output.json {
            super::output::print(&format!("{done} settled\n"))?;
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(Failure::Some(failed.join("\n"))),
        }
    }
}

/// Receipts of standard input: a line is a receipt, or a message as JSON.
fn from_input() -> Result<Vec<String>, Failure> {
    let mut receipts = Vec::new();
    for (at, line) in std::io::stdin().lock().lines().enumerate() {
        let wrong = |why: &str| Failure::Usage(format!("standard input, line {}: {why}", at + 1));
        let line = line.map_err(|error| wrong(&error.to_string()))?;
        match line.trim() {
            "" => {}
            json if json.starts_with('{') => {
                let message: Value =
                    serde_json::from_str(json).map_err(|error| wrong(&error.to_string()))?;
                let receipt = message["receipt"]
                    .as_str()
                    .ok_or_else(|| wrong("it has no receipt"))?;
                receipts.push(receipt.to_owned());
            }
            receipt => receipts.push(receipt.to_owned()),
        }
    }
    Ok(receipts)
}

/// Gives back messages that could not be shown, so that nobody waits for their timeout. `shown` were.
pub(super) async fn give_back(
    context: &Context,
    subscription: &str,
    messages: &[ReceivedMessage],
    shown: usize,
    failure: Failure,
) -> Failure {
    let of =
        |message: &ReceivedMessage| SettleItem::new(message.receipt.clone(), SettleAction::Nack);
    let given = context
        .client
        .settle(subscription, messages.iter().map(of).collect())
        .await;
    match (failure, given) {
        (Failure::BrokenPipe(_), Ok(_)) => {
            let back = messages.len();
            Failure::BrokenPipe(format!(
                "{shown} messages were shown, {back} are given back to {subscription}"
            ))
        }
        (failure, _) => failure,
    }
}

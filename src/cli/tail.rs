//! `cursus tail`: the messages of a subscription as they come. By default it only looks: what it shows are the messages of
//! the subscription's topic, and the real receivers of the subscription get them all the same. With `--ack` it is a receiver
//! itself, and acknowledges each message once it is written.

use api::SubscriptionName;
use api::message::ReceiveRequest;
use api::subscription::Subscription;
use clap::Args;

use super::browse::{self, Filter};
use super::output::note;
use super::{Common, Context, Failure, settle};
use crate::config::Service;

/// Messages of a receive: few, as each is hidden from other receivers until it is shown.
const BATCH: u32 = 10;
/// Seconds of a long poll.
const WAIT_SECONDS: u32 = 20;

/// `cursus tail`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cursus tail -f billing
  cursus tail -f billing --ack --json | jq .body

Without --ack nothing is consumed: the messages of the subscription's topic are shown, and the receivers of the subscription
get them all the same. With --ack, tail is a receiver: each message goes to it instead of to another receiver, and is
acknowledged once it is written to standard output. Ctrl-C, or a reader of the output that goes away, gives the others back.")]
pub(super) struct Tail {
    /// Subscription to look at
    subscription: SubscriptionName,
    /// Go on with the messages that come; without it, end when there are no more
    #[arg(short, long)]
    follow: bool,
    /// Where to begin: `start`, a time (RFC 3339) or the id of a message [default: start; with --follow now]
    #[arg(long, conflicts_with = "ack")]
    from: Option<String>,
    /// Receive the messages, and acknowledge each once it is shown
    #[arg(long, conflicts_with_all = ["tag", "message_key"])]
    ack: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    common: Common,
}

impl Tail {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let context = Context::patient(&self.common, used)?;
        if self.ack {
            return self.consume(&context).await;
        }
        let path = format!("/v1/subscriptions/{}", self.subscription);
        let subscription: Subscription = context.client.get(path).await?;
        let topic = subscription.topic.as_str();
        if self.follow {
            return browse::follow(&context, topic, self.from, &self.filter).await;
        }
        browse::once(&context, topic, self.from, &self.filter).await
    }

    async fn consume(self, context: &Context) -> Result<(), Failure> {
        let name = self.subscription.as_str();
        let most = self.filter.limit.unwrap_or(u64::MAX);
        let mut shown: u64 = 0;
        while shown < most {
            let asked = ReceiveRequest {
                max_messages: Some(u32::try_from(most - shown).unwrap_or(BATCH).min(BATCH)),
                wait_seconds: Some(if self.follow { WAIT_SECONDS } else { 0 }),
                visibility_timeout_seconds: None,
            };
            // A receive that is given up gives back what it was about to hand out.
            let messages = tokio::select! {
                messages = context.client.receive(name, asked) => messages?,
                _ = tokio::signal::ctrl_c() => return Err(Failure::Interrupted(said(shown))),
            };
            if messages.is_empty() && !self.follow {
                return Ok(());
            }
            for (at, message) in messages.iter().enumerate() {
                if let Err(failure) = context.output.received(message) {
                    let shown = usize::try_from(shown).unwrap_or(usize::MAX);
                    return Err(
                        settle::give_back(context, name, &messages[at..], shown, failure).await,
                    );
                }
                let acked = context.client.ack(name, &message.receipt).await;
                if let Err(error) = acked {
                    note(&format!(
                        "message {} was shown and is not acknowledged: it comes again",
                        message.message.id
                    ));
                    return Err(error.into());
                }
                shown += 1;
            }
        }
        Ok(())
    }
}

fn said(shown: u64) -> String {
    format!("{shown} messages were shown and acknowledged")
}

//! `cursus browse`: messages of a topic, without consuming them.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use api::message::Message;
use api::{MessageId, Timestamp, TopicName};
use clap::Args;
use cursus_sdk::{Client, Request, segment};
use futures_util::TryStreamExt;
use hyper::Method;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::{Common, Context, Failure};
use crate::config::Service;

/// How often a topic is looked at for new messages.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Messages may become visible in another order than that of their times, by less than this.
const OVERLAP: Duration = Duration::from_secs(3);

/// `cursus browse`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cursus browse orders --limit 20
  cursus browse orders --tag coffee --from 2026-11-30T08:00:00Z --json
  cursus browse orders --follow")]
pub(super) struct Browse {
    /// Topic to look at
    topic: TopicName,
    /// Where to begin: `start`, a time (RFC 3339) or the id of a message [default: start; with --follow now]
    #[arg(long)]
    from: Option<String>,
    /// Go on with the messages that are published meanwhile
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    common: Common,
}

/// Which messages are shown.
#[derive(Debug, Clone, Args)]
pub(super) struct Filter {
    /// Most messages to show
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// Show only messages with this tag
    #[arg(long, value_name = "TEXT")]
    tag: Option<String>,
    /// Show only messages with this key
    #[arg(long, value_name = "TEXT")]
    message_key: Option<String>,
}

impl Browse {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let context = if self.follow {
            Context::patient(&self.common, used)?
        } else {
            Context::of(&self.common, used)?
        };
        let topic = self.topic.as_str();
        if self.follow {
            return follow(&context, topic, self.from, &self.filter).await;
        }
        once(&context, topic, self.from, &self.filter).await
    }
}

/// Shows the messages from a position on.
pub(super) async fn once(
    context: &Context,
    topic: &str,
    from: Option<String>,
    filter: &Filter,
) -> Result<(), Failure> {
    let from = from.unwrap_or_else(|| "start".to_owned());
    Shown::new(filter)
        .page(context, topic, &from, filter)
        .await?;
    Ok(())
}

/// Shows the messages from a position on, and then those that come, until it is interrupted.
pub(super) async fn follow(
    context: &Context,
    topic: &str,
    from: Option<String>,
    filter: &Filter,
) -> Result<(), Failure> {
    let mut shown = Shown::new(filter);
    let mut from = match from {
        Some(from) => from,
        None => {
            let now = now(&context.client).await?;
            // It is told in whole seconds: what was published before in this one is not new.
            shown.is_silent = true;
            shown.page(context, topic, &now, filter).await?;
            shown.is_silent = false;
            shown.floor = now.parse().ok();
            now
        }
    };
    loop {
        if shown.page(context, topic, &from, filter).await? {
            return Ok(());
        }
        if let Some(last) = shown.last {
            shown.floor = shown.floor.or(shown.first);
            let before = OffsetDateTime::from(last) - OVERLAP;
            from = Timestamp::from(before).to_string();
            shown.forget(before.into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The time of the service.
async fn now(client: &Client) -> Result<String, Failure> {
    const DATE: &[BorrowedFormatItem<'_>] = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let answer = client.send(Request::new(Method::GET, "/healthz")).await?;
    let date = answer
        .headers()
        .get(hyper::header::DATE)
        .and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| PrimitiveDateTime::parse(date, DATE).ok());
    match date {
        Some(date) => Ok(Timestamp::from(date.assume_utc()).to_string()),
        None => Err(Failure::Other(
            "the service does not tell its time: say --from".to_owned(),
        )),
    }
}

/// The messages that were shown.
pub(super) struct Shown {
    left: u64,
    /// The times of the earliest and the latest message.
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    /// Messages from before this time are not shown, also where a later look goes back further.
    floor: Option<Timestamp>,
    is_silent: bool,
    /// By time and id. Kept for as long as the next look may return them again.
    recent: BTreeSet<(Timestamp, MessageId)>,
}

impl Shown {
    fn new(filter: &Filter) -> Self {
        Self {
            left: filter.limit.unwrap_or(u64::MAX),
            first: None,
            last: None,
            floor: None,
            is_silent: false,
            recent: BTreeSet::new(),
        }
    }

    /// Shows all messages from a position on that were not shown yet; true when there were enough.
    async fn page(
        &mut self,
        context: &Context,
        topic: &str,
        from: &str,
        filter: &Filter,
    ) -> Result<bool, Failure> {
        let mut path = format!(
            "/v1/topics/{}/messages?from={}",
            segment(topic),
            segment(from)
        );
        for (name, value) in [("tag", &filter.tag), ("key", &filter.message_key)] {
            if let Some(value) = value {
                path += &format!("&{name}={}", segment(value));
            }
        }
        let mut messages = pin!(context.client.each::<Message>(&path));
        while self.left > 0 {
            let Some(message) = messages.try_next().await? else {
                return Ok(false);
            };
            let at = message.published_at;
            let is_new = self.recent.insert((at, message.id)) && Some(at) >= self.floor;
            if is_new && !self.is_silent {
                context.output.message(&message)?;
                self.left -= 1;
            }
            self.first = Some(self.first.map_or(at, |first| first.min(at)));
            self.last = self.last.max(Some(at));
        }
        Ok(true)
    }

    /// Forgets messages from before a time: they are not looked at again.
    fn forget(&mut self, before: Timestamp) {
        self.recent = self.recent.split_off(&(
            before,
            MessageId {
                lane: 0,
                era: 0,
                offset: 0,
            },
        ));
    }
}

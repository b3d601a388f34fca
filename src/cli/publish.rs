//! `cursus publish`: messages from arguments, standard input or a file. Lines of a file are in `lines`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use api::TopicName;
use api::limits::{BATCH_BODY_BYTES_MAX, BATCH_MESSAGES_MAX};
use api::message::PublishMessage;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde_json::{Value, json};

use super::{Common, Context, Failure, lines};
use crate::config::Service;

/// `cursus publish`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cursus publish orders 'two espressos' --tag coffee --attribute table=7
  cursus publish photos --file cat.jpg --content-type image/jpeg
  echo '{\"cups\":2}' | cursus publish orders --content-type application/json
  cursus publish orders --lines events.ndjson --content-type application/json

With --lines, each line is a message, and nothing is published twice: the id of a line (its dedup id) is made of the content
of the whole file and the number of the line, so a repeated or resumed run has the same ids, on any machine. The topic
remembers ids for its dedup window (10 minutes by default). A file that grows, and standard input, have other ids each time:
name them with --source, or resume with the command that is printed. Several requests are in flight, so lines may be stored
in another order; --in-flight 1 keeps theirs.")]
pub(super) struct Publish {
    /// Topic to publish to
    topic: TopicName,
    /// Bodies of messages, one each. Without any, standard input is the body of one
    #[arg(value_name = "BODY", conflicts_with_all = ["file", "lines"])]
    bodies: Vec<String>,
    /// Publish a file as the body of one message, up to 100 MiB
    #[arg(long, value_name = "FILE", conflicts_with = "lines")]
    file: Option<PathBuf>,
    /// Publish each line of a file as a message; `-` is standard input
    #[arg(long, value_name = "FILE")]
    lines: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    lines_options: lines::LinesOptions,
    /// Publish once: a repetition with the same key returns the first answer
    #[arg(long, value_name = "KEY", conflicts_with = "lines")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// What all messages of a publish have.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Messages")]
pub(super) struct Options {
    /// Media type of the bodies; text/plain by default, application/octet-stream if they are no text
    #[arg(long, value_name = "TYPE")]
    pub(super) content_type: Option<String>,
    /// Tag: a label for filtering
    #[arg(long, value_name = "TEXT")]
    pub(super) tag: Option<String>,
    /// Key: an id of your own to find the message by (not the API key, which is --key)
    #[arg(long, value_name = "TEXT")]
    pub(super) message_key: Option<String>,
    /// Attribute; may be repeated
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    pub(super) attributes: Vec<(String, String)>,
}

fn attribute(text: &str) -> Result<(String, String), &'static str> {
    let parts = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((parts.0.to_owned(), parts.1.to_owned()))
}

impl Options {
    /// A message with this body.
    pub(super) fn message<'a>(&'a self, body: &'a [u8]) -> PublishMessage<'a> {
        let mut message = PublishMessage {
            content_type: self.content_type.as_deref().map(Cow::Borrowed),
            tag: self.tag.as_deref().map(Cow::Borrowed),
            key: self.message_key.as_deref().map(Cow::Borrowed),
            ..PublishMessage::default()
        };
        match std::str::from_utf8(body) {
            Ok(text) => message.body = Some(Cow::Borrowed(text)),
            Err(_) => message.body_base64 = Some(Cow::Owned(BASE64_STANDARD.encode(body))),
        }
        if !self.attributes.is_empty() {
            let pair =
                |(name, value): &'a (String, String)| (name.as_str().into(), value.as_str().into());
            message.attributes = Some(self.attributes.iter().map(pair).collect::<BTreeMap<_, _>>());
        }
        message
    }
}

impl Publish {
    pub(super) async fn run(mut self, used: &mut Option<Service>) -> Result<(), Failure> {
        if let Some(path) = self.lines.take() {
            let context = Context::patient(&self.common, used)?;
            let lines = lines::Lines {
                path,
                topic: self.topic,
                options: self.options,
                how: self.lines_options,
            };
            return lines.publish(&context).await;
        }
        self.lines_options.refuse()?;
        let context = Context::of(&self.common, used)?;
        let bodies = self.bodies()?;
        if bodies.len() > BATCH_MESSAGES_MAX {
            return Err(Failure::Usage(format!(
                "at most {BATCH_MESSAGES_MAX} bodies at once; publish more as the lines of a file: --lines -"
            )));
        }
        match <[_; 1]>::try_from(bodies) {
            Ok([body]) => self.one(&context, body).await,
            Err(bodies) => self.batch(&context, &bodies).await,
        }
    }

    fn bodies(&mut self) -> Result<Vec<Vec<u8>>, Failure> {
        if !self.bodies.is_empty() {
            let bodies = std::mem::take(&mut self.bodies).into_iter();
            return Ok(bodies.map(String::into_bytes).collect());
        }
        let body = match self.file.as_deref() {
            Some(path) if path != Path::new("-") => {
                fs::read(path).map_err(|error| Failure::file(path, &error))?
            }
            given => {
                if given.is_none() && io::stdin().is_terminal() {
                    return Err(Failure::Usage(format!(
                        "there is no body: cursus publish {} 'text', or --file FILE, or --lines FILE, or a pipe",
                        self.topic
                    )));
                }
                let mut body = Vec::new();
                let read = io::stdin().lock().read_to_end(&mut body);
                read.map_err(|error| Failure::file(Path::new("standard input"), &error))?;
                body
            }
        };
        Ok(vec![body])
    }

    async fn one(self, context: &Context, body: Vec<u8>) -> Result<(), Failure> {
        // A batch keeps the names of attributes as they are, but has no idempotency key for one message.
        if body.len() <= BATCH_BODY_BYTES_MAX && self.idempotency_key.is_none() {
            return self.batch(context, &[body]).await;
        }
        let Options {
            content_type,
            tag,
            message_key,
            attributes,
        } = self.options;
        let is_text = std::str::from_utf8(&body).is_ok();
        let guessed = if is_text {
            "text/plain"
        } else {
            "application/octet-stream"
        };
        let message = cursus_sdk::Publish {
            content_type: content_type.unwrap_or_else(|| guessed.to_owned()),
            tag,
            key: message_key,
            attributes: attributes.into_iter().collect(),
            idempotency_key: self.idempotency_key,
            ..cursus_sdk::Publish::bytes(body)
        };
        let id = context.client.publish(self.topic.as_str(), message).await?;
        context.output.done(&json!({"id": id}), &id.to_string())
    }

    async fn batch(self, context: &Context, bodies: &[Vec<u8>]) -> Result<(), Failure> {
        if self.idempotency_key.is_some() {
            let text = "--idempotency-key is for one body; several bodies are several messages";
            return Err(Failure::Usage(text.to_owned()));
        }
        let messages = bodies
            .iter()
            .map(|body| self.options.message(body))
            .collect();
        let results = context
            .client
            .publish_batch(self.topic.as_str(), messages)
            .await?;
        let failed: Vec<String> = results
            .iter()
            .enumerate()
            .filter_map(|(at, result)| {
                let problem = result.error.as_ref()?;
                Some(format!("message {}: {}", at + 1, problem.detail))
            })
            .collect();
        for result in &results {
            if let Some(id) = result.id {
                let value: Value = serde_json::to_value(result)?;
                context.output.done(&value, &id.to_string())?;
            }
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(Failure::Some(failed.join("\n"))),
        }
    }
}

//! The commands for people, over HTTP: each speaks to a service by the crate `cursus-sdk` and the types of `api`, as any
//! program could. It knows nothing of the engine, the store or the server; `demo` starts a node as a process of its own.
//!
//! A command is a file with its flags and what it does, and a line in `Command`. Results go to standard output, as tables
//! or with `--json`; all else goes to standard error. How a command ends is said in `exit`.

mod bench;
mod browse;
mod demo;
mod exit;
mod key;
mod lines;
mod message;
mod output;
mod profile;
mod publish;
mod quota;
mod receive;
mod settle;
mod shell;
mod stats;
mod subscription;
mod tail;
mod tenant;
mod topic;
mod usage;

use std::time::Duration;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use cursus_sdk::{Client, Options};
use futures_util::TryStreamExt;
use serde_json::Value;

use crate::config::{self, Connection, Service};

pub use exit::{CODES, Failure};

use output::{Column, Output};

/// A serverless HTTP messaging service: the node, and commands that speak to one.
#[derive(Debug, Parser)]
#[command(name = "cursus", version, about, after_help = CODES)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Node(config::Command),
    #[command(flatten)]
    Client(Box<ClientCommand>),
}

#[derive(Debug, Subcommand)]
enum ClientCommand {
    /// Show publish, receive, a retry, a dead letter and a webhook, on a node of its own
    Demo(demo::Demo),
    /// Create, change, list and delete topics
    Topic(topic::Topic),
    /// Create, change, list and delete subscriptions
    Subscription(subscription::Subscription),
    /// Publish messages: from arguments, standard input, or the lines of a file
    Publish(Box<publish::Publish>),
    /// Receive messages of a subscription
    Receive(receive::Receive),
    /// Acknowledge messages: they are processed
    Ack(settle::Ack),
    /// Give messages back: they are handed out again
    Nack(settle::Nack),
    /// Settle messages in any way: ack, nack, extend, dead-letter
    Settle(settle::Settle),
    /// Show the messages of a subscription as they come
    Tail(tail::Tail),
    /// Show the messages of a topic without consuming them
    Browse(browse::Browse),
    /// Show a message, or its body
    Message(message::Message),
    /// Show what waits in subscriptions
    Stats(stats::Stats),
    /// Show what was used, and what it costs
    Usage(usage::Usage),
    /// Show and set the limits of a tenant
    Quota(quota::Quota),
    /// Create, change and suspend tenants
    Tenant(tenant::Tenant),
    /// Keep URLs and keys of services under names
    Profile(profile::ProfileCommands),
    /// Measure how fast messages go through a service
    Bench(bench::Bench),
    /// Print completions for a shell
    Completions(shell::Completions),
    /// Print a manual page, or write all of them
    Man(shell::Man),
}

/// Flags of every command that speaks to a service.
#[derive(Clone, Debug, Args)]
struct Common {
    #[command(flatten)]
    connection: Connection,
    /// Print JSON: one value, or one a line
    #[arg(long, global = true)]
    json: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Task {
    /// Something that a node, or the program itself, does.
    Node(Box<config::Task>),
    /// A command of the client.
    Client(Call),
}

/// A command of the client.
#[derive(Debug)]
pub struct Call(What);

#[derive(Debug)]
enum What {
    Command(Box<ClientCommand>),
    Key(config::KeyCommand),
}

/// Reads the command line. When it cannot be read, the process ends with clap's message.
///
/// # Errors
/// When the settings of a node contradict each other.
pub fn parse() -> Result<Task, config::Error> {
    task_of(&config::arguments::<Program>())
}

fn task_of(matches: &ArgMatches) -> Result<Task, config::Error> {
    Ok(match Program::from_arg_matches(matches)?.command {
        Command::Node(config::Command::Key(command)) if key::is_remote(&command, matches) => {
            Task::Client(Call(What::Key(command)))
        }
        Command::Node(command) => Task::Node(Box::new(config::task_of(command, matches)?)),
        Command::Client(command) => Task::Client(Call(What::Command(command))),
    })
}

/// A command that runs: the service, and where results go.
struct Context {
    client: Client,
    service: Service,
    output: Output,
}

impl Context {
    /// For requests of people, which do not wait long.
    fn of(common: &Common, used: &mut Option<Service>) -> Result<Self, Failure> {
        let options = Options {
            retries: 2,
            max_wait: HURRY,
            ..Options::default()
        };
        Self::with(common, used, options)
    }

    /// For commands that run for long: an outage of some 25 seconds is lived through.
    fn patient(common: &Common, used: &mut Option<Service>) -> Result<Self, Failure> {
        let options = Options {
            retries: 8,
            ..Options::default()
        };
        Self::with(common, used, options)
    }

    fn with(
        common: &Common,
        used: &mut Option<Service>,
        options: Options,
    ) -> Result<Self, Failure> {
        let service = common.connection.service()?;
        *used = Some(service.clone());
        let options = Options {
            key: service.key.as_ref().map(|key| key.expose().to_owned()),
            ..options
        };
        Ok(Self {
            client: Client::with_options(&service.url, options)?,
            service,
            output: Output { json: common.json },
        })
    }

    /// Prints all items of a list.
    async fn list(&self, path: &str, columns: &[Column]) -> Result<(), Failure> {
        let pages = self.client.each(&format!("{path}?limit=1000"));
        let items: Vec<Value> = pages.try_collect().await?;
        self.output.list(&items, columns)
    }
}

/// A person waits no longer than this for a retry.
const HURRY: Duration = Duration::from_secs(3);

/// Runs a command, and returns its exit code with what to say about it.
pub async fn run(call: Call) -> (u8, Option<String>) {
    let mut service = None;
    match Box::pin(run_command(call.0, &mut service)).await {
        Ok(()) => (0, None),
        Err(failure) => (failure.code(), failure.text(service.as_ref())),
    }
}

async fn run_command(what: What, used: &mut Option<Service>) -> Result<(), Failure> {
    let command = match what {
        What::Key(command) => return key::run(command, used).await,
        What::Command(command) => *command,
    };
    match command {
        ClientCommand::Demo(command) => command.run(used).await,
        ClientCommand::Topic(command) => command.run(used).await,
        ClientCommand::Subscription(command) => command.run(used).await,
        ClientCommand::Publish(command) => command.run(used).await,
        ClientCommand::Receive(command) => command.run(used).await,
        ClientCommand::Ack(command) => command.run(used).await,
        ClientCommand::Nack(command) => command.run(used).await,
        ClientCommand::Settle(command) => command.run(used).await,
        ClientCommand::Tail(command) => command.run(used).await,
        ClientCommand::Browse(command) => command.run(used).await,
        ClientCommand::Message(command) => command.run(used).await,
        ClientCommand::Stats(command) => command.run(used).await,
        ClientCommand::Usage(command) => command.run(used).await,
        ClientCommand::Quota(command) => command.run(used).await,
        ClientCommand::Tenant(command) => command.run(used).await,
        ClientCommand::Profile(command) => command.run(),
        ClientCommand::Bench(command) => command.run(used).await,
        ClientCommand::Completions(command) => command.run(Program::command()),
        ClientCommand::Man(command) => command.run(Program::command()),
    }
}

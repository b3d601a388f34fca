//! Configuration: flags and environment variables, and how they combine. `cli` reads the command line with `arguments`;
//! `task_of` makes the finished `Config` of a node, `Connection` says which service a command speaks to. No other module
//! reads the environment. A secret is a `Secret` from the moment it is read.

mod args;
mod connection;
mod resolve;
mod secret;
mod show;
mod units;

use std::ffi::OsString;
use std::path::PathBuf;

use api::key::KeySettings;
use api::{KeyId, TenantName};
use clap::builder::Resettable;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::blob::Storage;

pub use args::{
    Cli, Command, KeyCommand, KeyCreate, KeyList, KeyRevoke, LogFormat, Logging, Outbound, Serving,
    Settings, Toggle, Tuning,
};
pub use connection::{Connection, Profile, ProfileError, Profiles, Service};
pub use resolve::Error;
pub use secret::Secret;
pub use units::{ByteSize, Period};

/// The task that the command line asks for.
#[derive(Debug)]
pub enum Task {
    /// Run a node.
    Serve(Config),
    /// Print this table of settings.
    ShowConfig(String),
    /// Check that the node with these settings is ready.
    Health(Config),
    /// Manage the API keys of `tenant`.
    Keys {
        /// Location of the database.
        config: Config,
        /// Name of the tenant.
        tenant: TenantName,
        /// What to do with its keys.
        task: KeyTask,
    },
    /// Print the OpenAPI document.
    PrintOpenapi,
}

/// What to do with the API keys of a tenant.
#[derive(Debug)]
pub enum KeyTask {
    /// Create a key and print it.
    Create(KeySettings),
    /// Print a list of them.
    List,
    /// Revoke the key with this id.
    Revoke(KeyId),
}

/// All settings of a node, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Settings of the listener.
    pub serving: Serving,
    /// Certificate and key; `None` serves plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Requests to others.
    pub outbound: Outbound,
    /// Location of the data.
    pub mode: Mode,
    /// Settings of the engine and its workers.
    pub tuning: Tuning,
    /// Settings of the log.
    pub logging: Logging,
    /// Warnings about settings that have no effect; logged once.
    pub warnings: Vec<String>,
}

/// Where data is stored.
#[derive(Clone, Debug)]
pub enum Mode {
    /// A private Postgres and a directory of objects: loopback only, one tenant, no key required.
    Embedded {
        /// Directory of both.
        data_dir: PathBuf,
        /// Directory of the Postgres binaries, if the user named one.
        postgres_bin: Option<PathBuf>,
    },
    /// One node of many, on a shared Postgres and object store.
    Fleet {
        /// URL of the database, with its password.
        database_url: Secret,
        /// The object store.
        objects: Storage,
    },
}

/// Files of a TLS identity.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// Reads flags and environment variables as `P` says. An empty variable means unset, because compose files and charts
/// pass empty ones on. When the arguments cannot be read, the process ends with clap's message.
#[must_use]
pub fn arguments<P: CommandFactory>() -> ArgMatches {
    without_empty(P::command()).get_matches()
}

/// The program that runs, to start it once more.
///
/// # Errors
///
/// When the system does not tell.
pub fn program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// Makes clap ignore environment variables that are empty.
fn without_empty(mut command: clap::Command) -> clap::Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in names {
        command = command.mut_subcommand(name, without_empty);
    }
    command.mut_args(|arg| {
        let is_empty = |name| std::env::var_os(name).is_some_and(|value| value.is_empty());
        if arg.get_env().is_some_and(is_empty) {
            arg.env(Resettable::Reset)
        } else {
            arg
        }
    })
}

/// The directory for files that nobody keeps.
#[must_use]
pub fn temporary() -> PathBuf {
    std::env::temp_dir()
}

/// Parses the given arguments; for tests.
///
/// # Errors
///
/// When the arguments cannot be read or contradict each other.
pub fn parse_from<I, T>(args: I) -> Result<Task, Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let matches = Cli::command().try_get_matches_from(args)?;
    task_of(Cli::from_arg_matches(&matches)?.command, &matches)
}

/// The task of a command. `matches` are those of the whole command line.
///
/// # Errors
///
/// When the settings contradict each other.
pub fn task_of(command: Command, matches: &ArgMatches) -> Result<Task, Error> {
    Ok(match command {
        Command::Serve(settings) => Task::Serve(resolve::resolve(*settings)?),
        Command::Config(settings) => {
            let config = resolve::resolve(*settings)?;
            Task::ShowConfig(show::table(matches, &config))
        }
        Command::Health(settings) => Task::Health(resolve::resolve(*settings)?),
        Command::Key(KeyCommand::Create(args)) => {
            let task = KeyTask::Create(args.key_settings());
            Task::Keys {
                config: resolve::resolve(args.settings)?,
                tenant: args.tenant,
                task,
            }
        }
        Command::Key(KeyCommand::List(args)) => Task::Keys {
            config: resolve::resolve(args.settings)?,
            tenant: args.tenant,
            task: KeyTask::List,
        },
        Command::Key(KeyCommand::Revoke(args)) => Task::Keys {
            config: resolve::resolve(args.settings)?,
            tenant: args.tenant,
            task: KeyTask::Revoke(args.id),
        },
        Command::Openapi => Task::PrintOpenapi,
    })
}

#[cfg(test)]
mod tests;

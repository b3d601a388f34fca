//! Configuration: flags, environment and what they mean together. `main` calls `parse` once; everything else is given
//! the finished `Config`. No other module reads the environment. A secret is a `Secret` from the moment it is read.

mod args;
mod resolve;
mod secret;
mod show;
mod units;

use std::ffi::OsString;
use std::path::PathBuf;

use api::TenantName;
use api::key::KeySettings;
use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches};

pub use args::{Cli, LogFormat, Logging, Serving, Settings, Tuning};
pub use resolve::Error;
pub use secret::Secret;
pub use units::{ByteSize, Period};

use args::{Command, KeyCommand};

/// What the command line asks for.
#[derive(Debug)]
pub enum Task {
    /// Run a node.
    Serve(Config),
    /// Print this table of settings.
    ShowConfig(String),
    /// Create an API key for `tenant` and print it.
    CreateKey {
        /// Where the database is.
        config: Config,
        /// Name of the tenant.
        tenant: TenantName,
        /// What the key may do.
        settings: KeySettings,
    },
    /// Print the OpenAPI document.
    PrintOpenapi,
}

/// All that a node needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// How it listens.
    pub serving: Serving,
    /// Certificate and key; `None` serves plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Where its data is.
    pub mode: Mode,
    /// How it works.
    pub tuning: Tuning,
    /// What it logs.
    pub logging: Logging,
    /// Settings that have no effect as things are; logged once.
    pub warnings: Vec<String>,
}

/// Where data is.
#[derive(Clone, Debug)]
pub enum Mode {
    /// A private Postgres and a directory of objects; loopback, one tenant, no key needed.
    Embedded {
        /// Directory of both.
        data_dir: PathBuf,
        /// Directory of the Postgres binaries, if the user named one.
        postgres_bin: Option<PathBuf>,
    },
    /// One node of many, over a Postgres and an object store that others run.
    Fleet {
        /// URL of the database, with its password.
        database_url: Secret,
        /// The object store.
        objects: S3,
    },
}

/// An S3 bucket and how to reach it.
#[derive(Clone, Debug)]
pub struct S3 {
    /// Bucket name.
    pub bucket: String,
    /// Put before every key; empty, or ending in `/`.
    pub prefix: String,
    /// Endpoint; `None` is AWS.
    pub endpoint: Option<String>,
    /// Region; `None` leaves it to the cloud's own configuration.
    pub region: Option<String>,
    /// Access key and its secret; `None` leaves it to the cloud's own credentials.
    pub credentials: Option<(Secret, Secret)>,
    /// Bucket in the path rather than in the host name.
    pub force_path_style: bool,
}

/// Files of a TLS identity.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// Reads flags and environment, in which an empty value means unset: compose files and charts pass them on empty. Ends
/// the process with clap's message when they cannot be read at all.
///
/// # Errors
///
/// When the settings contradict each other.
pub fn parse() -> Result<Task, Error> {
    task_of(&without_empty(Cli::command()).get_matches())
}

/// Forgets the environment variables that are empty.
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

/// The same from given arguments; for tests.
///
/// # Errors
///
/// When the arguments cannot be read or contradict each other.
pub fn parse_from<I, T>(args: I) -> Result<Task, Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    task_of(&Cli::command().try_get_matches_from(args)?)
}

fn task_of(matches: &clap::ArgMatches) -> Result<Task, Error> {
    Ok(match Cli::from_arg_matches(matches)?.command {
        Command::Serve(settings) => Task::Serve(resolve::resolve(*settings)?),
        Command::Config(settings) => {
            let config = resolve::resolve(*settings)?;
            Task::ShowConfig(show::table(matches, &config))
        }
        Command::Key(KeyCommand::Create(args)) => {
            let expires = args.expires_in.map(|life| life.duration().as_secs());
            Task::CreateKey {
                config: resolve::resolve(args.settings)?,
                tenant: args.tenant,
                settings: KeySettings {
                    name: args.name,
                    scopes: (!args.scopes.is_empty()).then_some(args.scopes),
                    expires_in_seconds: expires.and_then(|seconds| seconds.try_into().ok()),
                },
            }
        }
        Command::Openapi => Task::PrintOpenapi,
    })
}

#[cfg(test)]
mod tests;

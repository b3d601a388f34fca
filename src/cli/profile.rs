//! `cursus profile`: URLs and keys of services under names, in a file that only its owner may read.

use std::io::Read;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Failure;
use super::key::without_secret;
use super::output::{Column, Output, note};
use crate::config::{Profile, Profiles, Secret};

const COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("URL", "/url"),
    ("KEY", "/key"),
    ("DEFAULT", "/default"),
];

/// `cursus profile`.
#[derive(Debug, Args)]
pub(super) struct ProfileCommands {
    #[command(subcommand)]
    verb: Verb,
    /// Print JSON: one value a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a profile, or replace it. The first one becomes the default
    #[command(
        after_help = "Example:\n  cursus profile set prod --url https://cursus.example.com --key - < key.txt"
    )]
    Set {
        /// Name of the profile
        name: String,
        /// URL of the service
        #[arg(long)]
        url: String,
        /// API key or token; `-` reads it from standard input
        #[arg(long)]
        key: Option<Secret>,
        /// Use it when no service is named
        #[arg(long)]
        default: bool,
    },
    /// List all profiles, without their secrets
    #[command(after_help = "Example:\n  cursus profile list")]
    List,
    /// Use a profile when no service is named
    #[command(after_help = "Example:\n  cursus profile use prod")]
    Use {
        /// Name of the profile
        name: String,
    },
    /// Remove a profile and its key
    #[command(after_help = "Example:\n  cursus profile remove prod")]
    Remove {
        /// Name of the profile
        name: String,
    },
}

impl ProfileCommands {
    pub(super) fn run(self) -> Result<(), Failure> {
        let output = Output { json: self.json };
        let mut all = Profiles::read()?;
        let unknown = |name: &str| Failure::Usage(format!("profile {name} does not exist"));
        match self.verb {
            Verb::List => return output.list(&rows(&all), COLUMNS),
            Verb::Set {
                name,
                url,
                key,
                default,
            } => {
                // A URL that cannot be used is found here, not at the first request.
                cursus_sdk::Client::with_options(&url, cursus_sdk::Options::default())?;
                let key = key.map(|key| read_key(&key)).transpose()?;
                all.profiles.insert(name.clone(), Profile { url, key });
                if default || all.default.is_none() {
                    all.default = Some(name);
                }
            }
            Verb::Use { name } => {
                if !all.profiles.contains_key(&name) {
                    return Err(unknown(&name));
                }
                all.default = Some(name);
            }
            Verb::Remove { name } => {
                all.profiles.remove(&name).ok_or_else(|| unknown(&name))?;
                all.default = all.default.filter(|default| *default != name);
            }
        }
        all.write()?;
        note(&format!("written to {}", Profiles::path()?.display()));
        Ok(())
    }
}

fn rows(all: &Profiles) -> Vec<Value> {
    let row = |(name, profile): (&String, &Profile)| {
        let shown = |key: &String| without_secret(key).unwrap_or_else(|| "***".to_owned());
        let key = profile.key.as_ref().map(shown);
        let is_default = all.default.as_ref() == Some(name);
        json!({"name": name, "url": profile.url, "key": key, "default": is_default})
    };
    all.profiles.iter().map(row).collect()
}

fn read_key(given: &Secret) -> Result<String, Failure> {
    if given.expose() != "-" {
        return Ok(given.expose().to_owned());
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().read_to_string(&mut text);
    read.map_err(|error| Failure::Usage(format!("standard input: {error}")))?;
    match text.trim() {
        "" => Err(Failure::Usage("standard input has no key".to_owned())),
        key => Ok(key.to_owned()),
    }
}

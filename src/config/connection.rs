//! Where the commands of the client find their service: flags, environment and a file of profiles. A flag beats the
//! environment, which beats the file's default profile. The key of a profile is sent to the URL of that profile alone.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// Where a node listens unless it is told otherwise.
const URL: &str = "http://127.0.0.1:8080";
/// Permissions of the group and of others.
const OTHERS: u32 = 0o077;

/// Flags of every command that speaks to a service.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Service")]
pub struct Connection {
    /// URL of the service [env: CURSUS_URL] [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", global = true)]
    pub url: Option<String>,
    /// API key or token; other users of this machine can see it, so better set it in the environment or in a profile
    /// [env: CURSUS_KEY]
    #[arg(long = "key", id = "api_key", value_name = "KEY", global = true)]
    pub key: Option<Secret>,
    /// Profile with URL and key, made by `cursus profile set` [env: CURSUS_PROFILE]
    #[arg(long, value_name = "NAME", global = true)]
    pub profile: Option<String>,
}

/// A service to speak to.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its URL.
    pub url: String,
    /// What named the URL, for messages.
    pub url_from: String,
    /// The key to send.
    pub key: Option<Secret>,
    /// What named the key, for messages.
    pub key_from: String,
}

/// The profiles cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProfileError(String);

/// A URL with its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// URL of the service.
    pub url: String,
    /// API key or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The file of profiles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    /// The profile that is used when no service is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// All profiles by name.
    #[serde(default)]
    pub profiles: BTreeMap<String, Profile>,
}

fn variable(name: &str) -> Option<String> {
    let value = env::var_os(name)?.into_string().ok();
    value.filter(|value| !value.is_empty())
}

/// A setting with what gave it.
fn given(
    flag: Option<&str>,
    name: &'static str,
    env: &'static str,
) -> Option<(String, &'static str)> {
    let flag = flag.map(|value| (value.to_owned(), name));
    flag.or_else(|| Some((variable(env)?, env)))
}

impl Connection {
    /// What names a service, if anything but the file's default profile does: a flag or a variable.
    #[must_use]
    pub fn named_by(&self) -> Option<&'static str> {
        let url = given(self.url.as_deref(), "--url", "CURSUS_URL");
        let profile = given(self.profile.as_deref(), "--profile", "CURSUS_PROFILE");
        url.or(profile).map(|(_, by)| by)
    }

    /// The service to speak to.
    ///
    /// # Errors
    /// When the profile does not exist, its file cannot be read or can be read by others, or URL and profile contradict.
    pub fn service(&self) -> Result<Service, ProfileError> {
        let mut url = given(self.url.as_deref(), "--url", "CURSUS_URL");
        let mut profile = given(self.profile.as_deref(), "--profile", "CURSUS_PROFILE");
        match (&url, &profile) {
            (Some((_, "CURSUS_URL")), Some((_, "--profile"))) => url = None,
            (Some((_, "--url")), Some((_, "CURSUS_PROFILE"))) => profile = None,
            (Some((_, url)), Some((_, profile))) => {
                return Err(ProfileError(format!(
                    "{url} and {profile} both name a service: give one of them"
                )));
            }
            _ => {}
        }
        let flag_key = self.key.clone().map(|key| (key, "--key".to_owned()));
        let env_key = || {
            Some((
                variable("CURSUS_KEY")?.parse().ok()?,
                "CURSUS_KEY".to_owned(),
            ))
        };
        let (url, url_from, own_key) = if let Some((url, by)) = url {
            (url, by.to_owned(), None)
        } else {
            let is_flag = profile.as_ref().is_some_and(|(_, by)| *by == "--profile");
            match named(profile.map(|(name, _)| name))? {
                None => (URL.to_owned(), "the default".to_owned(), None),
                Some((name, found)) => {
                    let from = format!("profile {name}");
                    let key: Option<Secret> = found.key.and_then(|key| key.parse().ok());
                    (found.url, from.clone(), key.map(|key| (key, from, is_flag)))
                }
            }
        };
        // A profile that is named by a flag beats the environment.
        let (first, last) = match own_key {
            Some((key, from, true)) => (Some((key, from)), None),
            Some((key, from, false)) => (None, Some((key, from))),
            None => (None, None),
        };
        let key = flag_key.or(first).or_else(env_key).or(last);
        let (key, key_from) = key.unzip();
        Ok(Service {
            url,
            url_from,
            key,
            key_from: key_from.unwrap_or_default(),
        })
    }
}

/// The profile with this name, or the default one, if there is one.
fn named(name: Option<String>) -> Result<Option<(String, Profile)>, ProfileError> {
    let profiles = Profiles::read()?;
    let Some(name) = name.or_else(|| profiles.default.clone()) else {
        return Ok(None);
    };
    let mut all = profiles.profiles;
    if let Some(found) = all.remove(&name) {
        return Ok(Some((name, found)));
    }
    let known: Vec<String> = all.into_keys().collect();
    let known = match known.is_empty() {
        true => format!("there are none; make it: cursus profile set {name} --url URL --key KEY"),
        false => format!("there are: {}", known.join(", ")),
    };
    Err(ProfileError(format!(
        "profile {name} does not exist; {known}"
    )))
}

impl Profiles {
    /// Where the file is.
    ///
    /// # Errors
    /// When neither XDG_CONFIG_HOME nor HOME is set.
    pub fn path() -> Result<PathBuf, ProfileError> {
        let home = || Some(Path::new(&variable("HOME")?).join(".config"));
        let folder = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
        let folder = folder.ok_or_else(|| {
            ProfileError("no folder for profiles: set HOME or XDG_CONFIG_HOME".to_owned())
        })?;
        Ok(folder.join("cursus").join("profiles.json"))
    }

    /// Reads the file; without one there are no profiles.
    ///
    /// # Errors
    /// When it cannot be read, or holds a key and others may read it.
    pub fn read() -> Result<Self, ProfileError> {
        let Ok(path) = Self::path() else {
            return Ok(Self::default());
        };
        let wrong =
            |why: &dyn std::fmt::Display| ProfileError(format!("{}: {why}", path.display()));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(wrong(&error)),
        };
        let mode = file.metadata().map_err(|error| wrong(&error))?.mode();
        let read: Self =
            serde_json::from_reader(io::BufReader::new(file)).map_err(|error| wrong(&error))?;
        let has_key = read.profiles.values().any(|profile| profile.key.is_some());
        if has_key && mode & OTHERS != 0 {
            let path = path.display();
            return Err(wrong(&format!(
                "it holds keys, and other users may read it: chmod 600 '{path}'"
            )));
        }
        Ok(read)
    }

    /// Writes the file, for its owner alone.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> Result<(), ProfileError> {
        let path = Self::path()?;
        let wrong = |error: io::Error| ProfileError(format!("{}: {error}", path.display()));
        let folder = path.parent().unwrap_or(Path::new("."));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(wrong)?;
        // Whole or not at all: a file that was cut would lose keys.
        let new = path.with_extension("json.new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let text = serde_json::to_string_pretty(self).map_err(|error| wrong(error.into()))?;
        let mut file = options.open(&new).map_err(wrong)?;
        file.write_all(format!("{text}\n").as_bytes())
            .map_err(wrong)?;
        file.sync_all().map_err(wrong)?;
        fs::rename(&new, &path).map_err(wrong)
    }
}

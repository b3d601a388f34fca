//! The table that `cursus config` prints: setting, value, origin. Its rows are clap's own list of flags, so no setting
//! can be missing. A flag whose environment value clap hides is a secret and printed as such.

use std::ffi::OsStr;
use std::fmt::Write;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory};

use super::secret::HIDDEN;
use super::{Cli, Config, Mode};

pub(super) fn table(matches: &ArgMatches, config: &Config) -> String {
    let command = Cli::command();
    let rows: Vec<[String; 3]> = matches
        .subcommand()
        .and_then(|(name, matches)| Some((command.find_subcommand(name)?, matches)))
        .map(|(command, matches)| {
            command
                .get_arguments()
                .filter_map(|arg| row(arg, matches))
                .collect()
        })
        .unwrap_or_default();
    let mode = match &config.mode {
        Mode::Embedded { .. } => "embedded (private Postgres; set DATABASE_URL for a fleet)",
        Mode::Fleet { .. } => "fleet (DATABASE_URL is set)",
    };
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (name_width, value_width) = (width(0), width(1));
    let mut table = format!("mode: {mode}\n\n");
    for [name, value, origin] in &rows {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{name:name_width$}  {value:value_width$}  {origin}");
    }
    for warning in &config.warnings {
        let _ = writeln!(table, "\nwarning: {warning}");
    }
    table
}

fn row(arg: &Arg, matches: &ArgMatches) -> Option<[String; 3]> {
    let name = arg.get_long()?;
    let env = arg.get_env()?.to_string_lossy();
    let id = arg.get_id().as_str();
    let value = matches
        .get_raw(id)
        .and_then(|mut values| values.next_back())
        .filter(|value| *value != OsStr::new(""));
    let (value, origin) = match (value, matches.value_source(id)) {
        (None, _) => ("-".to_owned(), format!("not set ({env})")),
        (Some(value), source) => {
            let shown = if arg.is_hide_env_values_set() {
                HIDDEN.to_owned()
            } else {
                value.to_string_lossy().into_owned()
            };
            let origin = match source {
                Some(ValueSource::CommandLine) => format!("flag --{name}"),
                Some(ValueSource::EnvVariable) => format!("environment {env}"),
                _ => "default".to_owned(),
            };
            (shown, origin)
        }
    };
    Some([name.to_owned(), value, origin])
}

//! `cursus completions` and `cursus man`: made of the flags, on demand.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::Failure;
use super::output::{bytes, note};

/// `cursus completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cursus completions bash > ~/.local/share/bash-completion/completions/cursus
  cursus completions zsh > ~/.zfunc/_cursus
  cursus completions fish > ~/.config/fish/completions/cursus.fish")]
pub(super) struct Completions {
    /// Shell to make them for
    shell: Shell,
}

/// `cursus man`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cursus man publish | man -l -\n  cursus man --all ~/.local/share/man/man1"
)]
pub(super) struct Man {
    /// Command whose page is printed, such as `topic create`; cursus itself by default
    #[arg(value_name = "COMMAND", conflicts_with = "all")]
    command: Vec<String>,
    /// Write the pages of all commands to this directory
    #[arg(long, value_name = "DIR")]
    all: Option<PathBuf>,
}

impl Completions {
    pub(super) fn run(self, mut program: Command) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "cursus", &mut script);
        bytes(&script)
    }
}

impl Man {
    pub(super) fn run(self, mut program: Command) -> Result<(), Failure> {
        program.build();
        if let Some(dir) = self.all {
            let wrong = |error| Failure::file(&dir, &error);
            fs::create_dir_all(&dir).map_err(wrong)?;
            clap_mangen::generate_to(program, &dir).map_err(wrong)?;
            note(&format!("written to {}", dir.display()));
            return Ok(());
        }
        let mut found = &program;
        for name in &self.command {
            let inner = found.find_subcommand(name);
            found = inner.ok_or_else(|| {
                Failure::Usage(format!("{} has no command {name}", found.get_name()))
            })?;
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(found.clone()).render(&mut page)?;
        bytes(&page)
    }
}

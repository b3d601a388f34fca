//! The machine of a run; a figure has no meaning without it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// `f_type` of tmpfs, from statfs(2).
const TMPFS: u64 = 0x0102_1994;

/// A warning when the directory is on tmpfs, where `fsync` costs nothing and the figures are worthless.
pub(crate) fn warning(directory: &Path) -> crate::Result<Option<String>> {
    std::fs::create_dir_all(directory)?;
    let kind = rustix::fs::statfs(directory)?.f_type;
    Ok((u64::try_from(kind)? == TMPFS).then(|| {
        format!(
            "{} is on tmpfs, where a commit is never written: give --directory on a disk",
            directory.display()
        )
    }))
}

/// CPU, cores, kernel, memory, date and commit; null for what cannot be read.
pub(crate) fn describe() -> Value {
    json!({
        "cpu": line_of("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "memory": line_of("/proc/meminfo", "MemTotal"),
        "kernel": output("uname", &["-sr"]),
        "date": output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        "commit": output("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
    })
}

fn line_of(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

//! Processes by their number: what `postmaster.pid` says, whether that process is really the Postgres of this cluster,
//! and signals to it. Numbers are used again, so nothing is signalled before `works_in` has agreed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::{Instant, sleep};

/// The first and the eighth line of `postmaster.pid`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub(super) pid: u32,
    pub(super) ready: bool,
}

impl Postmaster {
    pub(super) fn read(cluster: &Path) -> Option<Self> {
        parse(&fs::read_to_string(cluster.join("postmaster.pid")).ok()?)
    }
}

fn parse(text: &str) -> Option<Postmaster> {
    Some(Postmaster {
        pid: text.lines().next()?.trim().parse().ok()?,
        ready: text
            .lines()
            .nth(7)
            .is_some_and(|status| status.trim() == "ready"),
    })
}

/// Whether `pid` is a living Postgres of this cluster: its working directory is the cluster's.
#[cfg(target_os = "linux")]
pub(super) fn works_in(pid: u32, cluster: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == cluster)
}

/// Whether `pid` is a living Postgres; elsewhere than on Linux its directory is not easily seen.
#[cfg(not(target_os = "linux"))]
pub(super) fn works_in(pid: u32, _cluster: &Path) -> bool {
    let output = std::process::Command::new("ps")
        .args(["-o", "comm=", "-p", &pid.to_string()])
        .output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("postgres"))
}

/// Whether there is a process of this number at all.
pub(super) fn exists(pid: u32) -> bool {
    number(pid).is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = number(pid)
        && let Err(err) = kill_process(pid, signal)
    {
        tracing::debug!(%err, ?signal, "signalling Postgres");
    }
}

/// Stops a Postgres that is not a child of this process, ever more firmly.
pub(super) async fn stop(pid: u32, cluster: &Path, patience: Duration) {
    for step in [Signal::INT, Signal::QUIT, Signal::KILL] {
        signal(pid, step);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !works_in(pid, cluster) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_postmaster_is_ready_when_its_file_says_so() {
        let head = "42\n/data\n1795393455\n5432\n/tmp/s\n\n 10118800         8\n";
        assert_eq!(
            parse(&format!("{head}ready   \n")),
            Some(Postmaster {
                pid: 42,
                ready: true
            })
        );
        assert_eq!(
            parse(&format!("{head}starting\n")),
            Some(Postmaster {
                pid: 42,
                ready: false
            })
        );
        assert_eq!(
            parse("42\n"),
            Some(Postmaster {
                pid: 42,
                ready: false
            })
        );
        assert_eq!(parse(""), None);
    }
}

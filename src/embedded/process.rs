//! Processes by their id: the content of `postmaster.pid`, whether that process is the Postgres of this cluster, and
//! signals to it. Process ids are reused, so `works_in` is checked before a signal is sent.

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

/// Whether `pid` is a running Postgres of this cluster: its working directory is the cluster's.
#[cfg(target_os = "linux")]
pub(super) fn works_in(pid: u32, cluster: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == cluster)
}

/// Whether `pid` is a running Postgres. Systems other than Linux have no simple way to read its working directory.
#[cfg(not(target_os = "linux"))]
pub(super) fn works_in(pid: u32, _cluster: &Path) -> bool {
    let output = std::process::Command::new("ps")
        .args(["-o", "comm=", "-p", &pid.to_string()])
        .output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("postgres"))
}

/// Whether any process works in the cluster. Unknown on systems other than Linux.
pub(super) fn any_works_in(cluster: &Path) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.any(|pid: u32| works_in(pid, cluster))
}

/// Whether a process with this id exists.
pub(super) fn exists(pid: u32) -> bool {
    to_pid(pid).is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = to_pid(pid)
        && let Err(err) = kill_process(pid, signal)
    {
        tracing::debug!(%err, ?signal, "signalling Postgres");
    }
}

/// Stops a Postgres that is not a child of this process, with a stronger signal after each timeout.
pub(super) async fn stop(pid: u32, cluster: &Path, step_timeout: Duration) {
    for step in [Signal::INT, Signal::QUIT, Signal::KILL] {
        signal(pid, step);
        let deadline = Instant::now() + step_timeout;
        while Instant::now() < deadline {
            if !works_in(pid, cluster) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn to_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_postmaster_file_holds_its_id_and_readiness() {
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

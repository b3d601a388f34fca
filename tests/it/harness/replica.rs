//! Two Postgres servers of which one follows the other, and a switch from one to the other as it goes wrong in practice:
//! the old primary stays up and takes no writes, or stands still and says nothing.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use cursus::store::Hosts;
use rustix::process::{Pid, Signal, kill_process};

use super::postgres::{Database, Postgres};
use super::scratch::Scratch;
use super::wait::until;

const REPLICATED: [&str; 3] = ["wal_level=replica", "max_wal_senders=4", "hot_standby=on"];

/// A primary and its standby.
pub(crate) struct Replicas {
    pub(crate) old: Arc<Postgres>,
    pub(crate) new: Arc<Postgres>,
}

impl Replicas {
    pub(crate) async fn start() -> Self {
        let old = Postgres::own(&REPLICATED).await;
        let folder = Scratch::new("replica");
        let copy = old
            .command("pg_basebackup")
            .arg("-h")
            .arg(old.folder())
            .args(["-U", "postgres", "-R", "-X", "stream", "-c", "fast", "-D"])
            .arg(old.folder().join("copy"))
            .status();
        assert!(copy.unwrap().success());
        let moved = Command::new("mv")
            .arg(old.folder().join("copy"))
            .arg(folder.path().join("data"))
            .status();
        assert!(moved.unwrap().success());
        let new = Postgres::over(folder, &REPLICATED).await;
        Self {
            old: Arc::new(old),
            new: Arc::new(new),
        }
    }

    /// The database as a node knows it: the standby is named first.
    pub(crate) fn database(&self) -> Database {
        let name = |server: &Postgres| server.folder().display().to_string();
        let (new, old) = (name(&self.new), name(&self.old));
        let url = format!("postgres://postgres@/test_first?host={new},{old}");
        let hosts: Hosts = format!("{url}&target_session_attrs=read-write")
            .parse()
            .unwrap();
        Database::of(self.new.clone(), "test_first", hosts)
    }

    /// Waits until the standby has all that the primary has committed.
    pub(crate) async fn caught_up(&self) {
        let mut old = self.old.connect().await;
        until("the standby has caught up", async || {
            let is_behind = "SELECT coalesce(bool_or(replay_lsn < pg_current_wal_flush_lsn()), true) FROM pg_stat_replication";
            let behind: bool = sqlx::query_scalar(is_behind).fetch_one(&mut old).await.unwrap();
            (!behind).then_some(())
        })
        .await;
    }

    /// Makes the standby the primary.
    pub(crate) async fn promote(&self) {
        self.new.run("SELECT pg_promote(true)").await;
    }

    /// The primary takes no writes from now on, and stays up.
    pub(crate) async fn demote(&self) {
        let off = "ALTER SYSTEM SET default_transaction_read_only = on";
        self.old.run(off).await;
        self.old.run("SELECT pg_reload_conf()").await;
    }

    /// The primary stands still: it accepts connections, and says nothing.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    fn signal(&self, signal: Signal) {
        let postmaster = self.old.pid();
        for process in processes().filter(|(pid, parent)| [pid, parent].contains(&&postmaster)) {
            if let Some(pid) = Pid::from_raw(process.0) {
                kill_process(pid, signal).ok();
            }
        }
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
    }
}

/// The processes of this machine, each with its parent.
fn processes() -> impl Iterator<Item = (i32, i32)> {
    let folders = fs::read_dir("/proc").unwrap().flatten();
    folders.filter_map(|folder| {
        let stat = fs::read_to_string(folder.path().join("stat")).ok()?;
        let pid = folder.file_name().to_str()?.parse().ok()?;
        // The name of the process stands in parentheses and may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
        Some((pid, parent))
    })
}

//! A Postgres of its own for one test, which can crash, and can be put back to an earlier state as a restored backup or as a
//! replica that takes over: then it has lost what was committed since. And backups that Postgres' own programs take while
//! nodes run, restored by a server of their own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::postgres::{Database, FIRST, Postgres, copy};
use super::scratch::Scratch;

/// Without the first no replica takes over, without the second there is no base backup.
const SETTINGS: [&str; 2] = ["wal_level=replica", "max_wal_senders=4"];

/// A program that takes a backup while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// `pg_dump`: the state when it began.
    Dump,
    /// `pg_basebackup`: the state when it ended.
    BaseBackup,
}

/// The server, and its state at one time.
pub(crate) struct Backup {
    server: Arc<Postgres>,
}

impl Backup {
    pub(crate) async fn of_new_server() -> Self {
        Self {
            server: Arc::new(Postgres::own(&SETTINGS).await),
        }
    }

    pub(crate) fn database(&self) -> Database {
        let hosts = self.server.options(FIRST).into();
        Database::of(self.server.clone(), FIRST, hosts)
    }

    /// Keeps the present state. The server starts again meanwhile.
    pub(crate) async fn take(&self) {
        self.server.end(Signal::INT);
        let folder = self.server.folder();
        copy(&folder.join("data"), &folder.join("backup"));
        self.server.start_again(&SETTINGS).await;
    }

    /// The server crashes and starts again.
    pub(crate) async fn crash(&self) {
        self.server.end(Signal::QUIT);
        self.server.start_again(&SETTINGS).await;
    }

    /// A server with the state that was kept takes its place, on the same timeline.
    pub(crate) async fn restore(&self) {
        self.put_back();
        self.server.start_again(&SETTINGS).await;
    }

    /// A replica that knows the state that was kept takes over.
    pub(crate) async fn fail_over(&self) {
        self.put_back();
        let signal = self.server.folder().join("data/standby.signal");
        fs::write(signal, "").unwrap();
        self.server.start_again(&SETTINGS).await;
        self.server.run("SELECT pg_promote()").await;
    }

    fn put_back(&self) {
        self.server.end(Signal::QUIT);
        let folder = self.server.folder();
        fs::remove_dir_all(folder.join("data")).unwrap();
        fs::rename(folder.join("backup"), folder.join("data")).unwrap();
    }

    /// Takes a backup as infra/operate/backup-and-restore.md says.
    pub(crate) async fn take_by(&self, program: Program) {
        match program {
            Program::Dump => {
                let mut session = self.database().connect().await;
                lock_slots(&mut session).await;
                let file = self.server.folder().join("dump");
                let mut dump = self.command("pg_dump");
                dump.args(["--format=custom", "--dbname", FIRST, "--file"]);
                run(dump.arg(file)).await;
                session.execute("COMMIT").await.unwrap();
            }
            Program::BaseBackup => {
                let folder = self.server.folder().join("base");
                let mut backup = self.command("pg_basebackup");
                run(backup.args(["--checkpoint=fast", "--pgdata"]).arg(folder)).await;
            }
        }
    }

    /// The database of a new server that has what the program has taken.
    pub(crate) async fn restored(&self, program: Program) -> Database {
        let server = match program {
            Program::Dump => {
                let server = Postgres::own(&[]).await;
                server.run(&format!("DROP DATABASE {FIRST}")).await;
                server.run(&format!("CREATE DATABASE {FIRST}")).await;
                let mut restore = server.command("pg_restore");
                restore.args(["--username=postgres", "--exit-on-error", "--host"]);
                restore.arg(server.folder()).args(["--dbname", FIRST]);
                run(restore.arg(self.server.folder().join("dump"))).await;
                server
            }
            Program::BaseBackup => {
                let folder = Scratch::new("postgres");
                let data = folder.path().join("data");
                fs::rename(self.server.folder().join("base"), &data).unwrap();
                // A recovery ends with a timeline of its own, by which nodes know that something was lost.
                fs::write(data.join("recovery.signal"), "").unwrap();
                Postgres::over(folder, &[SETTINGS[0], SETTINGS[1], "restore_command=false"]).await
            }
        };
        let hosts = server.options(FIRST).into();
        Database::of(Arc::new(server), FIRST, hosts)
    }

    /// A program that connects to the server.
    fn command(&self, name: &str) -> Command {
        let mut command = self.server.command(name);
        let folder: PathBuf = self.server.folder().into();
        command.args(["--username=postgres", "--host"]).arg(folder);
        command
    }
}

/// Keeps the slots of payloads from being truncated until the transaction of the session ends: a truncation empties the
/// table for snapshots that began before it as well.
pub(crate) async fn lock_slots(session: &mut PgConnection) {
    let slots: Vec<String> = (0..8).map(|slot| format!("hot_payload_{slot}")).collect();
    let lock = format!(
        "BEGIN; LOCK TABLE {} IN ACCESS SHARE MODE",
        slots.join(", ")
    );
    session.execute(AssertSqlSafe(lock)).await.unwrap();
}

/// Runs a program to its end, while nodes of the test go on.
async fn run(command: &mut Command) {
    let mut child = command.spawn().unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait());
    let status = ended.await.unwrap().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

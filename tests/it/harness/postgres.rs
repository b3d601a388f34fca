//! A private Postgres for this test binary, from the binaries on this machine: on a Unix socket in a folder of its own,
//! without fsync. Started when the first test asks, stopped with the process. Every test gets a database of its own,
//! copied from a template that has the migrations.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use cursus::store::{Store, migrate};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use tokio::sync::Mutex;

use super::scratch::Scratch;

const START_WAIT: Duration = Duration::from_secs(30);
const TEMPLATE: &str = "cursus_template";

static SHARED: Mutex<Weak<Postgres>> = Mutex::const_new(Weak::new());

pub(crate) struct Postgres {
    server: Child,
    folder: Scratch,
    /// `CREATE DATABASE` of two at once can fail.
    creating: Mutex<()>,
}

/// A database of its own with the migrations, on a server that lives as long as it.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) options: PgConnectOptions,
    _server: Arc<Postgres>,
}

impl Database {
    pub(crate) async fn new() -> Self {
        let server = Postgres::shared().await;
        let name = format!("test_{:016x}", rand::random::<u64>());
        {
            let _one = server.creating.lock().await;
            server
                .run(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
                .await;
        }
        Self {
            options: server.options(&name),
            _server: server,
        }
    }

    /// A store as a node has it.
    pub(crate) fn store(&self) -> Store {
        Store::new(self.options.clone(), 8)
    }

    /// A connection without any of our code.
    pub(crate) async fn connect(&self) -> PgConnection {
        self.options.connect().await.unwrap()
    }
}

impl Postgres {
    async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start());
        started.prepare().await;
        *shared = Arc::downgrade(&started);
        started
    }

    fn start() -> Self {
        let folder = Scratch::new("postgres");
        let owner = owner();
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let data = folder.path().join("data");
        let init = binary("initdb", owner, folder.path())
            .arg("-D")
            .arg(&data)
            .args([
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "-U",
                "postgres",
            ])
            .output()
            .unwrap();
        assert!(
            init.status.success(),
            "{}",
            String::from_utf8_lossy(&init.stderr)
        );
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let server = binary("postgres", owner, folder.path())
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args([
                "-h",
                "",
                "-c",
                "fsync=off",
                "-c",
                "full_page_writes=off",
                "-c",
                "max_connections=300",
            ])
            .args([
                "-c",
                "shared_buffers=128MB",
                "-c",
                "wal_level=minimal",
                "-c",
                "max_wal_senders=0",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            server,
            folder,
            creating: Mutex::default(),
        }
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.folder.path())
            .username("postgres")
            .database(database)
    }

    async fn run(&self, sql: &str) {
        let mut connection = self.options("postgres").connect().await.unwrap();
        connection
            .execute(AssertSqlSafe(sql.to_owned()))
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    async fn prepare(&self) {
        let started = Instant::now();
        while let Err(error) = self.options("postgres").connect().await {
            if started.elapsed() > START_WAIT {
                let log = std::fs::read_to_string(self.folder.path().join("log"));
                panic!("Postgres does not answer: {error:?}\n{log:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.run(&format!("CREATE DATABASE {TEMPLATE}")).await;
        let store = Store::new(self.options(TEMPLATE), 1);
        migrate::migrate(&store).await.unwrap();
        store.close().await;
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A fast shutdown, so that no shared memory stays behind.
        let pid = Pid::from_child(&self.server);
        if kill_process(pid, Signal::INT).is_err() {
            self.server.kill().ok();
        }
        self.server.wait().ok();
    }
}

/// Whom to run as: as root the server refuses to start.
fn owner() -> Option<(u32, u32)> {
    let is_root = std::fs::metadata("/proc/self")
        .is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    if !is_root {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let user = ["postgres:", "nobody:"]
        .iter()
        .find_map(|name| users.lines().find(|line| line.starts_with(name)));
    let mut numbers = user.expect("a user for Postgres").split(':').skip(2);
    let mut number = || numbers.next().unwrap().parse().unwrap();
    Some((number(), number()))
}

fn binary(name: &str, owner: Option<(u32, u32)>, folder: &Path) -> Command {
    let mut command = Command::new(binaries().join(name));
    command.current_dir(folder).env_remove("PGDATA");
    if let Some((user, group)) = owner {
        command.gid(group).uid(user);
    }
    command
}

/// Where the server's binaries are: `CURSUS_TEST_PG_BIN`, else the newest of the distribution, else on PATH.
fn binaries() -> PathBuf {
    if let Some(named) = std::env::var_os("CURSUS_TEST_PG_BIN") {
        return named.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut installed: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    installed.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = installed
        .into_iter()
        .rev()
        .chain(std::env::split_paths(&path));
    found
        .into_iter()
        .find(|bin| bin.join("initdb").is_file())
        .expect("no Postgres server on this machine: run `.ci/parts`")
}

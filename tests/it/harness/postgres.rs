//! A private Postgres for this test process, from the binaries on this machine: on a Unix socket in a folder of its own,
//! without fsync. Started when the first test asks, stopped with the last. Every test gets a database of its own with the
//! migrations. The server starts on a copy of a prototype, a stopped cluster that the first process of a build makes.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use cursus::store::{Hosts, Store, migrate};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use tokio::sync::Mutex;

use super::scratch::Scratch;

const START_WAIT: Duration = Duration::from_secs(30);
/// Where databases are created and dropped; the other two of a new cluster are not copied.
pub(crate) const ADMIN: &str = "template1";
const TEMPLATE: &str = "cursus_template";
/// A copy of the template in the prototype, for the first test of a process.
pub(super) const FIRST: &str = "test_first";
const SETTINGS: [&str; 8] = [
    "fsync=off",
    "full_page_writes=off",
    "max_connections=300",
    "shared_buffers=128MB",
    "wal_level=minimal",
    "max_wal_senders=0",
    "min_wal_size=2MB",
    "max_wal_size=1GB",
];

static SHARED: Mutex<Weak<Postgres>> = Mutex::const_new(Weak::new());

pub(crate) struct Postgres {
    server: parking_lot::Mutex<Child>,
    folder: Scratch,
    is_first_taken: AtomicBool,
    /// `CREATE DATABASE` of two at once can fail.
    creating: Mutex<()>,
}

/// A database of its own with the migrations, on a server that lives as long as it.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) options: PgConnectOptions,
    /// As a node is given it.
    hosts: Hosts,
    server: Arc<Postgres>,
}

impl Database {
    pub(crate) async fn new() -> Self {
        let server = Postgres::shared().await;
        let name = if server.is_first_taken.swap(true, Ordering::Relaxed) {
            let name = format!("test_{:016x}", rand::random::<u64>());
            let _one = server.creating.lock().await;
            server.create_database(&name).await;
            name
        } else {
            FIRST.to_owned()
        };
        let hosts = server.options(&name).into();
        Self::of(server, &name, hosts)
    }

    /// A database of a server that nodes reach in their own way.
    pub(crate) fn of(server: Arc<Postgres>, name: &str, hosts: Hosts) -> Self {
        Self {
            options: server.options(name),
            hosts,
            server,
        }
    }

    /// Its name on the server.
    pub(crate) fn name(&self) -> &str {
        self.options.get_database().unwrap()
    }

    /// Where the sockets of its server are.
    pub(crate) fn folder(&self) -> &Path {
        self.server.folder()
    }

    /// Nodes that are started from now on reach it in another way.
    pub(crate) fn set_hosts(&mut self, hosts: Hosts) {
        self.hosts = hosts;
    }

    /// A store as a node has it.
    pub(crate) fn store(&self) -> Store {
        Store::new(self.hosts.clone(), 8)
    }

    /// Checks that the server has not complained of what nodes do: of a commit or rollback without a transaction, or of a
    /// transaction inside another one.
    pub(crate) fn check_log(&self) {
        let said = fs::read_to_string(self.folder().join("log")).unwrap();
        assert!(!said.contains("transaction in progress"), "{said}");
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
        let started = Arc::new(Self::own(&[]).await);
        *shared = Arc::downgrade(&started);
        started
    }

    /// A server for one test, with more settings. Its first database has the migrations.
    pub(crate) async fn own(settings: &[&str]) -> Self {
        let folder = Scratch::new("postgres");
        copy_prototype(&folder.path().join("data")).await;
        Self::over(folder, settings).await
    }

    /// The server of the cluster in the folder `data` of this one, once it answers.
    pub(crate) async fn over(folder: Scratch, settings: &[&str]) -> Self {
        let started = Self::start(folder, settings);
        started.answers().await;
        started
    }

    fn start(folder: Scratch, settings: &[&str]) -> Self {
        Self {
            server: parking_lot::Mutex::new(serve(folder.path(), settings)),
            folder,
            is_first_taken: AtomicBool::new(false),
            creating: Mutex::default(),
        }
    }

    /// Where its sockets are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn pid(&self) -> i32 {
        Pid::from_child(&self.server.lock()).as_raw_nonzero().get()
    }

    /// A program of the server.
    pub(crate) fn command(&self, name: &str) -> Command {
        binary(name, owner(), self.folder.path())
    }

    /// Starts it again after [`Postgres::end`].
    pub(super) async fn start_again(&self, settings: &[&str]) {
        *self.server.lock() = serve(self.folder.path(), settings);
        self.answers().await;
    }

    pub(super) fn end(&self, signal: Signal) {
        let mut server = self.server.lock();
        if kill_process(Pid::from_child(&server), signal).is_err() {
            server.kill().ok();
        }
        server.wait().ok();
    }

    pub(crate) fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.folder.path())
            .username("postgres")
            .database(database)
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        self.options(ADMIN).connect().await.unwrap()
    }

    pub(crate) async fn run(&self, sql: &str) {
        let mut connection = self.connect().await;
        connection
            .execute(AssertSqlSafe(sql.to_owned()))
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    async fn create_database(&self, name: &str) {
        self.run(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
            .await;
    }

    async fn answers(&self) {
        let started = Instant::now();
        while let Err(error) = self.options(ADMIN).connect().await {
            if started.elapsed() > START_WAIT {
                let log = fs::read_to_string(self.folder.path().join("log"));
                panic!("Postgres does not answer: {error:?}\n{log:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once, as its data is thrown away; but by itself, so that no shared memory stays behind.
        if matches!(self.server.get_mut().try_wait(), Ok(None)) {
            self.end(Signal::QUIT);
        }
    }
}

/// Starts the server of the cluster in the folder `data` of this one.
fn serve(folder: &Path, settings: &[&str]) -> Child {
    let owner = owner();
    if let Some((user, group)) = owner {
        std::os::unix::fs::chown(folder, Some(user), Some(group)).unwrap();
    }
    let log = File::create(folder.join("log")).unwrap();
    binary("postgres", owner, folder)
        .arg("-D")
        .arg(folder.join("data"))
        .arg("-k")
        .arg(folder)
        .args(["-h", ""])
        .args(SETTINGS.map(|setting| format!("--{setting}")))
        .args(settings.iter().map(|setting| format!("--{setting}")))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Copies the prototype, which is made before if there is none of this build: another build may have other migrations.
async fn copy_prototype(to: &Path) {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
    fs::create_dir_all(&home).unwrap();
    let (data, stamp, build) = (home.join("data"), home.join("stamp"), build());
    let is_current = || fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == build);
    let lock = File::create(home.join("lock")).unwrap();
    loop {
        lock.lock_shared().unwrap();
        if is_current() {
            return copy(&data, to);
        }
        lock.unlock().unwrap();
        lock.lock().unwrap();
        if !is_current() {
            fs::remove_file(&stamp).ok();
            fs::remove_dir_all(&data).ok();
            make_prototype(&data).await;
            fs::write(&stamp, &build).unwrap();
        }
        lock.unlock().unwrap();
    }
}

/// Tells builds of the tests and servers apart.
fn build() -> String {
    let of = |path: PathBuf| {
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        format!("{} {modified:?}\n", path.display())
    };
    let tests = std::env::current_exe().unwrap();
    of(tests) + &of(binaries().join("postgres"))
}

async fn make_prototype(at: &Path) {
    let folder = Scratch::new("postgres");
    init(&folder);
    let server = Postgres::over(folder, &[]).await;
    server.run(&format!("CREATE DATABASE {TEMPLATE}")).await;
    let store = Store::new(server.options(TEMPLATE), 1);
    migrate::migrate(&store).await.unwrap();
    store.close().await;
    server.create_database(FIRST).await;
    server
        .run("ALTER DATABASE template0 IS_TEMPLATE false")
        .await;
    for unused in ["template0", "postgres"] {
        server.run(&format!("DROP DATABASE {unused}")).await;
    }
    server.end(Signal::INT);
    copy(&server.folder.path().join("data"), at);
}

fn init(folder: &Scratch) {
    let owner = owner();
    if let Some((user, group)) = owner {
        std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).unwrap();
    }
    let init = binary("initdb", owner, folder.path())
        .arg("-D")
        .arg(folder.path().join("data"))
        .args(["-A", "trust", "-E", "UTF8", "--locale=C", "-U", "postgres"])
        // Small segments: all of them are copied.
        .args(["--no-sync", "--wal-segsize=1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&init.stderr);
    assert!(init.status.success(), "{said}");
}

/// A folder with all that it holds, owners and modes included.
pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success(), "{} is copied", from.display());
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

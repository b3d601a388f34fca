//! The real binary in embedded mode, in a folder of its own, with everything that can be done to it from outside: signals,
//! and reads of its files and its Postgres. As root the data directory lies below one that Postgres' user may not enter.

use std::fs::{self, DirBuilder};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;

/// A data directory in a closed parent; removed at the end, with whatever still runs in it.
pub(crate) struct Place {
    closed: PathBuf,
    pub(crate) data: PathBuf,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let closed = std::env::temp_dir().join(format!("cursus-it-{}-{name}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&closed).unwrap();
        let data = closed.join("some data");
        Self { closed, data }
    }

    pub(crate) fn start(&self) -> Node {
        self.start_by(&mut self.command())
    }

    /// A node that this command starts.
    pub(crate) fn start_by(&self, command: &mut Command) -> Node {
        let mut node = Node(command.spawn().unwrap());
        self.eventually("the node listens", || {
            assert!(node.0.try_wait().unwrap().is_none(), "{}", self.log());
            let note = fs::read_to_string(self.data.join("cursus.lock")).unwrap_or_default();
            note.contains(&format!("pid={}\n", node.pid())) && !note.contains("listen=-")
        });
        node
    }

    /// A node that may not listen yet.
    pub(crate) fn spawn(&self) -> Node {
        Node(self.command().spawn().unwrap())
    }

    /// Where the running node listens.
    pub(crate) fn address(&self) -> SocketAddr {
        let note = fs::read_to_string(self.data.join("cursus.lock")).unwrap();
        let listen = note.lines().find_map(|line| line.strip_prefix("listen="));
        listen.unwrap().parse().unwrap()
    }

    pub(crate) fn command(&self) -> Command {
        self.run(&["serve", "--listen=127.0.0.1:0", "--drain-timeout=2s"])
    }

    /// The program over this data directory, its log appended to the others'.
    pub(crate) fn run(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cursus"));
        command.args(args).arg("--data-dir").arg(&self.data);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.closed.join("log"))
            .unwrap();
        command
            .stderr(log)
            .stdout(Stdio::null())
            .env_remove("DATABASE_URL");
        command
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.closed.join("log")).unwrap_or_default()
    }

    /// The number of the running Postgres, once it is ready.
    pub(crate) fn postgres(&self) -> Option<i32> {
        let text = fs::read_to_string(self.data.join("postgres/postmaster.pid")).ok()?;
        let pid = text.lines().next()?.parse().ok()?;
        (text.lines().nth(7)?.trim() == "ready" && alive(pid)).then_some(pid)
    }

    pub(crate) fn sockets(&self) -> PathBuf {
        let text = fs::read_to_string(self.data.join("postgres/postmaster.pid")).unwrap();
        PathBuf::from(text.lines().nth(4).unwrap())
    }

    /// How a client reaches the private Postgres.
    pub(crate) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.sockets())
            .username("cursus")
            .database("postgres")
    }

    /// Runs SQL as a client of the private Postgres would.
    pub(crate) fn sql(&self, sql: &'static str) -> i64 {
        let options = self.options();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options)
                .await
                .unwrap();
            let value = sqlx::query_scalar(sql)
                .fetch_optional(&mut connection)
                .await
                .unwrap();
            value.unwrap_or_default()
        })
    }

    pub(crate) fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "not within a minute: {what}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pid) = self.postgres() {
            let sockets = self.sockets();
            kill(pid, Signal::QUIT);
            self.eventually("Postgres stops", || !alive(pid));
            let _ = fs::remove_dir_all(sockets);
        }
        let _ = fs::remove_dir_all(&self.closed);
    }
}

pub(crate) struct Node(pub(crate) Child);

impl Node {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub(crate) fn end(self, signal: Signal) -> ExitStatus {
        kill(self.pid(), signal);
        self.wait()
    }

    /// Until it ends by itself.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Whether the process exists and is not merely waiting to be reaped.
pub(crate) fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which stands in parentheses and may hold anything.
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| !state.starts_with('Z'))
}

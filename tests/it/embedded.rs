//! The embedded mode as its user meets it: the real binary, a real Postgres, real signals. Covers start and stop, a second
//! start on a held directory, and kill -9 of Postgres, of the node, of both, and in the middle of initdb.
//! As root the data directory lies below one that Postgres' user may not enter.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A data directory in a closed parent; removed at the end, with whatever still runs in it.
struct Place {
    closed: PathBuf,
    data: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let closed = std::env::temp_dir().join(format!("cursus-it-{}-{name}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&closed).unwrap();
        let data = closed.join("some data");
        Self { closed, data }
    }

    fn start(&self) -> Node {
        let mut node = Node(self.command().spawn().unwrap());
        self.eventually("the node listens", || {
            assert!(node.0.try_wait().unwrap().is_none(), "{}", self.log());
            let note = fs::read_to_string(self.data.join("cursus.lock")).unwrap_or_default();
            note.contains(&format!("pid={}\n", node.pid())) && !note.contains("listen=-")
        });
        node
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cursus"));
        command
            .args([
                "serve",
                "--listen=127.0.0.1:0",
                "--drain-timeout=2s",
                "--data-dir",
            ])
            .arg(&self.data);
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

    fn log(&self) -> String {
        fs::read_to_string(self.closed.join("log")).unwrap_or_default()
    }

    /// The number of the running Postgres, once it is ready.
    fn postgres(&self) -> Option<i32> {
        let text = fs::read_to_string(self.data.join("postgres/postmaster.pid")).ok()?;
        let pid = text.lines().next()?.parse().ok()?;
        (text.lines().nth(7)?.trim() == "ready" && alive(pid)).then_some(pid)
    }

    fn sockets(&self) -> PathBuf {
        let text = fs::read_to_string(self.data.join("postgres/postmaster.pid")).unwrap();
        PathBuf::from(text.lines().nth(4).unwrap())
    }

    /// Runs SQL as a client of the private Postgres would.
    fn sql(&self, sql: &'static str) -> i64 {
        let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
            .socket(self.sockets())
            .username("cursus")
            .database("postgres");
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

    fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
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

struct Node(Child);

impl Node {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn end(mut self, signal: Signal) -> std::process::ExitStatus {
        kill(self.pid(), signal);
        self.0.wait().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Whether the process exists and is not merely waiting to be reaped.
fn alive(pid: i32) -> bool {
    let output = Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

fn has_content(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

const REMEMBER: &str = "CREATE TABLE memory AS SELECT 42::bigint AS answer";
const RECALL: &str = "SELECT answer FROM memory";

#[test]
fn it_starts_keeps_its_data_and_stops_without_a_trace() {
    let place = Place::new("stop");
    let node = place.start();
    place.sql(REMEMBER);
    let (postgres, sockets) = (place.postgres().unwrap(), place.sockets());
    assert!(has_content(&sockets));

    assert!(node.end(Signal::TERM).success(), "{}", place.log());
    assert!(!alive(postgres));
    assert!(!sockets.exists());
    assert!(!place.data.join("postgres/postmaster.pid").exists());

    let node = place.start();
    assert_eq!(place.sql(RECALL), 42);
    assert!(node.end(Signal::INT).success());
}

#[test]
fn a_second_start_is_told_who_holds_the_directory() {
    let place = Place::new("held");
    let node = place.start();
    let second = place.command().stderr(Stdio::piped()).output().unwrap();
    let message = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success());
    assert!(
        message.contains(&format!(
            "held by another cursus: process {} since ",
            node.pid()
        )),
        "{message}"
    );
    assert!(message.contains("listening on 127.0.0.1:"), "{message}");
    assert!(place.postgres().is_some(), "the first goes on");
}

#[test]
fn a_postgres_that_is_killed_is_started_again() {
    let place = Place::new("postgres");
    let node = place.start();
    place.sql(REMEMBER);
    for _ in 0..2 {
        let killed = place.postgres().unwrap();
        kill(killed, Signal::KILL);
        place.eventually("Postgres is back", || {
            place.postgres().is_some_and(|pid| pid != killed)
        });
        assert_eq!(place.sql(RECALL), 42);
    }
    assert!(node.end(Signal::TERM).success());
    assert!(place.postgres().is_none());
}

#[test]
fn the_postgres_of_a_killed_node_is_replaced_by_the_next_start() {
    let place = Place::new("node");
    let node = place.start();
    place.sql(REMEMBER);
    let orphan = place.postgres().unwrap();
    node.end(Signal::KILL);
    assert!(alive(orphan));

    let node = place.start();
    assert!(!alive(orphan));
    assert_eq!(place.sql(RECALL), 42);

    let both = place.postgres().unwrap();
    kill(both, Signal::STOP);
    node.end(Signal::KILL);
    kill(both, Signal::KILL);
    let _node = place.start();
    assert_eq!(place.sql(RECALL), 42);
}

#[test]
fn a_kill_in_the_middle_of_initdb_is_recovered() {
    let place = Place::new("initdb");
    let mut node = Node(place.command().spawn().unwrap());
    place.eventually("initdb has begun", || {
        has_content(&place.data.join("postgres.initdb"))
    });
    node.0.kill().unwrap();
    node.0.wait().unwrap();
    assert!(!place.data.join("postgres").exists());
    let _node = place.start();
    assert_eq!(place.sql("SELECT 1::bigint"), 1);
    assert!(!place.data.join("postgres.initdb").exists());
}

#[test]
fn a_stale_process_number_does_not_keep_it_from_starting() {
    let place = Place::new("stale");
    place.start().end(Signal::TERM);
    // Given the number of a living process that is no Postgres, of the same user when that is not root.
    let text = format!(
        "{}\n/elsewhere\n1\n5432\n/tmp\n\n0 0\nready\n",
        std::process::id()
    );
    fs::write(place.data.join("postgres/postmaster.pid"), text).unwrap();
    let _node = place.start();
    assert_eq!(place.sql("SELECT 1::bigint"), 1);
}

#[test]
fn a_cluster_of_another_version_is_refused_with_both_versions() {
    let place = Place::new("version");
    place.start().end(Signal::TERM);
    fs::write(place.data.join("postgres/PG_VERSION"), "12\n").unwrap();
    let refused = place.command().stderr(Stdio::piped()).output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(
        message.contains("made by Postgres 12, but this machine has Postgres 1"),
        "{message}"
    );
}

//! A machine that is not as one would wish, and the real binary on it: a log that no one reads, few open files, an
//! address in use, a cleaned /tmp, a data directory that was restored from a backup.

use std::fs::{self, Permissions};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Stdio};

use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::client;
use crate::harness::process::{Node, Place};

const HEALTH: &str = "/healthz";

/// The status and the body of a GET, on a connection of its own.
async fn get(place: &Place, path: &str) -> (StatusCode, String) {
    get_by(&client(), place, path).await
}

async fn get_by(client: &reqwest::Client, place: &Place, path: &str) -> (StatusCode, String) {
    let url = format!("http://{}{path}", place.address());
    let answer = client.get(url).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// Ends it as a service manager would; a node that does not end fails the test by its time limit.
async fn end(node: Node) {
    let ended = tokio::task::spawn_blocking(|| node.end(Signal::TERM));
    assert!(ended.await.unwrap().success());
}

/// A node whose log is a pipe.
fn with_piped_log(place: &Place) -> Node {
    let mut command = place.command();
    place.start_by(command.arg("--log-level=trace").stderr(Stdio::piped()))
}

#[tokio::test]
async fn a_log_that_is_not_read_stops_neither_requests_nor_the_end() {
    let place = Place::new("unread");
    let mut node = with_piped_log(&place);
    let mut log = node.0.stderr.take().unwrap();
    let client = client();
    // As many as it takes for the pipe and the buffer before it to be full.
    for round in 0.. {
        assert!(round < 1_000, "nothing was dropped");
        for _ in 0..100 {
            assert_eq!(get_by(&client, &place, HEALTH).await.0, 200);
        }
        let (_, metrics) = get_by(&client, &place, "/metrics").await;
        if !metrics.contains("cursus_log_dropped_lines_total 0") {
            break;
        }
    }
    end(node).await;
    let mut read = Vec::new();
    log.read_to_end(&mut read).unwrap();
    // A pipe of 64 KiB; a line that does not fit into one of its pages leaves the rest of it empty.
    assert!(read.len() >= 50_000, "the pipe was full: {}", read.len());
}

#[tokio::test]
async fn a_reader_of_the_log_that_leaves_changes_nothing() {
    let place = Place::new("left");
    let mut node = with_piped_log(&place);
    drop(node.0.stderr.take());
    for _ in 0..100 {
        assert_eq!(get(&place, HEALTH).await.0, 200);
    }
    end(node).await;
}

/// The command under a limit of open files, given to `ulimit`.
fn limited(command: &Command, limit: &str) -> Command {
    let mut limited = Command::new("sh");
    let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    limited.args(["-c", &script]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.stdout(Stdio::null()).env_remove("DATABASE_URL");
    limited
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised() {
    let place = Place::new("soft");
    let node = place.start_by(&mut limited(&place.command(), "-S -n 256"));
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
    let files = limits.lines().find(|line| line.contains("open files"));
    let fields: Vec<_> = files.unwrap().split_whitespace().collect();
    assert_eq!(fields[3], fields[4], "{limits}");
    end(node).await;
}

#[tokio::test]
async fn when_all_connections_are_taken_health_checks_are_answered_and_the_limit_is_said() {
    let place = Place::new("hard");
    let mut command = limited(&place.command(), "-n 400");
    let node = place.start_by(command.stderr(Stdio::null()));
    let address = place.address();
    let mut held = Vec::new();
    let refused = loop {
        held.push(TcpStream::connect(address).unwrap());
        assert!(held.len() < 400);
        let (status, body) = get(&place, "/v1/topics").await;
        if status != 200 {
            break (status, body);
        }
    };
    assert_eq!(refused.0, 503);
    let problem: Value = serde_json::from_str(&refused.1).unwrap();
    assert_eq!(problem["violated-policies"][0], "connections");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("connections, and all are in use"),
        "{detail}"
    );
    for path in [HEALTH, "/readyz", "/metrics"] {
        assert_eq!(get(&place, path).await.0, 200, "{path}");
    }
    drop(held);
    end(node).await;
}

#[test]
fn a_node_that_cannot_serve_says_so_before_it_makes_anything() {
    let place = Place::new("early");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={}", taken.local_addr().unwrap());
    let wrong = [
        vec![listen.as_str()],
        vec![
            "--listen=127.0.0.1:0",
            "--tls-cert=/none",
            "--tls-key=/none",
        ],
        vec!["--listen=192.0.2.1:80"],
    ];
    for args in wrong {
        let args = [vec!["serve"], args].concat();
        let mut command = place.run(&args);
        if args.contains(&"--listen=192.0.2.1:80") {
            command.arg("--log-level=verbose");
        }
        let refused = command.stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && said.contains("error: "),
            "{said}"
        );
        assert!(!said.contains("stopped"), "{said}");
        assert!(!place.data.exists(), "{said}");
    }
}

#[test]
fn a_socket_that_is_cleaned_away_is_made_again() {
    let place = Place::new("cleaned");
    let node = place.start();
    let postgres = place.postgres().unwrap();
    fs::remove_dir_all(place.sockets()).unwrap();
    place.eventually("Postgres is started again", || {
        place.postgres().is_some_and(|pid| pid != postgres)
    });
    assert_eq!(place.sql("SELECT 1::bigint"), 1);
    assert!(node.end(Signal::TERM).success());
}

#[test]
fn a_restored_cluster_is_put_right() {
    let place = Place::new("restored");
    place.start().end(Signal::TERM);
    let cluster = place.data.join("postgres");
    for mode in [0o755, 0o2770] {
        fs::set_permissions(&cluster, Permissions::from_mode(mode)).unwrap();
        // Backup tools leave empty directories out, and a power cut leaves an empty file.
        fs::remove_dir(cluster.join("pg_notify")).ok();
        fs::write(cluster.join("postmaster.pid"), "").unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&cluster, Some(0), Some(0)).unwrap();
            chown(cluster.join("PG_VERSION"), Some(0), Some(0)).unwrap();
        }
        let node = place.start();
        assert_eq!(place.sql("SELECT 1::bigint"), 1);
        assert_eq!(fs::metadata(&cluster).unwrap().mode() & 0o7777, 0o700);
        assert!(node.end(Signal::TERM).success());
    }
}

#[test]
fn a_cluster_without_its_version_is_not_called_rubbish() {
    let place = Place::new("version-lost");
    place.start().end(Signal::TERM);
    fs::write(place.data.join("postgres/PG_VERSION"), "").unwrap();
    let refused = place.command().stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("PG_VERSION is missing or empty"), "{said}");
    assert!(said.contains(&place.data.display().to_string()), "{said}");
}

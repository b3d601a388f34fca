//! The embedded mode as its user meets it: the real binary, a real Postgres, real signals. Covers start and stop, a second
//! start on a held directory, and kill -9 of Postgres, of the node, of both, and in the middle of initdb.
//! As root the data directory lies below one that Postgres' user may not enter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;

use crate::harness::process::{Node, Place, alive, kill};

fn has_content(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

/// The directory of a cluster that is being made.
fn unfinished(place: &Place) -> Option<PathBuf> {
    let entries = fs::read_dir(&place.data).ok()?.flatten();
    entries
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("/postgres.initdb"))
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
fn a_second_start_names_the_process_that_holds_the_directory() {
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
    let mut node = place.spawn();
    place.eventually("initdb has begun", || {
        unfinished(&place).is_some_and(|dir| has_content(&dir))
    });
    node.0.kill().unwrap();
    node.0.wait().unwrap();
    assert!(!place.data.join("postgres").exists());
    // At once: the initdb of the killed node goes on, in a directory of its own.
    let node = place.start();
    assert_eq!(place.sql("SELECT 1::bigint"), 1);
    assert!(node.end(Signal::TERM).success());
    let _node = place.start();
    place.eventually("nothing unfinished is left", || {
        unfinished(&place).is_none()
    });
}

#[test]
fn a_signal_in_the_middle_of_initdb_ends_it_without_a_trace() {
    let place = Place::new("initdb-int");
    let node = place.spawn();
    place.eventually("initdb has begun", || {
        unfinished(&place).is_some_and(|dir| has_content(&dir))
    });
    assert!(node.end(Signal::INT).success(), "{}", place.log());
    assert!(!place.data.join("postgres").exists());
    let _node = place.start();
}

#[test]
fn a_signal_while_postgres_starts_stops_it_again() {
    let place = Place::new("start-int");
    place.start().end(Signal::TERM);
    let pid_file = place.data.join("postgres/postmaster.pid");
    let node = place.spawn();
    place.eventually("Postgres has begun", || pid_file.exists());
    assert!(node.end(Signal::INT).success(), "{}", place.log());
    assert!(!pid_file.exists());
}

#[test]
fn closing_the_terminal_ends_it_like_any_other_signal() {
    let place = Place::new("hangup");
    let node = place.start();
    let postgres = place.postgres().unwrap();
    assert!(node.end(Signal::HUP).success(), "{}", place.log());
    assert!(!alive(postgres));
}

#[test]
fn making_a_key_can_be_interrupted() {
    let place = Place::new("key-int");
    place.start().end(Signal::TERM);
    // Its own start, or its end: at whatever moment the signal comes, no Postgres is left behind.
    let pid_file = place.data.join("postgres/postmaster.pid");
    let mut command = place.run(&["key", "create"]);
    let key = Node(command.spawn().unwrap());
    place.eventually("Postgres has begun", || pid_file.exists());
    kill(key.pid(), Signal::INT);
    key.wait();
    assert!(!pid_file.exists());
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

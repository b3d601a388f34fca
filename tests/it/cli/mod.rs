//! The commands of the client: the real binary, run as a shell would, against a node inside the test.

mod commands;
mod demo;
mod failures;
mod help;
mod lines;
mod operate;
mod sdk;
mod tail;

use std::process::{Output, Stdio};

use cursus::clock::Clock;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::harness::scratch::Scratch;
use crate::harness::{Fleet, Node};

/// The program as a user has it: an environment of its own, and a home that is empty at first.
struct Program {
    url: String,
    key: Option<String>,
    home: Scratch,
}

/// What a run left.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Program {
    fn of(node: &Node) -> Self {
        Self::at(&format!("http://{}", node.address))
    }

    fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            key: None,
            home: Scratch::new("home"),
        }
    }

    fn with_key(node: &Node, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..Self::of(node)
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cursus"));
        command
            .args(args)
            .env_clear()
            .env("XDG_CONFIG_HOME", self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if !self.url.is_empty() {
            command.env("CURSUS_URL", &self.url);
        }
        if let Some(key) = &self.key {
            command.env("CURSUS_KEY", key);
        }
        command
    }

    async fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&self.command(args).output().await.unwrap())
    }

    /// A run with this standard input.
    async fn fed(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(input).await.unwrap();
        drop(pipe);
        Ran::of(&child.wait_with_output().await.unwrap())
    }

    /// What a run prints that succeeds.
    async fn says(&self, args: &[&str]) -> String {
        self.run(args).await.done()
    }

    /// The JSON that a run prints, a value a line.
    async fn json(&self, args: &[&str]) -> Vec<Value> {
        let args = [args, &["--json"]].concat();
        lines_of(&self.says(&args).await)
    }
}

impl Ran {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn done(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// It fails with this code, and says this.
    fn fails(&self, code: i32, says: &[&str]) {
        let Self { out, err, .. } = self;
        assert_eq!(self.code, code, "{out}{err}");
        for text in says {
            assert!(err.contains(text), "{text:?} is not in: {err}");
        }
    }
}

fn lines_of(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Nodes whose time passes: the program asks for the time of the service, and waits.
async fn fleet() -> Fleet {
    let mut fleet = Fleet::new().await;
    fleet.clock = Clock::default();
    fleet
}

/// Nodes as of [`fleet`], where requests need a key.
async fn closed_fleet() -> Fleet {
    let mut fleet = fleet().await;
    fleet.open = false;
    fleet
}

/// How many messages were stored in a topic.
async fn published(node: &Node, topic: &str) -> u64 {
    let (_, stats) = node.get(&format!("/v1/topics/{topic}/stats")).await;
    stats["published"].as_u64().unwrap()
}

/// A node with a topic `t`, and the program.
async fn with_topic() -> (Fleet, Node, Program) {
    let fleet = fleet().await;
    let node = fleet.node().await;
    node.topic("t").await;
    let cli = Program::of(&node);
    (fleet, node, cli)
}

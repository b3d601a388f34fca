//! The real binary as a node of a fleet: on a database of its own and a shared S3 server, with nothing in its environment but
//! what a fleet needs. Its nodes end with the value that holds them.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Body, Method, RequestBuilder};
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::ConnectOptions;

use super::postgres::Database;
use super::process;
use super::scratch::Scratch;
use super::seaweed::{ACCESS_KEY, BUCKET, SECRET, Seaweed};
use super::{client, send};

/// The test's Postgres trusts everybody, so a password may be anything.
pub(crate) const PASSWORD: &str = "hunter2";
pub(crate) const START_WAIT: Duration = Duration::from_secs(60);

/// What the processes of a fleet share.
pub(crate) struct Installation {
    pub(crate) database: Database,
    pub(crate) seaweed: Arc<Seaweed>,
    pub(crate) folder: Scratch,
}

/// A node that is a process of its own, and a client that speaks to it.
pub(crate) struct Server {
    pub(crate) process: process::Node,
    pub(crate) address: SocketAddr,
    pub(crate) client: reqwest::Client,
    pub(crate) key: String,
}

impl Installation {
    pub(crate) async fn new() -> Self {
        Self {
            database: Database::new().await,
            seaweed: Seaweed::shared().await,
            folder: Scratch::new("fleet"),
        }
    }

    /// The program with nothing in its environment but what a fleet needs.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_cursus")), args)
    }

    /// The same of another version of the program.
    pub(crate) fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut url = self.database.options.to_url_lossy();
        url.set_password(Some(PASSWORD)).unwrap();
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("DATABASE_URL", url.as_str())
            .env("S3_ENDPOINT", format!("http://{}", self.seaweed.at))
            .env("S3_BUCKET", BUCKET)
            .env("S3_ACCESS_KEY_ID", ACCESS_KEY)
            .env("S3_SECRET_ACCESS_KEY", SECRET)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn key(&self, tenant: &str) -> String {
        self.said(&["key", "create", "--tenant", tenant])
    }

    /// What the program prints when it is run like this.
    pub(crate) fn said(&self, args: &[&str]) -> String {
        let ran = self.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{said}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    /// Everything that its nodes have logged.
    pub(crate) fn logs(&self) -> String {
        let logs = fs::read_dir(self.folder.path()).unwrap().flatten();
        logs.map(|log| fs::read_to_string(log.path()).unwrap())
            .collect()
    }

    pub(crate) async fn node(&self, key: &str) -> Server {
        let serve = ["serve", "--listen=127.0.0.1:0", "--log-level=debug"];
        self.node_by(self.command(&serve), key).await
    }

    /// A node that this command starts.
    pub(crate) async fn node_by(&self, mut command: Command, key: &str) -> Server {
        let log = self
            .folder
            .path()
            .join(format!("{:016x}", rand::random::<u64>()));
        let child = command
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn();
        let mut process = process::Node(child.unwrap());
        let began = Instant::now();
        loop {
            let said = fs::read_to_string(&log).unwrap();
            let listening = said.split_once("listening on http://");
            if let Some((address, _)) = listening.and_then(|(_, rest)| rest.split_once(',')) {
                return Server {
                    process,
                    address: address.parse().unwrap(),
                    client: client(),
                    key: key.to_owned(),
                };
            }
            assert!(process.0.try_wait().unwrap().is_none(), "{said}");
            assert!(began.elapsed() < START_WAIT, "{said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Server {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.client.request(method, url).bearer_auth(&self.key)
    }

    pub(crate) async fn json(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = send(self.request(method, path).json(&body)).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    pub(crate) async fn topic_and_subscription(&self) {
        self.json(Method::PUT, "/v1/topics/t", json!({})).await;
        let reading = json!({"topic": "t"});
        self.json(Method::PUT, "/v1/subscriptions/s", reading).await;
    }

    pub(crate) fn publish(&self, body: impl Into<Body>) -> RequestBuilder {
        let request = self.request(Method::POST, "/v1/topics/t/messages");
        request.header("content-type", "text/plain").body(body)
    }

    pub(crate) async fn receive(&self, wait_seconds: u32) -> Vec<Value> {
        let ask = json!({"max_messages": 10, "wait_seconds": wait_seconds});
        let answer = self.json(Method::POST, "/v1/subscriptions/s/receive", ask);
        answer.await["messages"].as_array().unwrap().clone()
    }

    pub(crate) async fn metrics(&self) -> String {
        let answer = self.request(Method::GET, "/metrics").send().await.unwrap();
        answer.text().await.unwrap()
    }

    pub(crate) async fn end(self) {
        drop(self.client);
        let status = tokio::task::spawn_blocking(|| self.process.end(Signal::TERM));
        assert!(status.await.unwrap().success());
    }
}

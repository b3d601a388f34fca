//! The node of the demo: this program, once more, as a process of its own in a directory that is removed afterwards.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::cli::Failure;
use crate::config;

/// Time for Postgres to be set up and the node to listen.
const START_WITHIN: Duration = Duration::from_secs(60);
/// Time for the node and its Postgres to end.
const STOP_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A node that runs.
pub(super) struct Node {
    process: Child,
    folder: PathBuf,
    pub(super) url: String,
}

impl Node {
    /// Starts a node, and waits until it listens.
    pub(super) async fn start() -> Result<Self, Failure> {
        let name = format!("cursus-demo-{:016x}", rand::random::<u64>());
        let folder = config::temporary().join(name);
        let wrong = |error| Failure::file(&folder, &error);
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(wrong)?;
        let log = File::create(folder.join("log")).map_err(wrong)?;
        let program = config::program().map_err(wrong)?;
        let process = Command::new(program)
            .args([
                "serve",
                "--listen=127.0.0.1:0",
                "--log-level=warn",
                "--drain-timeout=2s",
                "--data-dir",
            ])
            .arg(folder.join("data"))
            // A fleet in the environment is not for a demo.
            .env_remove("DATABASE_URL")
            .env_remove("CURSUS_SERVICE_LISTEN")
            .env_remove("CURSUS_TLS_CERT")
            .env_remove("CURSUS_TLS_KEY")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for this process, which then ends the node in order.
            .process_group(0)
            .spawn();
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                let _ = fs::remove_dir_all(&folder);
                return Err(Failure::Other(format!(
                    "the node cannot be started: {error}"
                )));
            }
        };
        let mut node = Self {
            process,
            folder,
            url: String::new(),
        };
        match node.listening().await {
            Ok(url) => {
                node.url = url;
                Ok(node)
            }
            Err(failure) => {
                node.stop().await;
                Err(failure)
            }
        }
    }

    async fn listening(&mut self) -> Result<String, Failure> {
        let deadline = Instant::now() + START_WITHIN;
        while Instant::now() < deadline {
            if let Ok(Some(_)) = self.process.try_wait() {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(Failure::Other(format!(
                    "the node of the demo did not start.\n{}",
                    log.trim()
                )));
            }
            let note = fs::read_to_string(self.folder.join("data/cursus.lock")).unwrap_or_default();
            let listen = note.lines().find_map(|line| line.strip_prefix("listen="));
            if let Some(address) = listen.filter(|address| *address != "-") {
                return Ok(format!("http://{address}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(Failure::Other(
            "the node of the demo did not start in time".to_owned(),
        ))
    }

    /// Ends the node and its Postgres, and removes their files.
    pub(super) async fn stop(mut self) {
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_WITHIN, self.process.wait())
            .await
            .is_err()
        {
            let _ = self.process.kill().await;
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

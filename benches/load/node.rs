//! A node under load: `cursus serve` started on a data directory of its own and stopped with SIGTERM, or one that
//! somebody else runs (`--server`). A directory outlives its nodes, so that a node can be stopped while the echo is
//! measured and started again on what it had stored.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::args::Args;
use crate::client::Client;
use crate::postgres::Postgres;
use crate::probe::Probe;
use crate::requests::Server;

const READY_WITHIN: Duration = Duration::from_secs(120);
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// A data directory that is removed when dropped.
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    pub(crate) fn new(args: &Args, name: &str) -> Result<Self> {
        let path = args
            .directory
            .join(format!("load-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A node that is ready.
pub(crate) struct Node {
    child: Option<Child>,
    pub(crate) address: SocketAddr,
    pub(crate) server: Server,
    pub(crate) probe: Probe,
}

impl Node {
    /// Starts a node on the directory, or finds the one of `--server`.
    pub(crate) async fn start(args: &Args, data_dir: &DataDir) -> Result<Self> {
        let (child, address) = match &args.server {
            Some(url) => (None, address_of(url).await?),
            None => {
                let (child, address) = spawn(&args.binary, &data_dir.0)?;
                (Some(child), address)
            }
        };
        let server = Server::new(args.api_key.clone());
        let probe = Probe {
            address,
            server: server.clone(),
            node_pid: child.as_ref().map(Child::id),
            postgres: None,
        };
        let mut node = Self {
            child,
            address,
            server,
            probe,
        };
        node.wait_until_ready(&data_dir.0).await?;
        node.probe.postgres = find_postgres(args, data_dir).await;
        Ok(node)
    }

    /// Asks the node to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.probe.postgres = None;
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        terminate(&child)?;
        let deadline = Instant::now() + STOPPED_WITHIN;
        while Instant::now() < deadline {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        child.kill()?;
        Err("the node did not stop on SIGTERM in time".into())
    }

    async fn wait_until_ready(&mut self, data_dir: &Path) -> Result<()> {
        let request = self.server.get("/readyz");
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                let log = std::fs::read_to_string(log_path(data_dir)).unwrap_or_default();
                return Err(format!("the node ended at once ({status}):\n{log}").into());
            }
            if let Ok(mut client) = Client::connect(self.address).await
                && client
                    .send(&request)
                    .await
                    .is_ok_and(|answer| answer.is_success())
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("the node did not become ready in time".into())
    }
}

impl Drop for Node {
    /// After an error: a node that was not stopped would keep its Postgres running for ever.
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = terminate(child);
            let _ = child.wait();
        }
    }
}

/// Without Postgres some figures are missing, which the table shows; the load itself needs only the node.
async fn find_postgres(args: &Args, data_dir: &DataDir) -> Option<Postgres> {
    let found = match (&args.postgres_url, &args.server) {
        (Some(url), _) => Postgres::at_url(url).await,
        (None, Some(_)) => return None,
        (None, None) => Postgres::in_directory(&data_dir.0).await,
    };
    found
        .map_err(|error| eprintln!("Postgres of the node is out of reach: {error}"))
        .ok()
}

fn spawn(binary: &Path, data_dir: &Path) -> Result<(Child, SocketAddr)> {
    // The port is free now; a node that loses it to somebody else says so and the run fails.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_path(data_dir))?;
    let child = Command::new(binary)
        .arg("serve")
        .arg("--listen")
        .arg(address.to_string())
        .arg("--data-dir")
        .arg(data_dir.join("data"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok((child, address))
}

fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.join("node.log")
}

/// SIGTERM through kill(1): the standard library can only send SIGKILL.
fn terminate(child: &Child) -> Result<()> {
    Command::new("kill")
        .arg("-TERM")
        .arg(child.id().to_string())
        .status()?;
    Ok(())
}

async fn address_of(url: &str) -> Result<SocketAddr> {
    let host = url
        .strip_prefix("http://")
        .ok_or("--server must be http://host:port")?;
    let host = host.trim_end_matches('/');
    let mut addresses = tokio::net::lookup_host(host).await?;
    addresses
        .next()
        .ok_or_else(|| format!("{host} has no address").into())
}

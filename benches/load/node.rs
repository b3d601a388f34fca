//! A node under load: `cursus serve` started on its own data directory and stopped with SIGTERM, or a running node
//! (`--server`). A data directory outlives its nodes, so that a node can be stopped while the echo is measured and
//! started again on the same data.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use rustix::process::{Pid, Signal, kill_process};

use crate::Result;
use crate::args::Args;
use crate::client::Client;
use crate::postgres::Postgres;
use crate::probe::Probe;
use crate::requests::Server;
use crate::wire;

const READY_WITHIN: Duration = Duration::from_secs(120);
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// Tenant that sends the load.
const TENANT: &str = "bench";

/// A quota that sets every limit, so that all are checked, and none low enough to be reached.
fn wide_quota() -> serde_json::Value {
    const WIDE: u64 = 1_000_000_000_000;
    let rate = serde_json::json!({"guaranteed": WIDE, "ceiling": WIDE});
    serde_json::json!({
        "requests_per_second": rate,
        "messages_per_second": rate,
        "bytes_per_second": rate,
        "concurrent_requests": WIDE,
        "stored_bytes": WIDE,
        "topics": WIDE,
        "subscriptions": WIDE,
        "in_flight_messages": WIDE,
    })
}

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

    pub(crate) fn path(&self) -> &Path {
        &self.0
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
    /// Sends requests as a tenant with a quota, or without a key when the run is open.
    pub(crate) server: Server,
    /// Sends requests as the operator, to create tenants.
    pub(crate) operator: Server,
    pub(crate) probe: Probe,
}

impl Node {
    /// Starts a node on the directory, or connects to the one of `--server`.
    pub(crate) async fn start(args: &Args, data_dir: &DataDir) -> Result<Self> {
        Self::start_with(args, data_dir, &[]).await
    }

    /// Starts a node with additional flags.
    pub(crate) async fn start_with(
        args: &Args,
        data_dir: &DataDir,
        flags: &[&str],
    ) -> Result<Self> {
        let (child, address) = match &args.server {
            Some(url) => (None, address_of(url).await?),
            None => {
                let mut command = Command::new(&args.binary);
                // The environment may name a fleet; the bench measures an embedded node.
                command.env_remove("DATABASE_URL");
                command.arg("serve").args(flags).arg("--data-dir");
                let (child, address) = spawn(command.arg(data_dir.0.join("data")), &data_dir.0)?;
                (Some(child), address)
            }
        };
        let mut node = Self::new(child, address, args.api_key.clone());
        node.wait_until("/readyz", &data_dir.0).await?;
        node.probe.postgres = find_postgres(args, data_dir).await;
        if !args.open && args.server.is_none() {
            node.server = node.tenant(TENANT).await?;
            node.set_quota(TENANT, &wide_quota()).await?;
        }
        Ok(node)
    }

    /// Starts a second node on the database of `first`, as in a fleet. It has no object storage, so it must not get
    /// payloads that would go there, and is never ready.
    pub(crate) async fn start_second(
        args: &Args,
        data_dir: &DataDir,
        first: &Self,
        flags: &[&str],
    ) -> Result<Self> {
        let (None, Some(postgres)) = (&args.server, &first.probe.postgres) else {
            return Err("needs nodes of its own, with their Postgres".into());
        };
        let command = |words: &[&str]| {
            let mut command = Command::new(&args.binary);
            command
                .args(words)
                .env("DATABASE_URL", postgres.url())
                .env("S3_ENDPOINT", "http://127.0.0.1:9")
                .env("S3_BUCKET", "none")
                .env("S3_ACCESS_KEY_ID", "none")
                .env("S3_SECRET_ACCESS_KEY", "none");
            command
        };
        let (child, address) = spawn(command(&["serve"]).args(flags), &data_dir.0)?;
        let mut node = Self::new(Some(child), address, None);
        node.wait_until("/healthz", &data_dir.0).await?;
        node.server = first.server.clone();
        if args.open {
            let made = command(&["key", "create"]).output()?;
            if !made.status.success() {
                return Err(String::from_utf8_lossy(&made.stderr).into_owned().into());
            }
            let key = String::from_utf8(made.stdout)?.trim().to_owned();
            node.server = Server::new(Some(key));
        }
        Ok(node)
    }

    /// Creates a tenant and a key for it.
    pub(crate) async fn tenant(&self, name: &str) -> Result<Server> {
        let mut client = Client::connect(self.address).await?;
        let path = format!("/v1/admin/tenants/{name}");
        client
            .must(&self.operator.request("PUT", &path, "{}"))
            .await?;
        let keys = self.operator.request("POST", &format!("{path}/keys"), "{}");
        let made = client.must(&keys).await?;
        let finder = Finder::new(br#""secret":""#);
        let secret = wire::strings_of(&made, &finder).next();
        let secret = String::from_utf8_lossy(secret.ok_or("no key was made")?).into_owned();
        Ok(Server::new(Some(secret)))
    }

    /// Sets the quota of a tenant.
    pub(crate) async fn set_quota(&self, tenant: &str, quota: &serde_json::Value) -> Result<()> {
        let path = format!("/v1/admin/tenants/{tenant}/quota");
        let set = self.operator.request("PUT", &path, &quota.to_string());
        let mut client = Client::connect(self.address).await?;
        client.must(&set).await?;
        // A node applies a changed quota within two seconds.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(())
    }

    fn new(child: Option<Child>, address: SocketAddr, api_key: Option<String>) -> Self {
        let server = Server::new(api_key);
        let operator = server.clone();
        let probe = Probe {
            address,
            server: server.clone(),
            node_pid: child.as_ref().map(Child::id),
            postgres: None,
        };
        Self {
            child,
            address,
            server,
            operator,
            probe,
        }
    }

    /// Stops the node and waits until it has ended.
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

    async fn wait_until(&mut self, path: &str, data_dir: &Path) -> Result<()> {
        let request = self.server.get(path);
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
    /// After an error: a node that is not stopped would keep its Postgres running for ever.
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = terminate(child);
            let _ = child.wait();
        }
    }
}

/// Without Postgres some figures are missing in the table; the load itself needs only the node.
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

fn spawn(serve: &mut Command, data_dir: &Path) -> Result<(Child, SocketAddr)> {
    // The port is free now. If another process takes it first, the node reports that and the run fails.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_path(data_dir))?;
    let child = serve
        .arg("--listen")
        .arg(address.to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok((child, address))
}

fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.join("node.log")
}

pub(crate) fn terminate(child: &Child) -> Result<()> {
    Ok(kill_process(Pid::from_child(child), Signal::TERM)?)
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

//! Redis as a yardstick: a `redis-server` that syncs each write to disk before it responds, as a node does. It is the
//! one in PATH; without it the scenarios with Redis are skipped.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::args::Args;
use crate::node::{self, DataDir};
use crate::resp::{self, Connection};

const PROGRAM: &str = "redis-server";
const READY_WITHIN: Duration = Duration::from_secs(10);

/// The server on this machine, if there is one.
pub(crate) fn program() -> Option<PathBuf> {
    let directories = std::env::var_os("PATH")?;
    std::env::split_paths(&directories)
        .map(|directory| directory.join(PROGRAM))
        .find(|path| path.is_file())
}

/// A server with its own data, stopped when dropped.
pub(crate) struct Redis {
    child: Child,
    pub(crate) address: SocketAddr,
    _data_dir: DataDir,
}

impl Redis {
    pub(crate) async fn start(args: &Args) -> Result<Self> {
        let program = program().ok_or("no redis-server")?;
        let data_dir = DataDir::new(args, "redis")?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new(program)
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            // Without snapshots, which would only slow it down.
            .args(["--save", ""])
            .arg("--dir")
            .arg(data_dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let server = Self {
            child,
            address,
            _data_dir: data_dir,
        };
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// Also checks that the server syncs, without which the comparison is worthless.
    async fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut connection = loop {
            match Connection::open(self.address).await {
                Ok(connection) => break connection,
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let asked = resp::command(&[b"CONFIG", b"GET", b"append*"]);
        let replies = connection.send(&asked, 1).await?;
        let texts: Vec<&[u8]> = replies.texts().collect();
        let is_set = |name: &[u8], value: &[u8]| {
            texts
                .chunks_exact(2)
                .any(|pair| pair[0] == name && pair[1] == value)
        };
        if is_set(b"appendonly", b"yes") && is_set(b"appendfsync", b"always") {
            return Ok(());
        }
        Err("redis-server does not sync each write".into())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Not killed: it may have a child that rewrites its log.
        let _ = node::terminate(&self.child);
        let _ = self.child.wait();
    }
}

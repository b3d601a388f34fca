//! A real S3-protocol server (SeaweedFS) that checks signatures and checksums. Started when the first test asks, shared
//! by those that run at the same time, killed with the last; each test keeps its objects under a prefix of its own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cursus::blob::{Blob, S3Settings, Timeouts};
use tokio::sync::Mutex;

use super::scratch::Scratch;

pub(crate) const ACCESS_KEY: &str = "AKTEST";
pub(crate) const SECRET: &str = "SKTEST";
pub(crate) const BUCKET: &str = "cursus-test";
const START_WAIT: Duration = Duration::from_secs(60);
/// Starts with new ports before the test gives up.
const STARTS_MAX: usize = 5;

static SHARED: Mutex<Weak<Seaweed>> = Mutex::const_new(Weak::new());

pub(crate) struct Seaweed {
    pub(crate) at: SocketAddr,
    server: Child,
    folder: Scratch,
}

impl Seaweed {
    /// The server of this process; hold it as long as it is used.
    pub(crate) async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return running;
        }
        for _ in 0..STARTS_MAX {
            let mut started = Self::start();
            if started.answers().await {
                let started = Arc::new(started);
                *shared = Arc::downgrade(&started);
                return started;
            }
        }
        panic!("SeaweedFS ended {STARTS_MAX} times by itself");
    }

    fn start() -> Self {
        let folder = Scratch::new("seaweed");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let [master, volume, filer, s3, admin] = free_ports();
        let server = Command::new(weed())
            .current_dir(folder.path())
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .args(["mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
            .arg(format!("-dir={}", data.display()))
            .args([
                format!("-master.port={master}"),
                format!("-volume.port={volume}"),
                format!("-filer.port={filer}"),
                format!("-s3.port={s3}"),
                format!("-admin.port={admin}"),
                format!("-bucket={BUCKET}"),
            ])
            .args(["-master.telemetry=false", "-webdav=false"])
            .args(["-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            at: SocketAddr::from((Ipv4Addr::LOCALHOST, s3)),
            server,
            folder,
        }
    }

    /// Waits until it takes an object; false when it ended instead, as it does when another process has taken one
    /// of its ports.
    async fn answers(&mut self) -> bool {
        let blob = Blob::s3(self.settings()).await;
        let started = Instant::now();
        while let Err(error) = blob.put("ready", Bytes::from_static(b"?")).await {
            let log = || std::fs::read_to_string(self.folder.path().join("log"));
            if let Some(status) = self.server.try_wait().unwrap() {
                eprintln!(
                    "SeaweedFS ended ({status}); it gets other ports\n{:?}",
                    log()
                );
                return false;
            }
            if started.elapsed() > START_WAIT {
                panic!("SeaweedFS does not answer: {error:?}\n{:?}", log());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        true
    }

    /// Settings that reach the server with short deadlines, under a fresh prefix.
    pub(crate) fn settings(&self) -> S3Settings {
        self.settings_through(self.at)
    }

    /// The same by way of a proxy.
    pub(crate) fn settings_through(&self, proxy: SocketAddr) -> S3Settings {
        S3Settings {
            endpoint: Some(format!("http://{proxy}")),
            bucket: BUCKET.to_owned(),
            prefix: format!("test-{:016x}", rand::random::<u64>()),
            region: None,
            access_key: Some(ACCESS_KEY.to_owned()),
            secret: Some(SECRET.to_owned()),
            force_path_style: true,
            checksums: true,
            timeouts: Timeouts {
                connect: Duration::from_secs(1),
                attempt: Duration::from_secs(5),
                overall: Duration::from_secs(10),
                pause: Duration::from_secs(30),
            },
        }
    }
}

impl Drop for Seaweed {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

/// The binary: `CURSUS_TEST_WEED`, else on PATH, else where `.ci/parts` puts it.
fn weed() -> PathBuf {
    if let Some(named) = std::env::var_os("CURSUS_TEST_WEED") {
        return named.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::home_dir().map(|home| home.join(".cache/cursus-test/venv/bin"));
    std::env::split_paths(&path)
        .chain(installed)
        .map(|folder| folder.join("weed"))
        .find(|weed| weed.is_file())
        .expect("no `weed` (SeaweedFS) on this machine: run `.ci/parts`")
}

/// Ports that are free now, each with the one 10,000 above it (the server's gRPC), all below those the kernel gives out.
fn free_ports<const N: usize>() -> [u16; N] {
    let mut held = Vec::new();
    std::array::from_fn(|_| {
        loop {
            let port = rand::random_range(20_000..22_700);
            let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            if let (Ok(low), Ok(high)) = (bind(port), bind(port + 10_000)) {
                held.push((low, high));
                return port;
            }
        }
    })
}

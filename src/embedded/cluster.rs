//! The cluster on disk, and how Postgres is started on it and stopped. Called by `start` and `supervise`, which hold
//! the lock of the data directory; so a Postgres that already runs here was left by a killed node. A cluster is created
//! under another name and renamed when it is complete, so an incomplete one is never used.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::account::{Account, with_real_path};
use super::binaries::Binaries;
use super::process::{self, Postmaster};
use super::{Error, repair, settings};
use crate::hex;

/// The only role: a superuser without password. Other users cannot enter the socket's directory.
pub(super) const USER: &str = "cursus";

/// Interval of the log line while Postgres starts. Crash recovery replays up to `max_wal_size`, which takes many
/// minutes on a slow disk. It has no time limit, because a killed recovery would begin again.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// Interval of the check whether the socket is still there.
const SOCKET_CHECK: Duration = Duration::from_secs(1);
const FAST_TIMEOUT: Duration = Duration::from_secs(20);
const IMMEDIATE_TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster and all that is needed to run it.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) dir: PathBuf,
    pub(super) sockets: PathBuf,
    account: Account,
    binaries: Binaries,
    /// File for the output of Postgres until its own log is open.
    start_log: PathBuf,
    settings: Vec<String>,
}

impl Cluster {
    /// Opens the cluster below `data_dir`, or creates it.
    pub(super) async fn open(
        data_dir: &Path,
        postgres_bin: Option<&Path>,
        (connections, disk_bytes): (u32, Option<u64>),
        ending: &CancellationToken,
    ) -> Result<Self, Error> {
        remove_unfinished(data_dir);
        let dir = data_dir.join("postgres");
        let account = Account::of(&dir)?;
        let version = fs::read_to_string(dir.join("PG_VERSION"));
        let version = version.ok().and_then(|text| text.trim().parse().ok());
        let binaries = Binaries::find(postgres_bin, version)?;
        let mut cluster = Self {
            sockets: sockets_of(&dir),
            start_log: data_dir.join("postgres-start.log"),
            dir,
            account,
            binaries,
            settings: Vec::new(),
        };
        if version.is_none() {
            cluster.create(ending).await?;
        }
        repair::repair(&cluster.dir, &cluster.account)?;
        cluster.settings = settings::arguments(connections, disk_bytes, cluster.has_lz4().await);
        Ok(cluster)
    }

    async fn create(&self, ending: &CancellationToken) -> Result<(), Error> {
        if self.dir.join("global/pg_control").exists() {
            return Err(Error::NoVersion(self.dir.clone()));
        }
        // An empty directory is replaced by the new cluster.
        let mut entries = fs::read_dir(&self.dir).into_iter().flatten();
        if self.dir.exists() && (!self.dir.is_dir() || entries.next().is_some()) {
            return Err(Error::NotCluster(self.dir.clone()));
        }
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        // The name is random, because the initdb of a killed node may still write into its own directory.
        let half = parent.join(format!("{UNFINISHED}-{:016x}", rand::random::<u64>()));
        tracing::info!(version = self.binaries.major, dir = %self.dir.display(), "creating the Postgres cluster");
        DirBuilder::new()
            .mode(0o700)
            .create(&half)
            .map_err(Error::file("create", &half))?;
        self.account.own(&half)?;
        let made = tokio::select! {
            made = self.initdb(&half) => made,
            () = ending.cancelled() => Err(Error::Ending),
        };
        if let Err(error) = made {
            remove_unfinished(parent);
            return Err(error);
        }
        let parent_file = File::open(parent).map_err(Error::file("open", parent))?;
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(&parent_file).map_err(|err| Error::file("sync", parent)(err.into()))?;
        fs::rename(&half, &self.dir).map_err(Error::file("rename", &half))?;
        parent_file.sync_all().map_err(Error::file("sync", parent))
    }

    async fn initdb(&self, half: &Path) -> Result<(), Error> {
        let (command, data) = self
            .account
            .command(&self.binaries.program("initdb"), half)?;
        let mut command = Command::from(command);
        command.args([
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--data-checksums",
            "-U",
            USER,
        ]);
        // `create` calls syncfs once; initdb would call fsync a thousand times, which takes seconds.
        #[cfg(target_os = "linux")]
        command.arg("--no-sync");
        let output = command
            .arg("-D")
            .arg(data)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(Error::file("run initdb on", half))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Initdb(with_real_path(&said, half)));
        }
        Ok(())
    }

    /// Whether this Postgres was built with lz4 for WAL compression: it then accepts the setting.
    async fn has_lz4(&self) -> bool {
        let Ok((command, data)) = self
            .account
            .command(&self.binaries.program("postgres"), &self.dir)
        else {
            return false;
        };
        let mut command = Command::from(command);
        command
            .args(["-C", "wal_compression", "-c", "wal_compression=lz4", "-D"])
            .arg(data);
        command
            .output()
            .await
            .is_ok_and(|output| output.status.success())
    }

    /// Starts Postgres and waits until it is ready. When `stop` is cancelled meanwhile, stops it again.
    pub(super) async fn launch(&self, stop: &CancellationToken) -> Result<Child, Error> {
        self.clear().await?;
        let log = File::create(&self.start_log).map_err(Error::file("create", &self.start_log))?;
        let program = self.binaries.program("postgres");
        let (command, data) = self.account.command(&program, &self.dir)?;
        let mut command = Command::from(command);
        command
            .arg("-D")
            .arg(data)
            .arg("-k")
            .arg(&self.sockets)
            .args(&self.settings);
        command
            .stdout(
                log.try_clone()
                    .map_err(Error::file("open", &self.start_log))?,
            )
            .stderr(log);
        // The child is dropped only after an error or a panic; Postgres then recovers at the next start.
        let child = command
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::file("run", &program))?;
        self.wait_until_ready(child, stop).await
    }

    async fn wait_until_ready(
        &self,
        mut child: Child,
        stop: &CancellationToken,
    ) -> Result<Child, Error> {
        let began = Instant::now();
        let mut report_at = began + REPORT_EVERY;
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(self.start_error(&status.to_string()));
            }
            if Postmaster::read(&self.dir).is_some_and(|it| it.ready && Some(it.pid) == child.id())
            {
                return Ok(child);
            }
            if stop.is_cancelled() {
                self.shut(child).await;
                return Err(Error::Ending);
            }
            if Instant::now() > report_at {
                report_at += REPORT_EVERY;
                tracing::info!(
                    seconds = began.elapsed().as_secs(),
                    "Postgres is starting; after a crash it first replays its log"
                );
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn start_error(&self, status: &str) -> Error {
        let output = fs::read_to_string(&self.start_log).unwrap_or_default();
        Error::Start {
            status: status.to_owned(),
            output: with_real_path(&output, &self.dir),
            log: self.dir.join("log"),
        }
    }

    /// Stops a Postgres left by a killed node, and removes files that would prevent a start.
    async fn clear(&self) -> Result<(), Error> {
        if let Some(postmaster) = Postmaster::read(&self.dir) {
            if process::works_in(postmaster.pid, &self.dir) {
                tracing::warn!(
                    pid = postmaster.pid,
                    "stopping the Postgres that a killed node left behind"
                );
                process::stop(postmaster.pid, &self.dir, FAST_TIMEOUT).await;
            } else if process::exists(postmaster.pid) {
                // The number now belongs to another process, which Postgres would take for a running postmaster.
                // Postgres still detects its own surviving backends by their shared memory.
                let path = self.dir.join("postmaster.pid");
                fs::remove_file(&path).map_err(Error::file("remove", &path))?;
            }
        }
        self.make_sockets()
    }

    /// Returns when the socket is gone, because someone has cleaned /tmp: Postgres goes on, and no connection can reach it.
    pub(super) async fn socket_gone(&self) {
        let socket = self.sockets.join(".s.PGSQL.5432");
        while tokio::fs::try_exists(&socket).await.unwrap_or(true) {
            sleep(SOCKET_CHECK).await;
        }
    }

    fn make_sockets(&self) -> Result<(), Error> {
        let dir = &self.sockets;
        if let Ok(meta) = fs::symlink_metadata(dir) {
            // /tmp is writable by all users, so an entry of this name may belong to another one.
            let ours =
                meta.uid() == self.account.uid || meta.uid() == rustix::process::geteuid().as_raw();
            if !meta.is_dir() || !ours {
                return Err(Error::Sockets(dir.clone()));
            }
            fs::remove_dir_all(dir).map_err(Error::file("remove", dir))?;
        }
        DirBuilder::new()
            .mode(0o700)
            .create(dir)
            .map_err(Error::file("create", dir))?;
        self.account.own(dir)
    }

    /// Stops Postgres in steps: a fast shutdown, an immediate one without checkpoint, then SIGKILL.
    pub(super) async fn shut(&self, mut child: Child) {
        let steps = [
            (Signal::INT, FAST_TIMEOUT),
            (Signal::QUIT, IMMEDIATE_TIMEOUT),
        ];
        for (signal, step_timeout) in steps {
            if let Some(pid) = child.id() {
                process::signal(pid, signal);
            }
            if timeout(step_timeout, child.wait()).await.is_ok() {
                break;
            }
            tracing::warn!(?signal, "Postgres did not stop in time");
        }
        // Does nothing if the process has ended.
        let _ = child.kill().await;
        let _ = fs::remove_dir_all(&self.sockets);
    }
}

/// Prefix of the name of a cluster that is not complete; a random number follows.
const UNFINISHED: &str = "postgres.initdb";

/// Removes what earlier attempts left. A failure is ignored: an initdb left by a killed node may still write there, and
/// the remains do no harm.
fn remove_unfinished(data_dir: &Path) {
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(UNFINISHED));
        if is_ours && let Err(err) = fs::remove_dir_all(entry.path()) {
            tracing::debug!(%err, path = %entry.path().display(), "an unfinished cluster stays");
        }
    }
}

/// The directory of the socket: in /tmp, because the path of a socket is limited to about 100 bytes. Its name is
/// derived from the path of the cluster.
fn sockets_of(dir: &Path) -> PathBuf {
    let hash = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let name = hex::encode(&hash[..8]);
    PathBuf::from(format!("/tmp/cursus-{name}"))
}

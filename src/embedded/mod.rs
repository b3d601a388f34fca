//! The private Postgres of the embedded mode, and the directory for objects. `app` starts it first and stops it last.
//! One process at a time holds a data directory. Killing the node, Postgres or both loses no committed data (I1), and
//! the next start recovers on its own. The rest of the program uses it like any other Postgres.
//!
//! ```text
//! <data-dir>/cursus.lock          the lock and a description of its holder
//!            postgres/            the cluster, owned by the user that Postgres runs as
//!            postgres-start.log   output of Postgres before its own log in postgres/log was open
//!            objects/             payloads that were moved out of Postgres
//!            reserve              room on the disk, to be used when it is full
//! ```

mod account;
mod binaries;
mod cluster;
mod error;
mod hold;
mod process;
mod repair;
mod reserve;
mod settings;
mod supervise;

use std::fs::{self, DirBuilder};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use error::Error;

use cluster::Cluster;
use hold::Hold;
use reserve::Reserve;

use crate::disk::Room;

/// A running private Postgres.
#[derive(Debug)]
pub struct Embedded {
    sockets: PathBuf,
    objects: PathBuf,
    room: Room,
    watch: JoinHandle<()>,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
    hold: Hold,
}

impl Embedded {
    /// Takes the lock of `data_dir`, creates a cluster in it if there is none, and starts Postgres for `connections`
    /// connections. `postgres_bin` is the directory of the binaries, if the user set one. Cancelling `ending` aborts
    /// the start and leaves nothing running.
    ///
    /// # Errors
    ///
    /// When another process holds the directory, Postgres is not installed or has another version, or does not start;
    /// [`Error::Ending`] when the start was aborted.
    pub async fn start(
        data_dir: &Path,
        postgres_bin: Option<&Path>,
        connections: u32,
        ending: &CancellationToken,
    ) -> Result<Self, Error> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(data_dir)
            .map_err(Error::file("create", data_dir))?;
        let data_dir = fs::canonicalize(data_dir).map_err(Error::file("find", data_dir))?;
        let hold = Hold::take(&data_dir)?;
        let reserve = Reserve::new(&data_dir);
        // A Postgres on a full disk does not start without the reserve.
        reserve.look();
        let objects = data_dir.join("objects");
        builder
            .create(&objects)
            .map_err(Error::file("create", &objects))?;
        rustix::fs::access(&objects, Access::WRITE_OK | Access::EXEC_OK).map_err(|_| {
            Error::NotWritable {
                dir: objects.clone(),
                uid: rustix::process::geteuid().as_raw(),
            }
        })?;
        let cluster = Cluster::open(
            &data_dir,
            postgres_bin,
            (connections, reserve.disk_bytes()),
            ending,
        )
        .await?;
        let child = supervise::first_launch(&cluster, ending).await?;
        let stop = CancellationToken::new();
        let room = reserve.room();
        Ok(Self {
            room,
            watch: tokio::spawn(reserve.watch(stop.clone())),
            sockets: cluster.sockets.clone(),
            objects,
            supervisor: tokio::spawn(supervise::run(cluster, child, stop.clone())),
            stop,
            hold,
        })
    }

    /// Options to connect to it.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.sockets)
            .port(5432)
            .username(cluster::USER)
            .database("postgres")
    }

    /// The directory that takes the place of object storage.
    #[must_use]
    pub fn objects_dir(&self) -> &Path {
        &self.objects
    }

    /// Whether there is room on its disk.
    #[must_use]
    pub fn room(&self) -> Room {
        self.room.clone()
    }

    /// Records the node's address for the error of a second start on the same directory.
    ///
    /// # Errors
    ///
    /// When the lock file cannot be written.
    pub fn listening(&self, address: SocketAddr) -> std::io::Result<()> {
        self.hold.listening(address)
    }

    /// Stops Postgres and releases the directory. Call it when nothing uses the database any more.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(err) = self.supervisor.await {
            tracing::error!(%err, "stopping Postgres");
        }
        // It ends with the same token, at once.
        let _ = self.watch.await;
    }
}

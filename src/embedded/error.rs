//! Why the private Postgres does not start. Each message is read by somebody who has just run the program for the first
//! time, so it says what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why the private Postgres does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the data directory.
    #[error("{} is held by another cursus: {holder}. Stop it, or give this one another --data-dir.", data_dir.display())]
    Held {
        /// The directory.
        data_dir: PathBuf,
        /// Process, time and address.
        holder: String,
    },
    /// No Postgres on this machine.
    #[error(
        "no Postgres server found on this machine. Install it (Debian, Ubuntu: apt-get install postgresql; \
         macOS: brew install postgresql@17), or say where its binaries are with --postgres-bin, \
         or use one that runs elsewhere with DATABASE_URL"
    )]
    NoBinaries,
    /// The named directory does not have them.
    #[error("--postgres-bin {}: no working `postgres` and `initdb` there", .0.display())]
    NotBinaries(PathBuf),
    /// Only an old Postgres is installed.
    #[error(
        "the newest Postgres on this machine is version {found}; Cursus needs {oldest} or later"
    )]
    TooOld {
        /// Major version installed.
        found: u32,
        /// Major version needed.
        oldest: u32,
    },
    /// The cluster is of a version that is not installed.
    #[error(
        "the data directory was made by Postgres {cluster}, but this machine has Postgres {found}. \
         Install version {cluster} beside it, or move the data with pg_upgrade or pg_dump"
    )]
    Version {
        /// Major version of the cluster.
        cluster: u32,
        /// Newest major version installed.
        found: u32,
    },
    /// The place of the cluster is taken by something else.
    #[error("{} is in the way: it is not a Postgres cluster", .0.display())]
    NotCluster(PathBuf),
    /// The cluster is another user's.
    #[error("{} belongs to user {owner}, but this process runs as {uid}: run it as that user, or as root", cluster.display())]
    Owner {
        /// The cluster.
        cluster: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// Our number.
        uid: u32,
    },
    /// Root has nobody to become.
    #[error("Postgres does not run as root, and neither `postgres` nor `nobody` is in /etc/passwd")]
    NoAccount,
    /// The place of the sockets is taken by another user.
    #[error("{} belongs to another user: remove it", .0.display())]
    Sockets(PathBuf),
    /// initdb failed.
    #[error("initdb failed: {0}")]
    Initdb(String),
    /// Postgres did not start.
    #[error("Postgres did not start ({status}): {said} (more in {})", log.display())]
    Start {
        /// How it ended.
        status: String,
        /// What it said.
        said: String,
        /// Directory of its log.
        log: PathBuf,
    },
    /// The program was asked to end before Postgres had started.
    #[error("asked to end before Postgres had started")]
    Ending,
    /// A file could not be used.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { verb, path, source }
    }

    /// Whether the backends of a Postgres that was killed are in the way, which they are for a moment only.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Start { said, .. }
            if said.contains("shared memory block") || said.contains("lock file"))
    }
}

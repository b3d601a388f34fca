//! A Postgres of its own for one test, which can crash, and can be put back to an earlier state as a restored backup or as a
//! replica that takes over: then it has lost what was committed since.

use std::fs;
use std::sync::Arc;

use rustix::process::Signal;

use super::postgres::{Database, FIRST, Postgres, copy};

/// Without it no replica takes over.
const SETTINGS: [&str; 1] = ["wal_level=replica"];

/// The server, and its state at one time.
pub(crate) struct Backup {
    server: Arc<Postgres>,
}

impl Backup {
    pub(crate) async fn of_new_server() -> Self {
        Self {
            server: Arc::new(Postgres::own(&SETTINGS).await),
        }
    }

    pub(crate) fn database(&self) -> Database {
        let hosts = self.server.options(FIRST).into();
        Database::of(self.server.clone(), FIRST, hosts)
    }

    /// Keeps the present state. The server starts again meanwhile.
    pub(crate) async fn take(&self) {
        self.server.end(Signal::INT);
        let folder = self.server.folder();
        copy(&folder.join("data"), &folder.join("backup"));
        self.server.start_again(&SETTINGS).await;
    }

    /// The server crashes and starts again.
    pub(crate) async fn crash(&self) {
        self.server.end(Signal::QUIT);
        self.server.start_again(&SETTINGS).await;
    }

    /// A server with the state that was kept takes its place, on the same timeline.
    pub(crate) async fn restore(&self) {
        self.put_back();
        self.server.start_again(&SETTINGS).await;
    }

    /// A replica that knows the state that was kept takes over.
    pub(crate) async fn fail_over(&self) {
        self.put_back();
        let signal = self.server.folder().join("data/standby.signal");
        fs::write(signal, "").unwrap();
        self.server.start_again(&SETTINGS).await;
        self.server.run("SELECT pg_promote()").await;
    }

    fn put_back(&self) {
        self.server.end(Signal::QUIT);
        let folder = self.server.folder();
        fs::remove_dir_all(folder.join("data")).unwrap();
        fs::rename(folder.join("backup"), folder.join("data")).unwrap();
    }
}

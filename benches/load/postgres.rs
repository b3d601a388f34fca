//! A connection to the node's Postgres: its commits, its settings, and a session that holds a transaction open to hold
//! back vacuum. It is found through `postmaster.pid` in the data directory. For a node of `--server` there is none
//! unless `--postgres-url` names it; then only the figures that need it are missing.

use std::path::{Path, PathBuf};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::Mutex;

use crate::Result;

/// Likely names of the user and the database of a private Postgres.
const NAMES: [&str; 2] = ["cursus", "postgres"];

/// A connection to the database of the node.
pub(crate) struct Postgres {
    options: PgConnectOptions,
    connection: Mutex<PgConnection>,
    pub(crate) postmaster_pid: Option<u32>,
}

/// A transaction with an id and a snapshot, open until [`Held::release`].
pub(crate) struct Held(PgConnection);

impl Postgres {
    pub(crate) async fn at_url(url: &str) -> Result<Self> {
        Self::connect(url.parse()?, None).await
    }

    /// The Postgres that runs in a data directory.
    pub(crate) async fn in_directory(data_dir: &Path) -> Result<Self> {
        let pid_file =
            find(data_dir, "postmaster.pid", 4).ok_or("no postmaster.pid in the data directory")?;
        let text = std::fs::read_to_string(&pid_file)?;
        // Lines: pid, cluster, start time, port, socket directory; see the documentation of postmaster.pid.
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let [pid, _, _, port, socket, ..] = lines[..] else {
            return Err(format!("{} is incomplete", pid_file.display()).into());
        };
        let server = PgConnectOptions::new_without_pgpass()
            .socket(socket)
            .port(port.parse()?);
        let mut failure = String::new();
        for user in NAMES {
            for database in NAMES {
                let options = server.clone().username(user).database(database);
                match Self::connect(options, pid.parse().ok()).await {
                    Ok(postgres) => return Ok(postgres),
                    Err(error) => failure = error.to_string(),
                }
            }
        }
        Err(failure.into())
    }

    /// Accepts only the database with the table `block`, because an open transaction holds back vacuum only in its own
    /// database.
    async fn connect(options: PgConnectOptions, postmaster_pid: Option<u32>) -> Result<Self> {
        let options = options.disable_statement_logging();
        let mut connection = PgConnection::connect_with(&options).await?;
        let (tables,): (i64,) =
            sqlx::query_as("SELECT count(*) FROM pg_class WHERE relname = 'block'")
                .fetch_one(&mut connection)
                .await?;
        if tables == 0 {
            return Err("the database has no table `block`".into());
        }
        Ok(Self {
            options,
            connection: Mutex::new(connection),
            postmaster_pid,
        })
    }

    /// Commits of the database so far, from its statistics, which lag by up to a second.
    pub(crate) async fn commits(&self) -> Option<u64> {
        let query = sqlx::query_as(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()",
        );
        let (commits,): (i64,) = query
            .fetch_one(&mut *self.connection.lock().await)
            .await
            .ok()?;
        u64::try_from(commits).ok()
    }

    /// Blocks whose payload is still in Postgres.
    pub(crate) async fn hot_blocks(&self) -> Result<i64> {
        let query = sqlx::query_as("SELECT count(*) FROM block WHERE slot IS NOT NULL");
        let (blocks,): (i64,) = query.fetch_one(&mut *self.connection.lock().await).await?;
        Ok(blocks)
    }

    /// URL of this database, for another node.
    pub(crate) fn url(&self) -> String {
        self.options.to_url_lossy().to_string()
    }

    /// Settings that decide whether the figures are valid.
    pub(crate) async fn settings(&self) -> Result<serde_json::Value> {
        let names = [
            "server_version",
            "fsync",
            "synchronous_commit",
            "full_page_writes",
            "shared_buffers",
        ];
        let mut settings = serde_json::Map::new();
        for name in names {
            let query = sqlx::query_as("SELECT current_setting($1)").bind(name);
            let (value,): (String,) = query.fetch_one(&mut *self.connection.lock().await).await?;
            settings.insert(name.to_owned(), value.into());
        }
        Ok(settings.into())
    }

    /// Opens a transaction in its own session; vacuum cannot remove rows that die after this.
    pub(crate) async fn hold(&self) -> Result<Held> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
            .execute(&mut connection)
            .await?;
        sqlx::raw_sql("SELECT pg_current_xact_id()")
            .execute(&mut connection)
            .await?;
        Ok(Held(connection))
    }
}

impl Held {
    /// Ends the transaction. An error means that it was not held until now, so the run proves nothing.
    pub(crate) async fn release(mut self) -> Result<()> {
        sqlx::raw_sql("SELECT 1").execute(&mut self.0).await?;
        sqlx::raw_sql("ROLLBACK").execute(&mut self.0).await?;
        Ok(())
    }
}

fn find(directory: &Path, name: &str, depth: usize) -> Option<PathBuf> {
    let here = directory.join(name);
    if here.is_file() {
        return Some(here);
    }
    if depth == 0 {
        return None;
    }
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    entries
        .filter(|entry| entry.path().is_dir())
        .find_map(|entry| find(&entry.path(), name, depth - 1))
}

//! Connections: the pool, and sessions taken from it with or without a transaction. Every statement goes through
//! [`Session::run`], which counts it by name.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, Executor, PgConnection, PgPool, Postgres, Row, Transaction};
use time::OffsetDateTime;

use super::Error;
use super::group::Touched;

/// A statement is cancelled after this time; those of the hot path take milliseconds.
const STATEMENT_TIMEOUT: &str = "30s";
/// The server ends a transaction that is idle for this long. No network call runs inside a transaction, so its node has
/// vanished, and its locks block others.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "10s";
/// The server probes an idle connection after 30 s, then every 10 s, and closes it after 3 probes without a response.
/// Otherwise the locks of a node that vanished during a statement would stay for hours.
const KEEPALIVES: [(&str, &str); 3] = [
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
];
/// Settings that the statements rely on. A role or a database may have other defaults, and they must not reach a session.
const SETTINGS: [(&str, &str); 10] = [
    ("statement_timeout", STATEMENT_TIMEOUT),
    (
        "idle_in_transaction_session_timeout",
        IDLE_IN_TRANSACTION_TIMEOUT,
    ),
    // The connection of a turn loop may be idle for long.
    ("idle_session_timeout", "0"),
    ("lock_timeout", "0"),
    // A turn reads what others have committed after it took its locks.
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("jit", "off"),
    // A plan that was made for a small table stays in use while the table grows. Every look-up has an index.
    ("enable_seqscan", "off"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
];
/// Longest wait for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that returns to the pool is closed if it does not respond within this time.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Label of the statement counter.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Statement {
    /// `table.verb`.
    pub statement: &'static str,
}

/// The counters of the store.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Statements sent, by name.
    pub statements: Family<Statement, Counter>,
    /// Commits: transactions, and statements outside of one.
    pub commits: Counter,
}

impl Metrics {
    /// Adds them to a registry that prefixes `cursus`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "database_statements",
            "Statements sent to the database, by name",
            self.statements.clone(),
        );
        registry.register(
            "database_commits",
            "Commits asked of the database",
            self.commits.clone(),
        );
    }
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    options: PgConnectOptions,
    metrics: Arc<Metrics>,
}

impl Store {
    /// A store with at most `connections` connections; it connects at the first use.
    #[must_use]
    pub fn new(options: PgConnectOptions, connections: u32) -> Self {
        let options = options
            .application_name("cursus")
            .options(SETTINGS)
            .options(KEEPALIVES)
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(Duration::from_secs(300))
            .after_connect(|connection, _| Box::pin(make_durable(connection)))
            .after_release(|connection, _| Box::pin(is_clean(connection)))
            .connect_lazy_with(options.clone());
        Self {
            pool,
            options,
            metrics: Arc::default(),
        }
    }

    /// The counters of the store.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A connection where each statement commits by itself.
    ///
    /// # Errors
    /// When the database call fails.
    pub async fn session(&self) -> Result<Session, Error> {
        Ok(Session {
            inner: Inner::Pooled(self.pool.acquire().await?),
            metrics: self.metrics.clone(),
            touched: Touched::new(None),
        })
    }

    /// A transaction called `name`. It is rolled back when dropped without [`Session::commit`].
    ///
    /// # Errors
    /// When the database call fails.
    pub async fn tx(&self, name: &'static str) -> Result<Session, Error> {
        tracing::trace!(name, "transaction");
        Ok(Session {
            inner: Inner::Tx(self.pool.begin().await?),
            metrics: self.metrics.clone(),
            touched: Touched::new(Some(name)),
        })
    }

    /// A dedicated connection for a turn loop. It caches plans, and they always scan their arrays in order, so that
    /// rows are locked in the order of the caller.
    ///
    /// # Errors
    /// When the database call fails.
    pub async fn turn_session(&self) -> Result<Session, Error> {
        let options = self.options.clone().options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("enable_sort", "off"),
            ("enable_bitmapscan", "off"),
        ]);
        let mut connection = options.connect().await?;
        make_durable(&mut connection).await?;
        Ok(Session {
            inner: Inner::Own(Box::new(connection)),
            metrics: self.metrics.clone(),
            touched: Touched::new(None),
        })
    }

    /// A listener for the hints of other nodes.
    ///
    /// # Errors
    /// When the database call fails.
    pub async fn listen(&self, channel: &str) -> Result<PgListener, Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(channel).await?;
        Ok(listener)
    }

    /// Closes all connections of the pool.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Makes the commits of a connection durable before they are answered (I1), whatever the defaults of its role and database
/// are. What waits for standbys stays as the operator has set it.
async fn make_durable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let set = sqlx::raw_sql(
        "-- session.make_durable
         SELECT set_config('synchronous_commit', 'on', false)
         WHERE current_setting('synchronous_commit') IN ('off', 'local')",
    );
    connection.execute(set).await?;
    Ok(())
}

/// The settings of a new connection that are not as it asked for, by name with the value found. A pooler between node and
/// database may drop them.
///
/// # Errors
/// When the database call fails.
pub async fn lost_settings(store: &Store) -> Result<Vec<(String, String)>, Error> {
    let mut session = store.session().await?;
    let (names, values): (Vec<&str>, Vec<&str>) = SETTINGS.into_iter().unzip();
    Ok(sqlx::query_as(
        "-- session.settings
         SELECT k.name, current_setting(k.name) FROM unnest($1::text[], $2::text[]) AS k (name, value)
         WHERE current_setting(k.name) IS DISTINCT FROM k.value",
    )
    .bind(names)
    .bind(values)
    .fetch_all(session.run("session.settings"))
    .await?)
}

/// Whether a connection that returns to the pool is outside of any transaction; if not, or after an error, it is
/// closed, which rolls back. A future that is dropped while it waits for the response to its BEGIN leaves a transaction
/// open, unknown to sqlx (transact-rs/sqlx #4385). The next user of the connection would write into it and never
/// commit. The check: inside a transaction, the time of the transaction differs from the time of the statement.
async fn is_clean(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let asked = connection.fetch_one(sqlx::raw_sql(
        "-- session.is_clean
         SELECT now() = statement_timestamp()",
    ));
    match tokio::time::timeout(RELEASE_TIMEOUT, asked).await {
        Ok(answer) => answer?.try_get(0),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// A connection on which statements run.
#[derive(Debug)]
pub struct Session {
    inner: Inner,
    metrics: Arc<Metrics>,
    touched: Touched,
}

#[derive(Debug)]
enum Inner {
    Pooled(PoolConnection<Postgres>),
    Tx(Transaction<'static, Postgres>),
    Own(Box<PgConnection>),
}

impl Session {
    /// The connection for the statement `name` (`table.verb`). Panics in a debug build if a transaction that is not
    /// listed in `group` runs statements of both groups of tables.
    pub fn run(&mut self, statement: &'static str) -> &mut PgConnection {
        debug_assert!(
            self.touched.may_run(statement),
            "{statement} is of another group of tables than what {:?} ran before",
            self.touched
        );
        self.metrics
            .statements
            .get_or_create(&Statement { statement })
            .inc();
        match &mut self.inner {
            Inner::Pooled(connection) => {
                self.metrics.commits.inc();
                connection
            }
            Inner::Tx(tx) => tx,
            Inner::Own(connection) => {
                self.metrics.commits.inc();
                connection
            }
        }
    }

    /// Commits a transaction. On other sessions it does nothing.
    ///
    /// # Errors
    /// When the outcome is unknown, or a deferred constraint failed.
    pub async fn commit(self) -> Result<(), Error> {
        if let Inner::Tx(tx) = self.inner {
            self.metrics.commits.inc();
            tx.commit().await?;
        }
        Ok(())
    }
}

/// The database's time.
///
/// # Errors
/// When the database call fails.
pub async fn now(
    session: &mut Session,
    now: Option<OffsetDateTime>,
) -> Result<OffsetDateTime, Error> {
    Ok(sqlx::query_scalar(
        "-- session.now
         SELECT coalesce($1, clock_timestamp())",
    )
    .bind(now)
    .fetch_one(session.run("session.now"))
    .await?)
}

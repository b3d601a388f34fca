//! Connections: the pool, and sessions taken from it with or without a transaction. Every statement goes through
//! [`Session::run`], which counts it by name.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, Executor, PgConnection, PgPool, Postgres, Row, Transaction};
use time::OffsetDateTime;

use super::Error;
use super::group::Touched;

/// A statement gives up after this; the hot ones take milliseconds.
const STATEMENT_TIMEOUT: &str = "30s";
/// A transaction in which nothing is asked for so long is ended by the server: no network call runs inside one, so its
/// node has vanished, and the locks it holds stop others.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "10s";
/// Seconds of silence after which the server asks whether a node is still there, again after so many, so many times.
/// Without it a node that vanished in a statement keeps its locks for hours.
const KEEPALIVES: [(&str, &str); 3] = [
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
];
/// Waiting for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that does not answer within this when it comes back to the pool is closed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Label of the statement counter.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Statement {
    /// `table.verb`.
    pub statement: &'static str,
}

/// What the store counts.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Statements sent, by name.
    pub statements: Family<Statement, Counter>,
    /// Commits: transactions, and statements outside of one.
    pub commits: Counter,
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    options: PgConnectOptions,
    metrics: Arc<Metrics>,
}

impl Store {
    /// A store over at most `connections` connections; connects when first used.
    #[must_use]
    pub fn new(options: PgConnectOptions, connections: u32) -> Self {
        let options = options
            .application_name("cursus")
            .options([
                ("statement_timeout", STATEMENT_TIMEOUT),
                (
                    "idle_in_transaction_session_timeout",
                    IDLE_IN_TRANSACTION_TIMEOUT,
                ),
                ("jit", "off"),
                // A plan that was made while a table was small is kept while it grows, and there is an index for every look-up.
                ("enable_seqscan", "off"),
                ("timezone", "UTC"),
            ])
            .options(KEEPALIVES)
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(Duration::from_secs(300))
            .after_release(|connection, _| Box::pin(is_clean(connection)))
            .connect_lazy_with(options.clone());
        Self {
            pool,
            options,
            metrics: Arc::default(),
        }
    }

    /// What the store counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A connection where each statement commits by itself.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn session(&self) -> Result<Session, Error> {
        Ok(Session {
            inner: Inner::Pooled(self.pool.acquire().await?),
            metrics: self.metrics.clone(),
            touched: Touched::new(None),
        })
    }

    /// A transaction called `name`; dropped without [`Session::commit`] it is rolled back.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tx(&self, name: &'static str) -> Result<Session, Error> {
        tracing::trace!(name, "transaction");
        Ok(Session {
            inner: Inner::Tx(self.pool.begin().await?),
            metrics: self.metrics.clone(),
            touched: Touched::new(Some(name)),
        })
    }

    /// A connection of its own for a turn loop: plans are made once, and always walk the arrays they are given in order,
    /// so that rows are locked in the order of the caller.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn turn_session(&self) -> Result<Session, Error> {
        let options = self.options.clone().options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("enable_sort", "off"),
            ("enable_bitmapscan", "off"),
        ]);
        let connection = options.connect().await?;
        Ok(Session {
            inner: Inner::Own(Box::new(connection)),
            metrics: self.metrics.clone(),
            touched: Touched::new(None),
        })
    }

    /// A listener for hints between nodes.
    ///
    /// # Errors
    /// When the database does not answer.
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

/// Whether a connection that comes back to the pool is outside of any transaction; otherwise it is closed, which rolls back.
/// A future that is dropped while it waits for the answer to its BEGIN leaves a transaction open that sqlx does not know
/// of (transact-rs/sqlx #4385); whoever got the connection next would write into it and never commit. Inside of one the
/// time of the transaction is not the time of the statement. An error closes the connection too.
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
    /// The connection for the statement `name` (`table.verb`). Panics in a debug build when a transaction that is not listed
    /// in `group` runs statements of both groups of tables.
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

    /// Commits a transaction; of another session, nothing is left to commit.
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
/// When the database does not answer.
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

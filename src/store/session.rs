//! Sessions: connections with or without a transaction, on which statements run. Every statement goes through
//! [`Session::run`], which counts it by name. `pool` holds the connections that sessions share, `connect` makes them.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Connection, Executor, PgConnection, PgPool};
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use super::connect::{Connector, Server};
use super::error::Unreachable;
use super::group::Touched;
use super::history::Present;
use super::hosts::Hosts;
use super::pool::{Pool, Pooled, Transaction};
use super::run::{Reached, Run};
use super::settings;
use super::trouble::Trouble;
use super::{Era, Error};

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
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
}

impl Store {
    /// Connections that a node has apart from its pool and its turn loops: the listener for hints and the watch.
    pub const OWN_CONNECTIONS: u32 = 2;

    /// A store whose sessions share at most `connections` connections; it connects at the first use.
    #[must_use]
    pub fn new(hosts: impl Into<Hosts>, connections: u32) -> Self {
        Self {
            pool: Pool::new(Connector::new(&hosts.into()), connections),
            metrics: Arc::default(),
        }
    }

    /// The counters of the store.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn with(&self, inner: Inner, transaction: Option<&'static str>) -> Session {
        Session {
            inner,
            metrics: self.metrics.clone(),
            touched: Touched::new(transaction),
        }
    }

    /// A connection where each statement commits by itself.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn session(&self) -> Result<Session, Error> {
        Ok(self.with(Inner::Pooled(self.pool.acquire().await?), None))
    }

    /// A transaction called `name`. It is rolled back when dropped without [`Session::commit`].
    ///
    /// # Errors
    /// When there is no connection, or the database call fails.
    pub async fn tx(&self, name: &'static str) -> Result<Session, Error> {
        tracing::trace!(name, "transaction");
        let mut pooled = self.pool.acquire().await?;
        pooled.transaction = Transaction::Open;
        let begin = sqlx::raw_sql("-- session.begin\nBEGIN");
        pooled.run().execute(begin).await?;
        Ok(self.with(Inner::Pooled(pooled), Some(name)))
    }

    /// A connection of its own for a turn loop.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn turn_session(&self) -> Result<Session, Error> {
        self.own_session(&settings::OF_TURN).await
    }

    /// A connection of its own for the watch: it learns of a failure while all connections of the pool hang.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn watch_session(&self) -> Result<Session, Error> {
        self.own_session(&[]).await
    }

    async fn own_session(&self, more: &[settings::Setting]) -> Result<Session, Error> {
        let trust = self.pool.distrusted();
        let (connection, reached) = self.pool.connector.connect(more).await?;
        let own = Own {
            connection: Box::new(connection),
            reached,
            trust,
            pool: self.pool.clone(),
        };
        Ok(self.with(Inner::Own(own), None))
    }

    /// The present era of the database, as this node knows it (`history`).
    #[must_use]
    pub fn era(&self) -> Era {
        self.pool.connector.history.present().era
    }

    /// Calls `forget` whenever the database turns out to have another history than before, before any session of it is
    /// used. Only the first call counts.
    pub fn when_it_changes(&self, forget: impl Fn() + Send + Sync + 'static) {
        self.pool.connector.history.when_it_changes(forget);
    }

    /// Learns the history of a database that has just got its schema and its row `installation`.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn learn_history(&self) -> Result<(), Error> {
        let (connection, _) = self.pool.connector.connect(&[]).await?;
        // The server notices in any case.
        let _ = connection.close().await;
        Ok(())
    }

    /// Turns to the era that another node has raised, if it is not the present one.
    pub fn observe_era(&self, era: Era) {
        self.pool.connector.history.observe(era);
    }

    /// Records a heartbeat of this node that the database has confirmed to this session; `None`: the node ends, and its
    /// row with it.
    pub fn confirm_heartbeat(&self, session: &Session, heartbeat: Option<(Uuid, OffsetDateTime)>) {
        let history = &self.pool.connector.history;
        history.confirm(session.present(), heartbeat);
    }

    /// Why no connection can be made, if none can.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.pool.connector.trouble()
    }

    /// A connection could not do its work: those that were made before are not used again.
    pub fn distrust(&self) {
        self.pool.distrust();
    }

    /// A listener for the hints of other nodes.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn listen(&self, channel: &str) -> Result<Hints, Error> {
        let server = self.pool.connector.server();
        let options = self.pool.connector.options();
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(channel).await?;
        Ok(Hints {
            listener,
            server,
            _pool: pool,
        })
    }

    /// Fails if a pooler gives a session another connection to the server from one transaction to the next.
    ///
    /// # Errors
    /// When it does, or there is no connection.
    pub async fn check_sessions(&self) -> Result<(), Error> {
        // The pool tries again while the database starts; its connection is not needed.
        drop(self.pool.acquire().await?);
        let connector = &self.pool.connector;
        let (other, _) = connector.connect(&[]).await?;
        let (session, _) = connector.connect(&[]).await?;
        if settings::are_kept(session, other).await? {
            Ok(())
        } else {
            Err(Unreachable::here(Trouble::Pooler).into())
        }
    }

    /// Closes all connections of the pool.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Hints of other nodes.
#[derive(Debug)]
pub struct Hints {
    listener: PgListener,
    server: watch::Receiver<Option<Server>>,
    /// The pool of the one connection of the listener.
    _pool: PgPool,
}

impl Hints {
    /// The next hint; `None` when the connection broke, or the server was replaced.
    pub async fn next(&mut self) -> Option<String> {
        tokio::select! {
            hint = self.listener.try_recv() => Some(hint.ok()??.payload().to_owned()),
            _ = self.server.changed() => None,
        }
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
    Pooled(Pooled),
    Own(Own),
}

/// A connection outside of the pool.
#[derive(Debug)]
struct Own {
    connection: Box<PgConnection>,
    reached: Reached,
    trust: u64,
    pool: Arc<Pool>,
}

impl Session {
    /// The connection for the statement `name` (`table.verb`). Panics in a debug build if a transaction that is not
    /// listed in `group` runs statements of both groups of tables.
    pub fn run(&mut self, statement: &'static str) -> Run<'_> {
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
            Inner::Pooled(pooled) => {
                if pooled.transaction == Transaction::None {
                    self.metrics.commits.inc();
                }
                pooled.run()
            }
            Inner::Own(own) => {
                self.metrics.commits.inc();
                Run::new(&mut own.connection, &own.reached)
            }
        }
    }

    fn present(&self) -> Present {
        match &self.inner {
            Inner::Pooled(pooled) => pooled.present(),
            Inner::Own(own) => own.reached.present(),
        }
    }

    /// The era of the database that it belongs to.
    #[must_use]
    pub fn era(&self) -> Era {
        self.present().era
    }

    /// Commits a transaction. On other sessions it does nothing.
    ///
    /// # Errors
    /// When the outcome is unknown, or a deferred constraint failed.
    pub async fn commit(mut self) -> Result<(), Error> {
        if let Inner::Pooled(pooled) = &mut self.inner
            && pooled.transaction == Transaction::Open
        {
            self.metrics.commits.inc();
            pooled.transaction = Transaction::Ending;
            let commit = sqlx::raw_sql("-- session.commit\nCOMMIT");
            pooled.run().execute(commit).await?;
            pooled.transaction = Transaction::None;
        }
        Ok(())
    }

    /// Whether a connection of its own is as good as a new one. One of the pool is not to be kept.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        match &self.inner {
            Inner::Pooled(_) => false,
            Inner::Own(own) => own.trust == own.pool.distrusted() && own.reached.is_current(),
        }
    }

    /// Closes a connection of its own in an orderly way, when its owner ends. One of the pool goes back.
    pub async fn close(self) {
        if let Inner::Own(own) = self.inner {
            // The server notices in any case.
            let _ = own.connection.close().await;
        }
    }
}

/// Fails if the session takes no writes.
///
/// # Errors
/// When it takes none, or the database call fails.
pub async fn check_writable(session: &mut Session) -> Result<(), Error> {
    let is_read_only: bool = sqlx::query_scalar(
        "-- session.check_writable
         SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool",
    )
    .fetch_one(session.run("session.check_writable"))
    .await?;
    if is_read_only {
        return Err(Unreachable::here(Trouble::ReadOnly).into());
    }
    Ok(())
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

//! The connections that sessions share: at most so many, each for a bounded time. A connection is checked when it comes
//! back, and before its use when it was idle. One that cannot do its work takes the idle ones along, because they have
//! met the same server. When the server was replaced, the pool begins anew, and what hangs on the one before is left to
//! its own end. (sqlx has a pool; it knows one host, retries in silence until its time is over, and keeps a connection to
//! a server that became read-only.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::{Connection, Executor, PgConnection, Row};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::connect::{Connector, Server};
use super::error::Unreachable;
use super::history::Present;
use super::run::{Reached, Run};
use super::trouble::Trouble;

/// Longest wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that comes back is closed if it does not respond within this time.
const RETURN_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for one that was idle.
const IDLE_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that was idle for longer is checked before its use.
const CHECK_AFTER: Duration = Duration::from_secs(1);
/// Pause before another attempt to connect.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// An idle connection is closed after this time.
const IDLE_MAX: Duration = Duration::from_mins(5);
/// Every connection is closed after this time, plus up to a tenth, so that not all go at once. A server and a balancer
/// of connections see new ones, and the memory of an old session is freed.
const LIFETIME: Duration = Duration::from_mins(30);

/// A pool.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) connector: Connector,
    size: u32,
    shelf: Mutex<Arc<Shelf>>,
    /// Rises when a connection could not do its work. Connections that were made before are not to be trusted.
    distrusted: AtomicU64,
    closed: CancellationToken,
}

/// The connections to one run of a server.
#[derive(Debug)]
struct Shelf {
    /// `None` until the first connection is made.
    server: Mutex<Option<Server>>,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<PgConnection>,
    reached: Reached,
    ends: Instant,
    since: Instant,
}

/// What a check of a connection found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Able,
    /// It still is in a transaction.
    Unclean,
    /// It takes no writes, or is broken.
    Unable,
    /// It did not respond in time.
    Silent,
}

/// A connection of the pool. It goes back when dropped.
#[derive(Debug)]
pub(super) struct Pooled {
    pool: Arc<Pool>,
    shelf: Arc<Shelf>,
    permit: Option<OwnedSemaphorePermit>,
    connection: Option<Box<PgConnection>>,
    reached: Reached,
    ends: Instant,
    /// Whether a transaction is open, or its end is unknown.
    pub(super) transaction: Transaction,
}

/// The transaction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transaction {
    /// There is none.
    None,
    /// It was begun.
    Open,
    /// Its commit was sent, and no response came.
    Ending,
}

impl Shelf {
    fn new(size: u32) -> Arc<Self> {
        Arc::new(Self {
            server: Mutex::new(None),
            free: Arc::new(Semaphore::new(size as usize)),
            idle: Mutex::new(Vec::new()),
        })
    }
}

impl Pool {
    pub(super) fn new(connector: Connector, size: u32) -> Arc<Self> {
        Arc::new(Self {
            connector,
            size,
            shelf: Mutex::new(Shelf::new(size)),
            distrusted: AtomicU64::new(0),
            closed: CancellationToken::new(),
        })
    }

    /// How often connections were found to be of no use.
    pub(super) fn distrusted(&self) -> u64 {
        self.distrusted.load(Ordering::Acquire)
    }

    /// A connection was of no use: the idle ones are closed, and those of turn loops are made anew.
    pub(super) fn distrust(&self) {
        self.distrusted.fetch_add(1, Ordering::AcqRel);
        let idle = std::mem::take(&mut *self.shelf().idle.lock());
        drop(idle);
    }

    /// The shelf of the current server.
    fn shelf(&self) -> Arc<Shelf> {
        let current = *self.connector.server().borrow();
        let mut shelf = self.shelf.lock();
        let of = *shelf.server.lock();
        match (of, current) {
            (Some(of), Some(current)) if of != current => *shelf = Shelf::new(self.size),
            _ => {}
        }
        if let Some(current) = current {
            *shelf.server.lock() = Some(current);
        }
        shelf.clone()
    }

    /// A connection that can do its work.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Pooled, Unreachable> {
        if self.closed.is_cancelled() {
            return Err(Unreachable::here(Trouble::Connection));
        }
        let ends = Instant::now() + ACQUIRE_TIMEOUT;
        let (shelf, permit) = tokio::time::timeout(ACQUIRE_TIMEOUT, self.permit())
            .await
            .map_err(|_| Unreachable::here(Trouble::AllInUse))?;
        loop {
            while let Some(mut idle) = take_idle(&shelf) {
                if idle.since.elapsed() > CHECK_AFTER
                    && check(&mut idle.connection, IDLE_CHECK_TIMEOUT).await != Found::Able
                {
                    self.distrust();
                    continue;
                }
                if !idle.reached.is_current() {
                    continue;
                }
                let Idle {
                    connection,
                    reached,
                    ends,
                    ..
                } = idle;
                return Ok(self.pooled((shelf, permit), connection, reached, ends));
            }
            let refused = match self.connector.connect(&[]).await {
                Ok((connection, reached)) => {
                    let jitter = LIFETIME.mul_f64(rand::random_range(0.0..0.1));
                    let ends = Instant::now() + LIFETIME + jitter;
                    return Ok(self.pooled((shelf, permit), Box::new(connection), reached, ends));
                }
                Err(refused) => refused,
            };
            // Until then one that is in use may come back, or the server may have room again.
            if !refused.trouble.may_pass() || Instant::now() + TRY_AGAIN > ends {
                return Err(refused);
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    /// A place in the pool. Those who wait go on to the new shelf when the server is replaced.
    async fn permit(&self) -> (Arc<Shelf>, OwnedSemaphorePermit) {
        let mut server = self.connector.server();
        loop {
            server.mark_unchanged();
            let shelf = self.shelf();
            tokio::select! {
                biased;
                permit = shelf.free.clone().acquire_owned() => match permit {
                    Ok(permit) => return (shelf, permit),
                    // It was closed: the caller is late, and gets nothing more.
                    Err(_) => std::future::pending().await,
                },
                _ = server.changed() => {}
            }
        }
    }

    fn pooled(
        self: &Arc<Self>,
        (shelf, permit): (Arc<Shelf>, OwnedSemaphorePermit),
        connection: Box<PgConnection>,
        reached: Reached,
        ends: Instant,
    ) -> Pooled {
        Pooled {
            pool: self.clone(),
            shelf,
            permit: Some(permit),
            connection: Some(connection),
            reached,
            ends,
            transaction: Transaction::None,
        }
    }

    /// Closes the connections, those in use when they come back.
    pub(super) async fn close(&self) {
        self.closed.cancel();
        let shelf = self.shelf();
        let all = shelf.free.acquire_many(self.size).await;
        let idle = std::mem::take(&mut *shelf.idle.lock());
        for Idle { connection, .. } in idle {
            // It goes with the process in any case.
            let _ = connection.close().await;
        }
        drop(all);
    }
}

/// The connection that was used last. Those that were idle for too long are closed.
fn take_idle(shelf: &Shelf) -> Option<Idle> {
    let (now, mut idle) = (Instant::now(), shelf.idle.lock());
    idle.retain(|one| now < one.ends && now.duration_since(one.since) < IDLE_MAX);
    idle.pop()
}

/// Whether a connection is outside of any transaction and takes writes. A future that is dropped while it waits for a
/// response may leave a transaction open; the next user of the connection would write into it and never commit. Inside a
/// transaction, its time differs from the time of the statement.
async fn check(connection: &mut PgConnection, within: Duration) -> Found {
    let asked = connection.fetch_one(sqlx::raw_sql(
        "-- pool.check
         SELECT now() = statement_timestamp(), NOT (pg_is_in_recovery() OR current_setting('transaction_read_only')::bool)",
    ));
    let Ok(answer) = tokio::time::timeout(within, asked).await else {
        return Found::Silent;
    };
    let answer = answer.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    match answer {
        Ok((true, true)) => Found::Able,
        Ok((false, true)) => Found::Unclean,
        Ok((_, false)) | Err(_) => Found::Unable,
    }
}

impl Pooled {
    /// The history of the database that it belongs to.
    pub(super) fn present(&self) -> Present {
        self.reached.present()
    }

    /// The connection, for one statement.
    pub(super) fn run(&mut self) -> Run<'_> {
        // It is there until the drop.
        #[expect(clippy::expect_used, reason = "taken by drop only")]
        let connection = self.connection.as_mut().expect("in use");
        Run::new(connection, &self.reached)
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let (Some(connection), Some(permit)) = (self.connection.take(), self.permit.take()) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        // Nothing comes back from a server that was replaced.
        if !self.reached.is_current() {
            return;
        }
        let (pool, shelf, reached) = (self.pool.clone(), self.shelf.clone(), self.reached.clone());
        let (ends, transaction) = (self.ends, self.transaction);
        runtime.spawn(async move {
            if let Some(connection) = pool.cleaned(connection, transaction).await {
                let since = Instant::now();
                if pool.closed.is_cancelled() || since > ends {
                    let _ = connection.close().await;
                } else {
                    shelf.idle.lock().push(Idle {
                        connection,
                        reached,
                        ends,
                        since,
                    });
                }
            }
            // Last, so that whoever waits for it finds the connection.
            drop(permit);
        });
    }
}

impl Pool {
    /// A connection that came back, if it can be used again.
    async fn cleaned(
        &self,
        mut connection: Box<PgConnection>,
        transaction: Transaction,
    ) -> Option<Box<PgConnection>> {
        match transaction {
            Transaction::None => {}
            // A rollback would come after the commit, or would be that of another transaction.
            Transaction::Ending => return None,
            Transaction::Open => {
                let end = connection.execute(sqlx::raw_sql("-- pool.rollback\nROLLBACK"));
                if !matches!(tokio::time::timeout(RETURN_TIMEOUT, end).await, Ok(Ok(_))) {
                    return None;
                }
            }
        }
        match check(&mut connection, RETURN_TIMEOUT).await {
            Found::Able => Some(connection),
            Found::Unable => {
                self.distrust();
                None
            }
            Found::Unclean | Found::Silent => None,
        }
    }
}

//! Makes connections. Tries the hosts until one takes writes, gives the connection its settings, and remembers which
//! server it reached: when that changes, connections to the server before are of no use, and their owners learn of it
//! (`Connector::server`). While no host can be used, one attempt runs at a time, with growing pauses between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row};
use tokio::sync::watch;

use super::error::Unreachable;
use super::history::{History, Present};
use super::hosts::{self, Hosts};
use super::run::Reached;
use super::settings::{self, Setting};
use super::trouble::Trouble;
use crate::causes;
use crate::repeat::doubled;

/// A host that has not accepted a connection within this time is passed over.
const HOST_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after the first failure; it doubles with each further one, up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The first version that has all that the statements need.
const VERSION_MIN: u32 = 150_000;

/// One run of a server: the time when it started, in microseconds since 1970. No two servers of a database share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server(i64);

/// The last attempts, all of which failed.
#[derive(Debug)]
struct Failing {
    since: u32,
    until: Instant,
    last: Unreachable,
}

/// A host and what is known of it.
#[derive(Debug)]
struct Host {
    options: PgConnectOptions,
    /// It refuses settings in the start of a session, as poolers do. They are set by a statement then.
    is_plain: AtomicBool,
}

/// Makes connections to one of several hosts.
#[derive(Debug)]
pub(super) struct Connector {
    hosts: Vec<Host>,
    /// The host that was of use last.
    first: AtomicUsize,
    failing: Mutex<Option<Failing>>,
    /// Held during an attempt that follows a failed one.
    attempt: tokio::sync::Mutex<()>,
    server: watch::Sender<Option<Server>>,
    pub(super) history: Arc<History>,
}

impl Connector {
    pub(super) fn new(hosts: &Hosts) -> Self {
        let host = |options: &PgConnectOptions| Host {
            options: options
                .clone()
                .application_name("cursus")
                .disable_statement_logging(),
            is_plain: AtomicBool::new(false),
        };
        Self {
            hosts: hosts.all().iter().map(host).collect(),
            first: AtomicUsize::new(0),
            failing: Mutex::new(None),
            attempt: tokio::sync::Mutex::default(),
            server: watch::Sender::new(None),
            history: Arc::default(),
        }
    }

    /// The server that the newest connection reached.
    pub(super) fn server(&self) -> watch::Receiver<Option<Server>> {
        self.server.subscribe()
    }

    /// A connection with the settings of every session and these. Fails at once in the pause after a failure.
    pub(super) async fn connect(
        &self,
        more: &[Setting],
    ) -> Result<(PgConnection, Reached), Unreachable> {
        let _one = match self.in_pause() {
            Some(Err(last)) => return Err(last),
            Some(Ok(last)) => Some(self.attempt.try_lock().map_err(|_| last)?),
            None => None,
        };
        let made = self.try_history(more).await;
        let mut failing = self.failing.lock();
        match &made {
            Ok((_, server, _)) => {
                *failing = None;
                self.server.send_if_modified(|known| {
                    let is_new = *known != Some(*server);
                    *known = Some(*server);
                    is_new
                });
            }
            Err(last) => {
                let since = failing.as_ref().map_or(0, |failing| failing.since);
                let pause = doubled(PAUSE, since, PAUSE_MAX);
                *failing = Some(Failing {
                    since: since + 1,
                    until: Instant::now() + pause,
                    last: last.clone(),
                });
            }
        }
        drop(failing);
        made.map(|(connection, server, present)| {
            let reached = Reached::new(server, self.server(), present, self.history.clone());
            (connection, reached)
        })
    }

    /// A connection whose history is known.
    async fn try_history(
        &self,
        more: &[Setting],
    ) -> Result<(PgConnection, Server, Present), Unreachable> {
        let (mut connection, server) = self.try_hosts(more).await?;
        let check = self.history.check(&mut connection);
        let error = match tokio::time::timeout(HOST_TIMEOUT, check).await {
            Ok(Ok(present)) => return Ok((connection, server, present)),
            Ok(Err(error)) => error,
            Err(_) => sqlx::Error::PoolTimedOut,
        };
        let trouble = Trouble::of(&error);
        Err(refused(trouble, &causes::in_line(&error)))
    }

    /// Why attempts fail, if they do.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let failing = self.failing.lock();
        failing.as_ref().map(|failing| failing.last.trouble)
    }

    /// The last failure if attempts fail: as an error while no further one is due.
    fn in_pause(&self) -> Option<Result<Unreachable, Unreachable>> {
        let failing = self.failing.lock();
        let failing = failing.as_ref()?;
        let last = failing.last.clone();
        Some(if Instant::now() < failing.until {
            Err(last)
        } else {
            Ok(last)
        })
    }

    /// The options for a client that makes its own connections to the host that was of use last.
    pub(super) fn options(&self) -> PgConnectOptions {
        self.hosts[self.first.load(Ordering::Relaxed)].options(&[])
    }

    async fn try_hosts(&self, more: &[Setting]) -> Result<(PgConnection, Server), Unreachable> {
        let first = self.first.load(Ordering::Relaxed);
        let (mut told, mut trouble) = (Vec::new(), Trouble::Other);
        for at in (0..self.hosts.len()).map(|n| (first + n) % self.hosts.len()) {
            let host = &self.hosts[at];
            match host.connect_in_time(more).await {
                Ok(made) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(made);
                }
                Err((found, text)) => {
                    trouble = found;
                    told.push(format!("{}: {text}", hosts::name(&host.options)));
                }
            }
        }
        Err(refused(trouble, &told.join("; ")))
    }
}

/// What keeps the database from being used, what it said, and what to do.
fn refused(trouble: Trouble, told: &str) -> Unreachable {
    let detail = match (trouble.summary(), trouble.advice()) {
        (summary, "") => format!("{summary} ({told})"),
        (summary, advice) => format!("{summary} ({told}): {advice}"),
    };
    Unreachable {
        trouble,
        detail: Arc::from(detail),
    }
}

impl Host {
    fn options(&self, more: &[Setting]) -> PgConnectOptions {
        let options = self.options.clone();
        if self.is_plain.load(Ordering::Relaxed) {
            options.extra_float_digits(None)
        } else {
            options.options(settings::ALL.iter().chain(more).copied())
        }
    }

    async fn connect_in_time(
        &self,
        more: &[Setting],
    ) -> Result<(PgConnection, Server), (Trouble, String)> {
        match tokio::time::timeout(HOST_TIMEOUT, self.connect(more)).await {
            Ok(made) => made,
            Err(_) => {
                let text = format!("no response within {} seconds", HOST_TIMEOUT.as_secs());
                Err((Trouble::NoAnswer, text))
            }
        }
    }

    async fn connect(&self, more: &[Setting]) -> Result<(PgConnection, Server), (Trouble, String)> {
        let told = |error: sqlx::Error| (Trouble::of(&error), causes::in_line(&error));
        let mut made = self.options(more).connect().await;
        if let Err(error) = &made
            && Trouble::of(error) == Trouble::Pooler
            && !self.is_plain.swap(true, Ordering::Relaxed)
        {
            made = self.options(more).connect().await;
        }
        let mut connection = made.map_err(told)?;
        if let Some(version) = connection.server_version_num()
            && version < VERSION_MIN
        {
            let text = format!("the server is Postgres {}", version / 10_000);
            return Err((Trouble::Version, text));
        }
        let prepare = AssertSqlSafe(settings::prepare(more));
        let row = connection.fetch_one(sqlx::raw_sql(prepare)).await;
        let row = row.map_err(told)?;
        if row.try_get("is_read_only").map_err(told)? {
            let is_standby: bool = row.try_get("is_standby").map_err(told)?;
            let text = if is_standby {
                "a standby"
            } else {
                "default_transaction_read_only is on"
            };
            return Err((Trouble::ReadOnly, text.to_owned()));
        }
        let server = Server(row.try_get("started_at").map_err(told)?);
        Ok((connection, server))
    }
}

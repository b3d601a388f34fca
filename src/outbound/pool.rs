//! Open connections, by origin: those of HTTP/1.1 that are idle, and those of HTTP/2. Who needs one takes the one that was
//! used last, so that connections beyond what is needed stay idle and are closed soon. Connections are bounded in
//! number, and idle ones make way for new ones; an origin that is not used keeps nothing. Until it is known whether an origin speaks HTTP/2, one connection at
//! a time is opened to it, and all wait for that one.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared as Joint, WeakShared};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Semaphore;
use tokio::time::{Instant, interval, timeout};
use url::{Position, Url};

use super::connection::{Connection, Place, Shared, Single};
use super::dial::Dialer;
use super::error::{Error, Phase};

/// What has been idle for too long is looked for this often while it becomes too long.
const SWEEPS: u32 = 6;
/// Idle connections that are closed together when no further one may be opened.
const EVICTED: usize = 16;
/// An idle connection is closed this much earlier than its server says that it will close it.
const EARLY: Duration = Duration::from_secs(1);
/// HTTP/2 connections to an origin at most.
const SHARED_MAX: usize = 8;
/// Time that a connection gets to notice that the exchange before has ended.
const READY: Duration = Duration::from_millis(10);
/// Longest time to open a connection that several requests wait for.
const OPEN: Duration = Duration::from_secs(10);

/// Open connections.
#[derive(Debug)]
pub(super) struct Pool {
    dialer: Dialer,
    /// An idle connection is closed after this time.
    idle: Duration,
    state: Mutex<State>,
    /// Connections that may still be opened.
    places: Arc<Semaphore>,
    /// Requests that wait for a place.
    waiting: AtomicUsize,
    pub(super) opened: Counter,
}

#[derive(Debug, Default)]
struct State {
    origins: HashMap<Box<str>, Origin, RandomState>,
    /// A task closes what is idle for too long.
    is_swept: bool,
}

type Opening = BoxFuture<'static, Result<(), Error>>;

#[derive(Debug)]
struct Origin {
    /// Connections of HTTP/1.1, the one that was used last at the end, and when each is to be closed.
    idle: Vec<(Single, Instant)>,
    /// Connections of HTTP/2, and when each was last taken.
    shared: Vec<(Shared, Instant)>,
    /// The connection that is being opened for all.
    opening: Option<WeakShared<Opening>>,
    /// Each request needs a connection of its own.
    is_single: bool,
    used_at: Instant,
}

impl Origin {
    fn new(is_single: bool) -> Self {
        Self {
            idle: Vec::new(),
            shared: Vec::new(),
            opening: None,
            is_single,
            used_at: Instant::now(),
        }
    }

    /// An HTTP/2 connection with room for another request, or the one with the fewest when no further one may be opened.
    fn shared(&mut self, now: Instant) -> Option<Shared> {
        self.shared.retain(|(shared, _)| shared.is_open());
        let is_full = self.shared.len() >= SHARED_MAX;
        let with_room = self.shared.iter().position(|(shared, _)| shared.has_room());
        let numbered = self.shared.iter().enumerate();
        let least = || numbered.min_by_key(|(_, (shared, _))| shared.requests());
        let at = with_room.or_else(|| is_full.then(least).flatten().map(|(at, _)| at));
        let (shared, taken_at) = self.shared.get_mut(at?)?;
        *taken_at = now;
        Some(shared.clone())
    }

    /// Moves what is to be closed now to `closed`. Returns whether anything is left.
    fn sweep(&mut self, now: Instant, idle: Duration, closed: &mut Vec<Connection>) -> bool {
        let is_old = |at: Instant| now.duration_since(at) >= idle;
        let is_over = |(single, until): &mut (Single, Instant)| *until <= now || !single.is_open();
        let over = self.idle.extract_if(.., is_over);
        closed.extend(over.map(|(single, _)| Connection::Single(single)));
        let old = |(shared, at): &mut (Shared, Instant)| is_old(*at) && shared.requests() == 0;
        let old = self.shared.extract_if(.., old);
        closed.extend(old.map(|(shared, _)| Connection::Shared(shared)));
        !(is_old(self.used_at) && self.idle.is_empty() && self.shared.is_empty())
    }
}

impl State {
    fn origin(&mut self, pool: &Arc<Pool>, url: &Url) -> &mut Origin {
        let name = origin_of(url);
        if !self.is_swept {
            self.is_swept = true;
            // Ends when the pool is empty or gone.
            tokio::spawn(sweep(Arc::downgrade(pool), pool.idle));
        }
        let origin = self.origins.entry(name.into());
        origin.or_insert_with(|| Origin::new(url.scheme() == "http"))
    }

    /// Removes what is to be closed now, and returns it.
    fn sweep(&mut self, now: Instant, idle: Duration) -> Vec<Connection> {
        let mut closed = Vec::new();
        let origins = &mut self.origins;
        origins.retain(|_, origin| origin.sweep(now, idle, &mut closed));
        self.is_swept = !origins.is_empty();
        closed
    }

    /// Removes some idle connections, and returns them.
    fn evict(&mut self) -> Vec<Single> {
        let mut evicted = Vec::new();
        for origin in self.origins.values_mut() {
            while let Some((single, _)) = origin.idle.pop() {
                evicted.push(single);
                if evicted.len() == EVICTED {
                    return evicted;
                }
            }
        }
        evicted
    }
}

async fn sweep(pool: Weak<Pool>, idle: Duration) {
    let mut rounds = interval(idle / SWEEPS);
    loop {
        rounds.tick().await;
        let Some(pool) = pool.upgrade() else { return };
        let (closed, is_swept) = {
            let mut state = pool.state.lock();
            (state.sweep(Instant::now(), idle), state.is_swept)
        };
        // Not under the lock.
        drop(closed);
        if !is_swept {
            return;
        }
    }
}

/// What a request may do next.
enum Step {
    Use(Connection),
    Wait(Joint<Opening>),
    Open,
}

/// A request that waits for a place, until it is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    /// Begins to wait. Returns how many waited before.
    fn begin(waiting: &'a AtomicUsize) -> (Self, usize) {
        let before = waiting.fetch_add(1, Relaxed);
        (Self(waiting), before)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn origin_of(url: &Url) -> &str {
    &url[Position::BeforeScheme..Position::BeforePath]
}

impl Pool {
    pub(super) fn new(dialer: Dialer, idle: Duration, connections: usize) -> Self {
        Self {
            dialer,
            idle,
            state: Mutex::default(),
            places: Arc::new(Semaphore::new(connections)),
            waiting: AtomicUsize::new(0),
            opened: Counter::default(),
        }
    }

    /// A connection to the origin of a URL; with `is_new`, not one that was idle.
    pub(super) async fn take(
        self: &Arc<Self>,
        url: &Url,
        is_new: bool,
    ) -> Result<Connection, Error> {
        loop {
            let step = self.step(url, is_new);
            match step {
                Step::Use(Connection::Single(mut single)) => {
                    let is_ready =
                        single.is_ready() || timeout(READY, single.ready()).await == Ok(true);
                    if is_ready {
                        return Ok(Connection::Single(single));
                    }
                }
                Step::Use(shared) => return Ok(shared),
                Step::Wait(opening) => opening.await?,
                Step::Open => return Box::pin(self.open_for_one(url)).await,
            }
        }
    }

    fn step(self: &Arc<Self>, url: &Url, is_new: bool) -> Step {
        let mut state = self.state.lock();
        let origin = state.origin(self, url);
        let now = Instant::now();
        origin.used_at = now;
        while !is_new && let Some((single, until)) = origin.idle.pop() {
            if single.is_open() && now < until {
                return Step::Use(Connection::Single(single));
            }
        }
        if origin.is_single {
            return Step::Open;
        }
        if let Some(shared) = origin.shared(now) {
            return Step::Use(Connection::Shared(shared));
        }
        let running = origin.opening.as_ref().and_then(WeakShared::upgrade);
        if let Some(opening) = running.filter(|opening| opening.peek().is_none()) {
            return Step::Wait(opening);
        }
        let opening = self.clone().open_for_all(url.clone()).boxed().shared();
        origin.opening = opening.downgrade();
        Step::Wait(opening)
    }

    /// Opens a connection and puts it into the pool.
    async fn open_for_all(self: Arc<Self>, url: Url) -> Result<(), Error> {
        let opened = timeout(OPEN, self.open(&url)).await;
        match opened.map_err(|_| Error::Timeout(Phase::Connect, OPEN))?? {
            Connection::Shared(shared) => self.share(&url, shared),
            single @ Connection::Single(_) => self.put(&url, single, None),
        }
        Ok(())
    }

    /// Opens a connection for one request.
    async fn open_for_one(self: &Arc<Self>, url: &Url) -> Result<Connection, Error> {
        let connection = self.open(url).await?;
        if let Connection::Shared(shared) = &connection {
            self.share(url, shared.clone());
        }
        Ok(connection)
    }

    async fn open(&self, url: &Url) -> Result<Connection, Error> {
        let place = self.place().await?;
        let connection = self.dialer.open(url, place).await?;
        self.opened.inc();
        Ok(connection)
    }

    /// Waits for a place. Idle connections make way.
    async fn place(&self) -> Result<Place, Error> {
        let places = self.places.clone();
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Ok(place);
        }
        let (_waits, before) = Waits::begin(&self.waiting);
        // The places of those that make way are for this request and the next ones.
        if before % EVICTED == 0 {
            let evicted = self.state.lock().evict();
            drop(evicted);
        }
        // The semaphore is never closed.
        places.acquire_owned().await.map_err(|_| Error::Unreachable)
    }

    /// Takes a connection whose last exchange has ended, or that is new, and that its server keeps for a time, if it says
    /// so. One of HTTP/2 is in the pool anyway.
    pub(super) fn put(self: &Arc<Self>, url: &Url, connection: Connection, kept: Option<Duration>) {
        let Connection::Single(single) = connection else {
            return;
        };
        if self.waiting.load(Relaxed) > 0 {
            return;
        }
        let kept = kept.map_or(self.idle, |kept| kept.saturating_sub(EARLY).min(self.idle));
        let mut state = self.state.lock();
        let origin = state.origin(self, url);
        origin.is_single = true;
        origin.idle.push((single, Instant::now() + kept));
    }

    /// Lets all requests use a new connection of HTTP/2.
    fn share(self: &Arc<Self>, url: &Url, shared: Shared) {
        let mut state = self.state.lock();
        let origin = state.origin(self, url);
        origin.is_single = false;
        origin.shared.push((shared, Instant::now()));
    }

    /// Gives no request this connection any more.
    pub(super) fn forget(&self, url: &Url, connection: &Connection) {
        let Connection::Shared(shared) = connection else {
            return;
        };
        let mut state = self.state.lock();
        if let Some(origin) = state.origins.get_mut(origin_of(url)) {
            origin.shared.retain(|(known, _)| !known.is(shared));
        }
    }
}

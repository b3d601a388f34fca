//! Looks names up. One look-up at a time runs for a name, and all that ask for the name share its outcome; the number of
//! all look-ups is bounded, because each holds a thread for as long as the name server takes. Nothing is remembered.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Look-ups that run at the same time: half of the threads that the runtime has for blocking work.
const AT_ONCE: usize = 256;

/// Where the addresses of a name come from.
#[derive(Clone, Default)]
pub enum Source {
    /// The system: its hosts file and name servers.
    #[default]
    System,
    /// A function. Tests change what a name means.
    Function(Arc<Function>),
}

type Function = dyn Fn(&str) -> Vec<IpAddr> + Send + Sync;

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Function(_) => "Function",
        })
    }
}

type LookUp = BoxFuture<'static, Arc<[IpAddr]>>;

/// Looks names up.
#[derive(Debug)]
pub(super) struct Names {
    source: Source,
    slots: Arc<Semaphore>,
    /// The look-ups that run. One whose waiters have all gone is ready to be dropped.
    running: Mutex<HashMap<String, WeakShared<LookUp>>>,
}

impl Names {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            running: Mutex::default(),
        }
    }

    /// The addresses of a name, in the order in which they are to be tried; none when it is not found.
    pub(super) async fn look_up(&self, name: &str) -> Arc<[IpAddr]> {
        match &self.source {
            Source::Function(addresses) => addresses(name).into(),
            Source::System => self.shared(name).await,
        }
    }

    fn shared(&self, name: &str) -> Shared<LookUp> {
        let mut running = self.running.lock();
        if let Some(found) = running.get(name).and_then(WeakShared::upgrade)
            && found.peek().is_none()
        {
            return found;
        }
        running.retain(|_, one| one.upgrade().is_some_and(|one| one.peek().is_none()));
        let look_up = of_system(self.slots.clone(), name.to_owned());
        let look_up = look_up.boxed().shared();
        if let Some(weak) = look_up.downgrade() {
            running.insert(name.to_owned(), weak);
        }
        look_up
    }
}

async fn of_system(slots: Arc<Semaphore>, name: String) -> Arc<[IpAddr]> {
    let Ok(slot) = slots.acquire_owned().await else {
        return Arc::default();
    };
    let work = move || {
        // Held by the thread: a caller that leaves does not end the look-up.
        let _slot = slot;
        let found = (name.as_str(), 0).to_socket_addrs();
        found.map(|found| found.map(|address| address.ip()).collect())
    };
    let found = tokio::task::spawn_blocking(work).await;
    found.ok().and_then(Result::ok).unwrap_or_default()
}

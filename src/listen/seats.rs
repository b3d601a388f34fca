//! The bound on connections (I9). Each connection holds a seat. When all seats are taken, a few spare ones serve health
//! checks and metrics, and refuse everything else with the limit; then connections wait in the backlog of the kernel.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// Connections beyond the limit that are served at the same time.
pub const SPARE_SEATS: u32 = 16;
/// Time of such a connection, from its first byte to the end of its responses. It keeps a seat from the next check.
const SPARE_WITHIN: Duration = Duration::from_secs(5);
const ACCEPT_RETRY_FIRST: Duration = Duration::from_millis(10);
const ACCEPT_RETRY_MOST: Duration = Duration::from_secs(1);

/// What connections are served with.
#[derive(Clone, Debug)]
pub struct Routers {
    /// All routes.
    pub all: Router,
    /// Health, readiness and metrics, and a refusal of everything else; for connections beyond the limit.
    pub spare: Router,
}

/// A connection and the address of its peer.
pub(super) type Accepted = (TcpStream, SocketAddr);

/// The seats of a listener.
pub(super) struct Seats {
    slots: Arc<Semaphore>,
    spare: Arc<Semaphore>,
}

/// A seat, held until the connection ends.
pub(super) struct Seat {
    is_spare: bool,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    pub(super) fn router(&self, routers: Routers) -> Router {
        if self.is_spare {
            routers.spare
        } else {
            routers.all
        }
    }

    /// Serves a connection in this seat.
    pub(super) async fn serve(self, connection: Pin<&mut impl Future<Output = ()>>) {
        if self.is_spare {
            // Cut off, it asks again.
            let _ = timeout(SPARE_WITHIN, connection).await;
        } else {
            connection.await;
        }
    }
}

impl Seats {
    pub(super) fn new(connections_max: u32) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(connections_max as usize)),
            spare: Arc::new(Semaphore::new(SPARE_SEATS as usize)),
        }
    }

    /// Waits for a free seat and for the next connection. Errors of `accept` are retried after a pause, because file
    /// descriptors become free again.
    pub(super) async fn next(&self, socket: &TcpListener) -> (Accepted, Seat) {
        let mut wait = ACCEPT_RETRY_FIRST;
        loop {
            let seat = self.free().await;
            match socket.accept().await {
                Ok(accepted) => return (accepted, self.better(seat)),
                Err(err) if is_of_one_connection(&err) => {}
                Err(err) => {
                    tracing::warn!(%err, "accepting connections");
                    sleep(wait).await;
                    wait = (wait * 2).min(ACCEPT_RETRY_MOST);
                }
            }
        }
    }

    async fn free(&self) -> Seat {
        let (slot, spare) = (self.slots.clone(), self.spare.clone());
        let seat = |is_spare, permit| Seat {
            is_spare,
            _permit: permit,
        };
        tokio::select! {
            biased;
            Ok(permit) = slot.acquire_owned() => seat(false, permit),
            Ok(permit) = spare.acquire_owned() => seat(true, permit),
            // The semaphores are never closed.
            else => std::future::pending().await,
        }
    }

    /// An ordinary seat instead of a spare one, if one has become free before the connection came.
    fn better(&self, seat: Seat) -> Seat {
        if !seat.is_spare {
            return seat;
        }
        let slot = self.slots.clone().try_acquire_owned();
        slot.map_or(seat, |permit| Seat {
            is_spare: false,
            _permit: permit,
        })
    }
}

fn is_of_one_connection(err: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        err.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

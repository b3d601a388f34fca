//! The listener: sockets in, requests to the router, an orderly end. Called by `app`.
//! Everything is bounded (I9): connections, heads of requests, streams, and the time a peer may take to say something.
//! Knows nothing of routes. Per request it adds nothing to hyper and the router: no box, no channel, no lock.

mod connection;
pub mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::shutdown::Shutdown;
use connection::{Closing, Protocols};

/// Connections that the kernel completes while none is accepted.
const BACKLOG: u32 = 4096;
const ACCEPT_RETRY_FIRST: Duration = Duration::from_millis(10);
const ACCEPT_RETRY_MOST: Duration = Duration::from_secs(1);

/// How to listen.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where; port 0 takes a free one.
    pub address: SocketAddr,
    /// Connections served at once; more wait in the backlog.
    pub max_connections: u32,
    /// Time for a TLS handshake, for the head of a request, and between two requests of a connection.
    pub header_timeout: Duration,
    /// Time for requests in flight to finish on shutdown.
    pub drain_timeout: Duration,
    /// TLS identity; `None` serves plain HTTP/1.1 and h2c.
    pub tls: Option<Arc<ServerConfig>>,
}

/// A bound socket; `serve` takes connections from it.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    options: Options,
}

/// Binds the address.
///
/// # Errors
///
/// When the address is taken or not ours.
pub fn bind(options: Options) -> io::Result<Listener> {
    let socket = if options.address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(options.address)?;
    Ok(Listener {
        socket: socket.listen(BACKLOG)?,
        options,
    })
}

impl Listener {
    /// The address it is bound to.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until shutdown, then until the requests in flight are done or the drain timeout is over.
    pub async fn serve(self, router: Router, shutdown: &Shutdown) {
        let seats = Arc::new(Semaphore::new(self.options.max_connections as usize));
        let protocols = Arc::new(Protocols::new(
            self.options.header_timeout,
            shutdown.tracker.clone(),
        ));
        let door = Door {
            acceptor: self.options.tls.map(TlsAcceptor::from),
            patience: self.options.header_timeout,
            protocols,
            router,
            closing: Closing::default(),
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                // Ended connections are taken out one by one, so the set never grows beyond the seats.
                Some(_) = connections.join_next() => {}
                (accepted, seat) = next(&self.socket, &seats) => {
                    connections.spawn(door.clone().serve(accepted, seat));
                }
                () = shutdown.token.cancelled() => break,
            }
        }
        // New connections are refused from here on, rather than left in the backlog.
        drop(self.socket);
        door.closing.begin();
        tokio::select! {
            () = async { while connections.join_next().await.is_some() {} } => {}
            () = sleep(self.options.drain_timeout) => {
                tracing::warn!(connections = connections.len(), "drain timeout: cutting off what is left");
            }
            () = shutdown.now.cancelled() => {}
        }
        connections.shutdown().await;
    }
}

/// Where a request comes from; goes with each as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// A connection, and where it comes from.
type Accepted = (TcpStream, SocketAddr);

/// The next connection, and a seat for it. Errors of `accept` are waited out: file descriptors come free again.
async fn next(socket: &TcpListener, seats: &Arc<Semaphore>) -> (Accepted, OwnedSemaphorePermit) {
    let mut wait = ACCEPT_RETRY_FIRST;
    loop {
        let Ok(seat) = Arc::clone(seats).acquire_owned().await else {
            // The semaphore is never closed.
            return std::future::pending().await;
        };
        match socket.accept().await {
            Ok(accepted) => return (accepted, seat),
            Err(err) if of_one_connection(&err) => {}
            Err(err) => {
                tracing::warn!(%err, "accepting connections");
                sleep(wait).await;
                wait = (wait * 2).min(ACCEPT_RETRY_MOST);
            }
        }
    }
}

fn of_one_connection(err: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        err.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// What every connection needs.
#[derive(Clone)]
struct Door {
    acceptor: Option<TlsAcceptor>,
    patience: Duration,
    protocols: Arc<Protocols>,
    router: Router,
    closing: Closing,
}

impl Door {
    async fn serve(self, (stream, from): Accepted, _seat: OwnedSemaphorePermit) {
        // Answers are small and written whole; waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = &self.acceptor else {
            match self.unless_closing(connection::speaks_h2(&stream)).await {
                Some(Ok(h2)) => {
                    let protocols = self.protocols;
                    protocols
                        .serve(stream, (h2, Peer(from.ip())), self.router, self.closing)
                        .await;
                }
                Some(Err(err)) => tracing::debug!(%err, "connection ended before its first byte"),
                None => {}
            }
            return;
        };
        // On the heap, as what it leads to, so that plain connections have no room for them.
        match Box::pin(self.unless_closing(acceptor.accept(stream))).await {
            Some(Ok(stream)) => {
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let protocols = self.protocols;
                Box::pin(protocols.serve(stream, (h2, Peer(from.ip())), self.router, self.closing))
                    .await;
            }
            Some(Err(err)) => tracing::debug!(%err, "TLS handshake"),
            None => {}
        }
    }

    /// What `opening` gives, unless the peer is too slow or the listener closes: no request is lost by that.
    async fn unless_closing<T>(&self, opening: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            opened = timeout(self.patience, opening) => opened.ok(),
            () = self.closing.begun() => None,
        }
    }
}

#[cfg(test)]
mod tests;

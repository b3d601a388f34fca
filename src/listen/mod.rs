//! The listener: accepts connections, passes requests to the router and ends in order. Called by `app`. Bounds
//! connections, heads of requests, streams and the time that a peer may stay silent or not read (I9). Knows nothing of
//! routes. Per request it adds no box, no channel and no lock to hyper and the router.

mod closing;
mod connection;
mod exchange;
mod link;
mod refusal;
mod seats;
mod streams;
pub mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::shutdown::Shutdown;
use closing::Closing;
use connection::Protocols;
use seats::{Accepted, Seat, Seats};

pub use seats::{Routers, SPARE_SEATS};

/// Connections that the kernel completes while none is accepted.
const BACKLOG: u32 = 4096;
/// Bytes of a response that the kernel accepts beyond what it has sent. With its default of some MiB, the writes of a
/// connection would say little about what its peer reads, and each slow peer would occupy as much memory.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// Settings of the listener.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 selects a free port.
    pub address: SocketAddr,
    /// Connections served at the same time, apart from [`SPARE_SEATS`] for checks.
    pub max_connections: u32,
    /// Time limit of a TLS handshake, of the head of a request, and between two requests of a connection.
    pub header_timeout: Duration,
    /// Longest single pause of a peer that reads a response.
    pub pause_max: Duration,
    /// Time that requests in flight get to finish on shutdown.
    pub drain_timeout: Duration,
    /// TLS identity; `None` serves plain HTTP/1.1 and h2c.
    pub tls: Option<Arc<ServerConfig>>,
}

/// An address that this process has, and on which it does not listen yet.
#[derive(Debug)]
pub struct Bound {
    socket: TcpSocket,
    options: Options,
}

/// A socket that listens; `serve` accepts connections from it.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    options: Options,
}

/// Takes the address. Clients are refused until [`Bound::listen`].
///
/// # Errors
///
/// When the address is in use or not one of this machine.
pub fn bind(options: Options) -> io::Result<Bound> {
    let socket = if options.address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(options.address)?;
    // Accepted sockets inherit it.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    Ok(Bound { socket, options })
}

impl Bound {
    /// Connections that will be served at the same time.
    #[must_use]
    pub fn max_connections(&self) -> u32 {
        self.options.max_connections
    }

    /// Lets clients connect.
    ///
    /// # Errors
    ///
    /// When another process listens on the address since.
    pub fn listen(self) -> io::Result<Listener> {
        Ok(Listener {
            socket: self.socket.listen(BACKLOG)?,
            options: self.options,
        })
    }
}

impl Listener {
    /// The bound address.
    ///
    /// # Errors
    ///
    /// When the kernel does not return it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until shutdown, then until the requests in flight are done or the drain timeout is over.
    pub async fn serve(self, routers: Routers, shutdown: &Shutdown) {
        let seats = Seats::new(self.options.max_connections);
        let closing = Closing::default();
        let protocols = Protocols::new(&self.options, shutdown.tracker.clone(), closing.clone());
        let shared = Shared {
            acceptor: self.options.tls.map(TlsAcceptor::from),
            opening_timeout: self.options.header_timeout,
            protocols: Arc::new(protocols),
            routers,
            closing,
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                // Ended connections are removed one by one, so the set never grows beyond the number of slots.
                Some(_) = connections.join_next() => {}
                (accepted, seat) = seats.next(&self.socket) => {
                    connections.spawn(shared.clone().serve(accepted, seat));
                }
                () = shutdown.token.cancelled() => break,
            }
        }
        // From here on new connections are refused instead of waiting in the backlog.
        drop(self.socket);
        shared.closing.begin();
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

/// Address of the client; attached to each request as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// What every connection shares.
#[derive(Clone)]
struct Shared {
    acceptor: Option<TlsAcceptor>,
    opening_timeout: Duration,
    protocols: Arc<Protocols>,
    routers: Routers,
    closing: Closing,
}

impl Shared {
    async fn serve(self, accepted: Accepted, seat: Seat) {
        let router = seat.router(self.routers.clone());
        // Pinned here and passed by reference: a future that takes another one by value reserves space for it twice.
        let connection = pin!(self.serve_with(router, accepted));
        seat.serve(connection).await;
    }

    async fn serve_with(self, router: Router, (stream, from): Accepted) {
        // Responses are small and written at once; waiting for a full packet would only delay them.
        let _ = stream.set_nodelay(true);
        let from = Peer(from.ip());
        if let Some(acceptor) = &self.acceptor {
            // Boxed, so that plain connections do not reserve space for it.
            return Box::pin(self.serve_tls(acceptor, stream, from, router)).await;
        }
        match self.unless_closing(connection::speaks_h2(&stream)).await {
            Some(Ok(h2)) => self.protocols.serve(stream, (h2, from), router).await,
            Some(Err(err)) => tracing::debug!(%err, "connection ended before its first byte"),
            None => {}
        }
    }

    async fn serve_tls(
        &self,
        acceptor: &TlsAcceptor,
        stream: TcpStream,
        from: Peer,
        router: Router,
    ) {
        match self.unless_closing(acceptor.accept(stream)).await {
            Some(Ok(stream)) => {
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.protocols.serve(stream, (h2, from), router).await;
            }
            Some(Err(err)) => tracing::debug!(%err, "TLS handshake"),
            None => {}
        }
    }

    /// Runs `opening` until the peer is too slow or the listener closes. No request is lost then, because none has
    /// begun.
    async fn unless_closing<T>(&self, opening: impl Future<Output = T>) -> Option<T> {
        let opening = pin!(opening);
        tokio::select! {
            opened = timeout(self.opening_timeout, opening) => opened.ok(),
            () = self.closing.begun() => None,
        }
    }
}

#[cfg(test)]
mod tests;

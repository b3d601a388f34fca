//! Opens connections: looks the name up once, asks the guard about each address, and dials an address that it permits.
//! The address that was checked is the address that is dialled, so a name server that changes its mind gains nothing. TLS
//! chooses between HTTP/1.1 and HTTP/2.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use url::{Host, Url};

use super::connection::{Connection, Place};
use super::error::Error;
use super::guard::Guard;
use super::names::Names;
use super::tls::Tls;

/// The next address of a name is tried when the one before has not answered within this (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);

/// What is needed to open connections.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) guard: Arc<Guard>,
    pub(super) names: Names,
    pub(super) tls: Tls,
}

impl Dialer {
    /// Opens a connection to the origin of a URL.
    pub(super) async fn open(&self, url: &Url, place: Place) -> Result<Connection, Error> {
        self.guard.check_url(url).map_err(Error::Refused)?;
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(Error::Refused("the URL has no host".to_owned()));
        };
        let addresses = self.addresses(&host, url).await?;
        let (stream, round_trip) = first_of(addresses, port).await?;
        // Requests are written in one piece, and the next one waits for the response.
        let _ = stream.set_nodelay(true);
        if url.scheme() == "http" {
            return Connection::single(stream, round_trip, place).await;
        }
        let stream = self.tls.connect(stream, &host).await?;
        let protocol = stream.get_ref().1.alpn_protocol();
        if protocol == Some(b"h2".as_slice()) {
            Connection::shared(stream, place).await
        } else {
            Connection::single(stream, round_trip, place).await
        }
    }

    /// The addresses that may be dialled.
    async fn addresses(&self, host: &Host<&str>, url: &Url) -> Result<Vec<IpAddr>, Error> {
        let found: Arc<[IpAddr]> = match host {
            Host::Domain(name) => self.names.look_up(name).await,
            Host::Ipv4(ip) => [IpAddr::V4(*ip)].into(),
            Host::Ipv6(ip) => [IpAddr::V6(*ip)].into(),
        };
        if found.is_empty() {
            return Err(Error::NameNotFound(host.to_string()));
        }
        self.guard.permitted(url, &found).map_err(Error::Refused)
    }
}

/// Connects to the first address that accepts, and returns how long that took: at least one round trip.
async fn first_of(addresses: Vec<IpAddr>, port: u16) -> Result<(TcpStream, Duration), Error> {
    let mut rest = addresses.into_iter().map(|ip| SocketAddr::new(ip, port));
    let mut dialled = FuturesUnordered::new();
    let dial = async |address: SocketAddr| {
        let began = Instant::now();
        let stream = TcpStream::connect(address).await?;
        Ok::<_, std::io::Error>((stream, began.elapsed()))
    };
    dialled.extend(rest.next().map(dial));
    let mut error = Error::Unreachable;
    while !dialled.is_empty() {
        let next = tokio::select! {
            Some(outcome) = dialled.next() => match outcome {
                Ok(connected) => return Ok(connected),
                Err(cause) => {
                    tracing::debug!(%cause, "no connection to an address");
                    if cause.kind() == std::io::ErrorKind::ConnectionRefused {
                        error = Error::ConnectionRefused;
                    }
                    rest.next()
                }
            },
            () = sleep(STAGGER), if rest.len() > 0 => rest.next(),
        };
        dialled.extend(next.map(dial));
    }
    Err(error)
}

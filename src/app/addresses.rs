//! The addresses of a node: that of its clients and, if it is configured, one for metrics and documentation. They are
//! taken before anything else is made, so that what is wrong with them is found first, and listened on when the node is
//! ready.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Error, database_connections};
use crate::config::Config;
use crate::listen::{self, Bound, Listener, tls};
use crate::{blob, descriptors};

/// Connections for metrics and documentation, where these have an address of their own.
const OPERATOR_CONNECTIONS: u32 = 32;

/// Addresses that the node has taken.
pub(super) struct Addresses {
    clients: Bound,
    operators: Option<Bound>,
    /// Connections to others that may be open at the same time.
    outbound: u32,
    /// What to say when they cannot be listened on.
    named: (SocketAddr, Option<SocketAddr>),
}

impl Addresses {
    /// Connections of clients that will be served at the same time.
    pub(super) fn max_connections(&self) -> u32 {
        self.clients.max_connections()
    }

    /// Connections to others that may be open at the same time.
    pub(super) fn outbound(&self) -> u32 {
        self.outbound
    }

    /// Lets clients connect, and operators if they have an address of their own.
    pub(super) fn listen(self) -> Result<(Listener, Option<Listener>), Error> {
        let (clients, operators) = self.named;
        let listener = self.clients.listen();
        let listener = listener.map_err(|error| cannot_listen(clients, LISTEN, &error))?;
        let apart = self.operators.map(Bound::listen).transpose();
        let address = operators.unwrap_or(clients);
        let apart = apart.map_err(|error| cannot_listen(address, SERVICE_LISTEN, &error))?;
        Ok((listener, apart))
    }
}

const LISTEN: &str = "--listen";
const SERVICE_LISTEN: &str = "--service-listen";

/// Takes the addresses to listen on, and counts the connections that they may serve.
pub(super) fn bind(config: &Config) -> Result<Addresses, Error> {
    let wanted = config.serving.max_connections;
    let limit = descriptors::raise();
    let outbound = descriptors::outbound(limit);
    let own = own_files(config).saturating_add(outbound);
    let max_connections = descriptors::connections(limit, wanted, own)?;
    if max_connections < wanted {
        tracing::warn!(
            "the limit of open files, {limit}, leaves {max_connections} connections, not {wanted} (--max-connections): raise it \
             (ulimit -n, or LimitNOFILE= of systemd)"
        );
    }
    let (listen, service) = (config.serving.listen, config.serving.service_listen);
    let clients = bind_one(config, listen, LISTEN, max_connections)?;
    let operators = service.map(|at| bind_one(config, at, SERVICE_LISTEN, OPERATOR_CONNECTIONS));
    Ok(Addresses {
        clients,
        operators: operators.transpose()?,
        outbound,
        named: (listen, service),
    })
}

fn bind_one(
    config: &Config,
    address: SocketAddr,
    flag: &str,
    max_connections: u32,
) -> Result<Bound, Error> {
    listen::bind(listen::Options {
        address,
        max_connections,
        header_timeout: config.serving.header_timeout.duration(),
        pause_max: Duration::from_secs(api::limits::ANSWER_IDLE_SECONDS),
        drain_timeout: config.serving.drain_timeout.duration(),
        tls: config.tls.as_ref().map(tls::identity).transpose()?,
    })
    .map_err(|error| cannot_listen(address, flag, &error))
}

fn cannot_listen(address: SocketAddr, flag: &str, error: &std::io::Error) -> Error {
    format!("cannot listen on {address}: {error} (choose another with {flag})").into()
}

/// Files that the node opens at most for its database, its object storage, spare connections and operators.
fn own_files(config: &Config) -> u32 {
    let operators = config
        .serving
        .service_listen
        .map_or(0, |_| OPERATOR_CONNECTIONS + listen::SPARE_SEATS);
    database_connections(config) + blob::REQUESTS_MAX + listen::SPARE_SEATS + operators
}

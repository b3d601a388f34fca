//! `cursus health`: asks the node that runs here with the same settings whether it is ready, as load balancers do. Called by
//! `main`. For health checks in images that have no other program.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Error;
use crate::config::Config;

/// Longer than the node's own checks take.
const WITHIN: Duration = Duration::from_secs(5);
/// More than the longest answer has.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// An outage of object storage does not take a node out of service.
const REQUEST: &[u8] =
    b"GET /readyz?exclude=object_storage HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// Succeeds with what the node says when it is ready. Of a node that serves HTTPS it is known only that it accepts
/// connections: its certificate is not for this name.
///
/// # Errors
/// When the node does not answer, or is not ready.
pub async fn health(config: &Config) -> Result<String, Error> {
    let serving = &config.serving;
    let address = reachable(serving.service_listen.unwrap_or(serving.listen));
    let answer = timeout(WITHIN, ask(address, config.tls.is_some()))
        .await
        .map_err(|_| format!("{address} does not answer"))?
        .map_err(|error| format!("{address}: {error}"))?;
    let Some(answer) = answer else {
        return Ok("accepts connections".to_owned());
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 200 ") {
        Ok(body.to_owned())
    } else {
        Err(format!("{address} is not ready: {body}").into())
    }
}

/// The whole answer to the request; `None`: the node serves HTTPS and has accepted a connection.
async fn ask(address: SocketAddr, is_tls: bool) -> io::Result<Option<String>> {
    let mut stream = TcpStream::connect(address).await?;
    if is_tls {
        return Ok(None);
    }
    stream.write_all(REQUEST).await?;
    let mut answer = String::new();
    let mut limited = stream.take(ANSWER_BYTES_MAX);
    limited.read_to_string(&mut answer).await?;
    Ok(Some(answer))
}

/// The address at which a process of this machine reaches a listener.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let loopback: IpAddr = if listen.is_ipv4() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    };
    let ip = if listen.ip().is_unspecified() {
        loopback
    } else {
        listen.ip()
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        for (listen, reached) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), reached);
        }
    }
}

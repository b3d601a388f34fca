//! Why a request to another service got no response. The texts are shown to tenants, as the reason of a failed delivery:
//! they are short, say what to look at, and never hold the text of an error of a library.

use std::time::Duration;

/// No response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The guard refuses the URL, or all addresses of its name.
    #[error("{0}")]
    Refused(String),
    /// The name has no address.
    #[error("the name {0} was not found")]
    NameNotFound(String),
    /// Nothing listens there.
    #[error("the connection was refused")]
    ConnectionRefused,
    /// No connection to the address, for another reason.
    #[error("the address could not be reached")]
    Unreachable,
    /// The TLS handshake failed; the text says why.
    #[error("TLS: {0}")]
    Tls(String),
    /// The time was over.
    #[error("{}", timed_out(*.0, *.1))]
    Timeout(Phase, Duration),
    /// The connection broke before the head of the response.
    #[error("the connection was closed before the response")]
    Broken,
    /// What came back is no HTTP, or its head is too long.
    #[error("the response is not valid HTTP")]
    NotHttp,
}

/// What a request waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A connection: the look-up of the name, TCP and TLS.
    Connect,
    /// The head of the response.
    Head,
    /// The end of the response.
    Body,
}

fn timed_out(phase: Phase, after: Duration) -> String {
    let what = match phase {
        Phase::Connect => "no connection",
        Phase::Head => "no response",
        Phase::Body => "no end of the response",
    };
    format!("{what} within {} s", after.as_secs_f64())
}

/// A `get` failed.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// No response, or none that ended.
    #[error(transparent)]
    Failed(#[from] Error),
    /// A response with a status other than 2xx.
    #[error("status {0}")]
    Status(u16),
    /// A response longer than the limit.
    #[error("more than {0} bytes")]
    TooLong(usize),
}

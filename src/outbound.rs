//! Requests to the outside: the only module that makes any. Bounded in time and bytes (I9), and never led elsewhere by a
//! redirect. Called by `engine`, never inside a transaction.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side does not answer, or not to the end.
    #[error("no answer")]
    Unreachable(#[from] reqwest::Error),
    /// It answers, but not with what was asked for.
    #[error("status {0}")]
    Status(u16),
    /// Its answer is too long.
    #[error("more than {0} bytes")]
    TooLong(usize),
}

/// A client for all outbound requests.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: Client,
}

impl Outbound {
    /// # Errors
    /// When the system's certificates cannot be used.
    pub fn new() -> Result<Self, Error> {
        // The client wants to know who does TLS; another part of the program may have said it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(concat!("cursus/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client })
    }

    /// The body of a successful answer of `bytes_max` at most.
    ///
    /// # Errors
    /// When there is no such answer.
    pub async fn get(&self, url: &str, bytes_max: usize) -> Result<Bytes, Error> {
        let mut response = self.client.get(url).send().await?;
        if !response.status().is_success() {
            return Err(Error::Status(response.status().as_u16()));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > bytes_max {
                return Err(Error::TooLong(bytes_max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// Whether nobody on the way can read or change what is asked there: `https`, or a loopback address.
#[must_use]
pub fn is_private(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    let Some(host) = url.host_str() else {
        return false;
    };
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_loopback = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_are_private() {
        for url in [
            "https://login.example/jwks",
            "http://127.0.0.1:8080/jwks",
            "http://[::1]/jwks",
            "http://localhost/jwks",
        ] {
            assert!(is_private(url), "{url}");
        }
        for url in [
            "http://login.example/jwks",
            "http://localhost.example.com/",
            "file:///etc/passwd",
            "jwks.json",
            "",
        ] {
            assert!(!is_private(url), "{url}");
        }
    }
}

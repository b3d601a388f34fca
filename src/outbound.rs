//! Requests to other services: the only module that sends any, apart from object storage. Bounded in time and bytes
//! (I9), and redirects are not followed. What may be dialled is decided by one `guard`, when a URL is set, before each
//! request, and for every address that a name turns out to have. `engine` calls it, never inside a transaction, and
//! interprets the responses.

mod guard;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Client;
use reqwest::Method;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;

pub use guard::Guard;
pub use reqwest::Url;
pub use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Standard Webhooks asks senders to wait 15 to 30 seconds.
const POST_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of the response to a POST that are read, so that its connection can be reused.
const POST_ANSWER_BYTES_MAX: usize = 16 << 10;
/// Characters of a response header that is returned; a longer one is ignored.
const HEADER_CHARS_MAX: usize = 64;
/// Status 410: the URL is gone for good.
const GONE: u16 = 410;

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No response, or an incomplete one.
    #[error("no response")]
    Unreachable(#[from] reqwest::Error),
    /// The guard refuses the URL.
    #[error("{0}")]
    Refused(String),
    /// A response with a status other than 2xx.
    #[error("status {0}")]
    Status(u16),
    /// A response longer than the limit.
    #[error("more than {0} bytes")]
    TooLong(usize),
}

/// Response to a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` header, unparsed.
    pub retry_after: Option<String>,
}

impl Answer {
    /// Whether the receiver accepted what was sent.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether nothing must be sent to this URL any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.status == GONE
    }
}

/// A request that delivers messages to an endpoint.
#[derive(Debug, Clone)]
pub struct Post {
    /// Where it goes.
    pub url: Url,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Time for everything, from the connection to the end of the answer.
    pub timeout: Duration,
}

/// The answer of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The first bytes of the body, as they came.
    pub body: Bytes,
}

/// Client for all outbound requests.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: Client,
    guard: Arc<Guard>,
}

impl Outbound {
    /// # Errors
    /// When the system's certificates cannot be used.
    pub fn new(guard: Guard) -> Result<Self, Error> {
        let guard = Arc::new(guard);
        // The client needs a TLS provider for the process; another part of the program may have installed it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder()
            .redirect(Policy::none())
            .dns_resolver(Arc::new(Resolver(guard.clone())))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(concat!("cursus/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, guard })
    }

    /// Checks a URL that requests are to be sent to.
    ///
    /// # Errors
    /// What the URL must be.
    pub fn check(&self, url: &str) -> Result<(), String> {
        self.guard.check(url)
    }

    /// Returns the body of a successful response of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// When there is no response in time, its status is not 2xx, or its body is longer.
    pub async fn get(&self, url: &str, bytes_max: usize) -> Result<Bytes, Error> {
        self.check(url).map_err(Error::Refused)?;
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

    /// Asks what may be sent to a URL. A response of any status is `Ok`; its body is not read.
    ///
    /// # Errors
    /// When there is no response in time.
    pub async fn options(&self, url: &str, headers: HeaderMap) -> Result<Reply, Error> {
        self.check(url).map_err(Error::Refused)?;
        let request = self.client.request(Method::OPTIONS, url);
        let response = request.headers(headers).send().await?;
        Ok(Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: Bytes::new(),
        })
    }

    /// Sends a body with these headers. A response of any status is `Ok`.
    ///
    /// # Errors
    /// When there is no response in time.
    pub async fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<Answer, Error> {
        self.check(url).map_err(Error::Refused)?;
        let mut request = self.client.post(url).timeout(POST_TIMEOUT).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.send().await?;
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok());
        let retry_after = retry_after.filter(|value| value.len() <= HEADER_CHARS_MAX);
        let answer = Answer {
            status: response.status().as_u16(),
            retry_after: retry_after.map(str::to_owned),
        };
        let mut read = 0;
        // Only the head counts; a body that breaks off is ignored.
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            if read > POST_ANSWER_BYTES_MAX {
                break;
            }
        }
        Ok(answer)
    }
}

/// Looks names up like the system does, and passes on the addresses that the guard permits.
struct Resolver(Arc<Guard>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            let permitted = guard.of_name(name.as_str(), &found)?;
            // The port is that of the URL.
            let addresses = permitted.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_guard_refuses_is_not_dialled() {
        let outbound = Outbound::new(Guard::default()).unwrap();
        for url in [
            "https://10.255.255.1/",
            "https://me:secret@127.0.0.1/",
            "http://a.example/",
        ] {
            let refused = outbound.get(url, 1).await;
            assert!(matches!(refused, Err(Error::Refused(_))), "{url}");
            let refused = outbound.post(url, &[], String::new()).await;
            assert!(matches!(refused, Err(Error::Refused(_))), "{url}");
        }
    }
}

//! Requests to other services: the only module that sends any, apart from object storage. Bounded in time and bytes
//! (I9). Redirects are not followed, bodies are not decompressed, and no proxy of the environment is used. What may be
//! dialled is decided by one `guard`, when a URL is set and for every address that is dialled. `engine` calls it, never
//! inside a transaction, and interprets the responses.
//!
//! `call` is a request over a connection of the `pool`; `dial` opens connections with `names` and `tls`.

mod call;
mod connection;
mod dial;
mod error;
mod guard;
mod names;
mod pool;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use api::limits::PUSH_ANSWER_BYTES_MAX;
use bytes::Bytes;
use hyper::Method;
use prometheus_client::registry::Registry;
use rustls::pki_types::CertificateDer;

pub use error::{Error, GetError, Phase};
pub use guard::Guard;
pub use hyper::header::{HeaderMap, HeaderName, HeaderValue};
pub use names::Source;
pub use tls::authorities;
pub use url::Url;

use call::{Call, End, Reading};
use dial::Dialer;
use names::Names;
use pool::Pool;
use tls::Tls;

/// Connections where nothing else is said.
const CONNECTIONS: usize = 1_024;
/// Many servers close idle connections after 60 s or more, some after 5 s.
const IDLE: Duration = Duration::from_secs(30);
const GET_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the response to a POST that are read, so that its connection can be used again.
const RESPONSE_BYTES_MAX: usize = 16 << 10;

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

/// What requests are sent with.
#[derive(Debug)]
pub struct Options {
    /// What may be dialled.
    pub guard: Guard,
    /// Certificates of authorities that are trusted apart from the system's.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Where the addresses of names come from.
    pub names: Source,
    /// An idle connection is closed after this time.
    pub idle: Duration,
    /// Connections that are open at the same time.
    pub connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            guard: Guard::default(),
            authorities: Vec::new(),
            names: Source::default(),
            idle: IDLE,
            connections: CONNECTIONS,
        }
    }
}

/// Client for all outbound requests.
#[derive(Debug, Clone)]
pub struct Outbound {
    guard: Arc<Guard>,
    pool: Arc<Pool>,
}

impl Outbound {
    /// # Errors
    /// When certificates cannot be used.
    pub fn new(options: Options) -> Result<Self, rustls::Error> {
        let guard = Arc::new(options.guard);
        let dialer = Dialer {
            guard: guard.clone(),
            names: Names::new(options.names),
            tls: Tls::new(&options.authorities)?,
        };
        let pool = Arc::new(Pool::new(dialer, options.idle, options.connections));
        Ok(Self { guard, pool })
    }

    /// Adds the metrics to a registry that prefixes `cursus`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "outbound_connections_opened",
            "Connections opened to endpoints, event sinks and key sets",
            self.pool.opened.clone(),
        );
    }

    /// Checks a URL that requests are to be sent to, and returns it.
    ///
    /// # Errors
    /// What the URL must be.
    pub fn check(&self, url: &str) -> Result<Url, String> {
        self.guard.check(url)
    }

    /// Sends a message, or several, to an endpoint. A response of any status is `Ok`, also when its body broke off or did
    /// not end in time: the head says whether the endpoint accepted what was sent.
    ///
    /// # Errors
    /// When there is no response in time.
    pub async fn deliver(&self, post: Post) -> Result<Reply, Error> {
        let call = Call {
            method: Method::POST,
            url: &post.url,
            headers: post.headers,
            body: post.body,
            timeout: post.timeout,
        };
        let reading = Reading {
            kept: PUSH_ANSWER_BYTES_MAX,
            read: RESPONSE_BYTES_MAX,
        };
        Ok(call.run(&self.pool, reading).await?.0)
    }

    /// Asks what may be sent to a URL. A response of any status is `Ok`.
    ///
    /// # Errors
    /// When there is no response in time.
    pub async fn options(&self, url: &str, headers: HeaderMap) -> Result<Reply, Error> {
        let url = self.guard.check(url).map_err(Error::Refused)?;
        let call = Call {
            method: Method::OPTIONS,
            url: &url,
            headers,
            body: Bytes::new(),
            timeout: GET_TIMEOUT,
        };
        let reading = Reading {
            kept: 0,
            read: RESPONSE_BYTES_MAX,
        };
        Ok(call.run(&self.pool, reading).await?.0)
    }

    /// Returns the body of a successful response of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// When there is no response in time, its status is not 2xx, or its body is longer.
    pub async fn get(&self, url: &str, bytes_max: usize) -> Result<Bytes, GetError> {
        let url = self.guard.check(url).map_err(Error::Refused)?;
        let call = Call {
            method: Method::GET,
            url: &url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: GET_TIMEOUT,
        };
        let reading = Reading {
            kept: bytes_max,
            read: bytes_max,
        };
        let (reply, end) = call.run(&self.pool, reading).await?;
        if !(200..300).contains(&reply.status) {
            return Err(GetError::Status(reply.status));
        }
        match end {
            End::Whole => Ok(reply.body),
            End::Cut => Err(GetError::TooLong(bytes_max)),
            End::Broken => Err(Error::Broken.into()),
            End::TimedOut => Err(Error::Timeout(Phase::Body, GET_TIMEOUT).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::header::HOST;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_the_guard_refuses_is_not_dialled() {
        let outbound = Outbound::new(Options::default()).unwrap();
        for url in [
            "https://10.255.255.1/",
            "https://me:secret@8.8.8.8/",
            "http://a.example/",
        ] {
            let refused = outbound.get(url, 1).await;
            assert!(
                matches!(refused, Err(GetError::Failed(Error::Refused(_)))),
                "{url}"
            );
            let post = Post {
                url: Url::parse(url).unwrap(),
                headers: HeaderMap::new(),
                body: Bytes::new(),
                timeout: GET_TIMEOUT,
            };
            let refused = outbound.deliver(post).await;
            assert!(matches!(refused, Err(Error::Refused(_))), "{url}");
        }
    }

    async fn echo(request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
        let headers = request.headers().clone();
        let body = request.into_body().collect().await?.to_bytes();
        let mut response = Response::new(Full::new(body));
        *response.headers_mut() = headers;
        Ok(response)
    }

    #[tokio::test]
    async fn a_connection_carries_one_delivery_after_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let http = hyper::server::conn::http1::Builder::new();
            let served = http.serve_connection(TokioIo::new(stream), service_fn(echo));
            served.await
        });
        let outbound = Outbound::new(Options {
            guard: Guard::default().with_loopback(),
            ..Options::default()
        });
        let outbound = outbound.unwrap();
        for body in ["one", "", "three"] {
            let post = Post {
                url: format!("http://{address}/a?b=c").parse().unwrap(),
                headers: HeaderMap::from_iter([(HOST, HeaderValue::from_static("other"))]),
                body: body.into(),
                timeout: GET_TIMEOUT,
            };
            let reply = outbound.deliver(post).await.unwrap();
            assert_eq!((reply.status, &reply.body[..]), (200, body.as_bytes()));
            assert_eq!(reply.headers[HOST], address.to_string());
            assert_eq!(reply.headers["content-length"], body.len().to_string());
        }
        serving.abort();
        assert_eq!(outbound.pool.opened.get(), 1);
    }
}

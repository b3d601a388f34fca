//! The client: a request is tried again while its problem is retryable or no answer came. One client serves a whole program;
//! a clone is the same client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::MessageId;
use api::list::Page;
use api::message::{
    PublishBatch, PublishMessage, PublishResult, PublishResults, Published, ReceiveRequest,
    ReceiveResult, ReceivedMessage,
};
use api::settle::{SettleAction, SettleItem, SettleRequest, SettleResult, SettleResults};
use bytes::Bytes;
use futures_util::stream::{self, Stream, TryStreamExt};
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::request::{Request, segment};

/// Time to make a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The first wait of a retry without `Retry-After`; each further one is twice as long. Half of it is random.
const BACKOFF: Duration = Duration::from_millis(100);

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct Options {
    /// API key or token; without one, requests have none.
    pub key: Option<String>,
    /// How often a request is tried again.
    pub retries: u32,
    /// A request that should wait for longer than this before it is tried again fails instead.
    pub max_wait: Duration,
    /// Time for an answer, in addition to the wait of a long poll.
    pub timeout: Duration,
    /// Idle connections that are kept.
    pub connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            key: None,
            retries: 5,
            max_wait: Duration::from_secs(60),
            timeout: Duration::from_secs(60),
            connections: 32,
        }
    }
}

/// A service at a URL.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: String,
    authorization: Option<HeaderValue>,
    options: Options,
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A message to publish on its own.
#[derive(Debug, Clone, Default)]
pub struct Publish {
    /// The body.
    pub body: Bytes,
    /// Media type of the body.
    pub content_type: String,
    /// Label for filtering.
    pub tag: Option<String>,
    /// Business key by which the message can be found.
    pub key: Option<String>,
    /// Attributes. Their names are sent in lower case.
    pub attributes: BTreeMap<String, String>,
    /// Key by which a repetition is recognised; a random one when absent.
    pub idempotency_key: Option<String>,
}

impl Publish {
    /// A message of these bytes.
    pub fn bytes(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            content_type: "application/octet-stream".to_owned(),
            ..Self::default()
        }
    }

    /// A message of this value as JSON.
    ///
    /// # Errors
    /// When it cannot be JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, Error> {
        let body = serde_json::to_vec(value).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(Self {
            content_type: "application/json".to_owned(),
            ..Self::bytes(body)
        })
    }
}

impl From<String> for Publish {
    fn from(text: String) -> Self {
        Self {
            content_type: "text/plain".to_owned(),
            ..Self::bytes(text)
        }
    }
}

impl From<&str> for Publish {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Client {
    /// A service at `url` with default options. The key is that of the environment (`CURSUS_KEY`), if there is one.
    ///
    /// # Errors
    /// When the URL or the key cannot be used.
    #[expect(
        clippy::disallowed_methods,
        reason = "the program that uses this crate may have no flags of its own"
    )]
    pub fn new(url: &str) -> Result<Self, Error> {
        let key = std::env::var("CURSUS_KEY").ok();
        let options = Options {
            key: key.filter(|key| !key.is_empty()),
            ..Options::default()
        };
        Self::with_options(url, options)
    }

    /// A service at `url`. Authorities of certificates are those of the system, or of the file in `SSL_CERT_FILE`.
    ///
    /// # Errors
    /// When the URL or the key cannot be used.
    pub fn with_options(url: &str, options: Options) -> Result<Self, Error> {
        let base = url.trim_end_matches('/').to_owned();
        let wrong = || Error::Invalid(format!("{url:?} is no URL such as http://127.0.0.1:8080"));
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        if !matches!(uri.scheme_str(), Some("http" | "https")) || !has_host || uri.query().is_some()
        {
            return Err(wrong());
        }
        let key = options.key.as_ref();
        let authorization = key.map(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| Error::Invalid("the key has characters that no key has".to_owned()))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        });
        let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(options.connections);
        Ok(Self(Arc::new(Inner {
            authorization: authorization.transpose()?,
            http: builder.build(connector(uri.scheme_str() == Some("https"))?),
            base,
            options,
        })))
    }

    /// Sends a request, again if need be, and returns the answer; one that is no success is an error.
    ///
    /// # Errors
    /// When it fails, after its retries.
    pub async fn send(&self, request: Request) -> Result<Response<Bytes>, Error> {
        let options = &self.0.options;
        let mut attempt = 0;
        loop {
            let error = match self.try_once(&request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let may_repeat = error.is_retryable() && (!request.once || error.had_no_effect());
            let wait = error.retry_after();
            if attempt == options.retries || !may_repeat || wait > Some(options.max_wait) {
                return Err(error);
            }
            // Not all at once: many clients are told the same.
            let wait = match wait.filter(|wait| !wait.is_zero()) {
                Some(wait) => wait.mul_f64(rand::random_range(1.0..1.2)),
                None => {
                    (BACKOFF * 2_u32.saturating_pow(attempt)).mul_f64(rand::random_range(0.5..1.0))
                }
            };
            tokio::time::sleep(wait.min(options.max_wait)).await;
            attempt += 1;
        }
    }

    async fn try_once(&self, request: &Request) -> Result<Response<Bytes>, Error> {
        let uri = format!("{}{}", self.0.base, request.path);
        let wrong = |error: hyper::http::Error| Error::Invalid(error.to_string());
        let mut built = hyper::Request::builder()
            .method(&request.method)
            .uri(uri)
            .body(Full::new(request.body.clone()))
            .map_err(wrong)?;
        let headers = built.headers_mut();
        *headers = request.headers.clone();
        let agent = concat!("cursus-sdk-rust/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if let Some(value) = &self.0.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let answered = async {
            let sent = self.0.http.request(built).await;
            let (head, body) = sent.map_err(|error| Error::of_client(&error))?.into_parts();
            let body = body.collect().await;
            let body = body.map_err(|error| Error::NoAnswer(error.to_string()))?;
            Ok::<_, Error>((head, body.to_bytes()))
        };
        let within = self.0.options.timeout + request.wait;
        let (head, body) = tokio::time::timeout(within, answered)
            .await
            .map_err(|_| Error::NoAnswer(format!("none within {} s", within.as_secs())))??;
        if head.status.is_success() {
            return Ok(Response::from_parts(head, body));
        }
        let after = retry_after(&head.headers);
        Err(Error::of_answer(head.status.as_u16(), &body, after))
    }

    /// Sends a request and reads the answer as JSON.
    ///
    /// # Errors
    /// When it fails, or the answer has another shape.
    pub async fn json<T: DeserializeOwned>(&self, request: Request) -> Result<T, Error> {
        Ok(serde_json::from_slice(self.send(request).await?.body())?)
    }

    /// What is at a path.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn get<T: DeserializeOwned>(&self, path: impl Into<String>) -> Result<T, Error> {
        self.json(Request::new(Method::GET, path)).await
    }

    /// Creates or changes what is at a path.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.json(Request::new(Method::PUT, path).json(body)?).await
    }

    /// Deletes what is at a path.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn delete(&self, path: impl Into<String>) -> Result<(), Error> {
        self.send(Request::new(Method::DELETE, path)).await?;
        Ok(())
    }

    /// All items of a list, page by page. `path` may have a query.
    pub fn each<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> impl Stream<Item = Result<T, Error>> + use<T> {
        let (client, path) = (self.clone(), path.to_owned());
        let first = Some(String::new());
        let pages = stream::try_unfold(first, move |after| {
            let (client, path) = (client.clone(), path.clone());
            async move {
                let Some(after) = after else {
                    return Ok::<_, Error>(None);
                };
                let sign = if path.contains('?') { '&' } else { '?' };
                let page: Page<T> = match &*after {
                    "" => client.get(path).await?,
                    after => {
                        client
                            .get(format!("{path}{sign}after={}", segment(after)))
                            .await?
                    }
                };
                let items = stream::iter(page.items.into_iter().map(Ok));
                Ok(Some((items, page.next)))
            }
        });
        pages.try_flatten()
    }

    /// Publishes a message and returns its id. A repeated attempt stores nothing twice.
    ///
    /// # Errors
    /// When it was not published, or the outcome is unknown.
    pub async fn publish(
        &self,
        topic: &str,
        message: impl Into<Publish>,
    ) -> Result<MessageId, Error> {
        let message = message.into();
        let path = format!("/v1/topics/{}/messages", segment(topic));
        let mut request = Request::new(Method::POST, path)
            .body(&message.content_type, message.body)?
            .idempotent(message.idempotency_key.as_deref())?;
        for (name, value) in [("cursus-tag", &message.tag), ("cursus-key", &message.key)] {
            if let Some(value) = value {
                request = request.header(name, value)?;
            }
        }
        for (name, value) in &message.attributes {
            request = request.header(&format!("cursus-attr-{name}"), value)?;
        }
        let published: Published = self.json(request).await?;
        Ok(published.id)
    }

    /// Publishes up to 100 messages; one result for each. A repeated attempt stores nothing twice.
    ///
    /// # Errors
    /// When none could be tried, or the outcome is unknown.
    pub async fn publish_batch(
        &self,
        topic: &str,
        messages: Vec<PublishMessage<'_>>,
    ) -> Result<Vec<PublishResult>, Error> {
        let path = format!("/v1/topics/{}/messages/batch", segment(topic));
        let mut request = Request::new(Method::POST, path);
        // Messages that all have an id of their own need no other.
        if messages.iter().any(|message| message.dedup_id.is_none()) {
            request = request.idempotent(None)?;
        }
        let request = request.json(&PublishBatch { messages })?;
        let answer: PublishResults = self.json(request).await?;
        Ok(answer.results)
    }

    /// Receives messages; `asked` says how many, and how long to wait for the first.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn receive(
        &self,
        subscription: &str,
        asked: ReceiveRequest,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        let path = format!("/v1/subscriptions/{}/receive", segment(subscription));
        let wait = Duration::from_secs(asked.wait_seconds.unwrap_or(0).into());
        let request = Request::new(Method::POST, path).json(&asked)?.waiting(wait);
        let answer: ReceiveResult = self.json(request).await?;
        Ok(answer.messages)
    }

    /// Settles up to 100 messages; one result for each, with an `error` if it failed.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn settle(
        &self,
        subscription: &str,
        items: Vec<SettleItem<'_>>,
    ) -> Result<Vec<SettleResult>, Error> {
        let path = format!("/v1/subscriptions/{}/settle", segment(subscription));
        let request = Request::new(Method::POST, path).json(&SettleRequest { items })?;
        let answer: SettleResults = self.json(request).await?;
        Ok(answer.results)
    }

    /// Acknowledges a message: it is processed.
    ///
    /// # Errors
    /// When it was not.
    pub async fn ack(&self, subscription: &str, receipt: &str) -> Result<(), Error> {
        let item = SettleItem::new(receipt, SettleAction::Ack);
        let results = self.settle(subscription, vec![item]).await?;
        match results.into_iter().find_map(|result| result.error) {
            Some(problem) => Err(problem.into()),
            None => Ok(()),
        }
    }

    /// The body of a message, also of one that is so large that it does not come along.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn body(&self, message: MessageId) -> Result<Bytes, Error> {
        let path = format!("/v1/messages/{message}/body");
        let answer = self.send(Request::new(Method::GET, path)).await?;
        Ok(answer.into_body())
    }
}

/// Connections with TLS or without. The authorities of the system are read only where they are needed.
fn connector(tls: bool) -> Result<HttpsConnector<HttpConnector>, Error> {
    let mut roots = rustls::RootCertStore::empty();
    if tls {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Invalid(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_WITHIN));
    let https = HttpsConnectorBuilder::new().with_tls_config(config);
    Ok(https.https_or_http().enable_http1().wrap_connector(http))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

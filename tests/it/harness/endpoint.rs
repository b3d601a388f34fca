//! An endpoint that messages are delivered to: a real server, which does with each request what a test says, remembers
//! every request, and counts connections and requests that are open at the same time. HTTP/1.1, or TLS with HTTP/2.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::authority;
use super::behaviour::{Body, Broken, Does, Open, body};

/// Where it is, with a query.
const PATH: &str = "/hook?of=cursus";

/// A request that it got.
#[derive(Debug, Clone)]
pub(crate) struct Posted {
    pub(crate) method: Method,
    /// With the query.
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// When all of it had come.
    pub(crate) at: Instant,
    /// Its connection, counted from 1.
    pub(crate) connection: usize,
}

impl Posted {
    /// A header, empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether it is signed with this secret (Standard Webhooks), by another implementation than that of the service.
    pub(crate) fn is_signed(&self, secret: &str) -> bool {
        let secret = secret.strip_prefix("whsec_").unwrap();
        let secret = BASE64_STANDARD.decode(secret).unwrap();
        assert_eq!((self.method.as_str(), &*self.path), ("POST", PATH));
        let (id, at) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        assert!(!id.contains('.') && !id.is_empty());
        let signature = self.header("webhook-signature");
        let signature = BASE64_STANDARD
            .decode(signature.strip_prefix("v1,").unwrap())
            .unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let message = [format!("{id}.{at}.").as_bytes(), &self.body].concat();
        hmac::verify(&key, &message, &signature).is_ok()
    }
}

type Decides = Box<dyn Fn(&Posted) -> Does + Send + Sync>;

pub(super) struct Shared {
    next: Mutex<VecDeque<Does>>,
    otherwise: Mutex<Decides>,
    sent: Mutex<Vec<Posted>>,
    connections: AtomicUsize,
    /// Connections that process no request: they say GOAWAY.
    turned_away: AtomicUsize,
    open: Arc<Open>,
}

pub(crate) struct Endpoint {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    closing: watch::Sender<()>,
    serving: JoinHandle<()>,
}

impl Endpoint {
    /// An endpoint that answers 204 over HTTP/1.1 without TLS.
    pub(crate) async fn new() -> Self {
        Self::over(None, "http").await
    }

    /// The same over TLS, with a certificate for these names, and with HTTP/2 where the client offers it.
    pub(crate) async fn tls(names: &[&str]) -> Self {
        Self::over(Some(authority::server(names, &["h2", "http/1.1"])), "https").await
    }

    /// The same without HTTP/2.
    pub(crate) async fn tls_1(names: &[&str]) -> Self {
        Self::over(Some(authority::server(names, &["http/1.1"])), "https").await
    }

    async fn over(tls: Option<Arc<ServerConfig>>, scheme: &'static str) -> Self {
        let shared = Arc::new(Shared {
            next: Mutex::default(),
            otherwise: Mutex::new(Box::new(|_| Does::Says(204))),
            sent: Mutex::default(),
            connections: AtomicUsize::new(0),
            turned_away: AtomicUsize::new(0),
            open: Arc::default(),
        });
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let closing = watch::Sender::new(());
        let serving = tokio::spawn(accept(socket, tls, shared.clone(), closing.clone()));
        Self {
            address,
            scheme,
            shared,
            closing,
            serving,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.at(PATH)
    }

    /// The URL of another path. Certificates are for `localhost`.
    pub(crate) fn at(&self, path: &str) -> String {
        let host = if self.scheme == "https" {
            "localhost"
        } else {
            "127.0.0.1"
        };
        format!("{}://{host}:{}{path}", self.scheme, self.address.port())
    }

    /// What it does with the next requests, in this order.
    pub(crate) fn next(&self, does: impl IntoIterator<Item = Does>) {
        self.shared.next.lock().extend(does);
    }

    /// What it does with all requests after those.
    pub(crate) fn always(&self, does: Does) {
        self.decides(move |_| does.clone());
    }

    /// The same, depending on the request.
    pub(crate) fn decides(&self, decides: impl Fn(&Posted) -> Does + Send + Sync + 'static) {
        *self.shared.otherwise.lock() = Box::new(decides);
    }

    /// All requests so far, also those that failed.
    pub(crate) fn sent(&self) -> Vec<Posted> {
        self.shared.sent.lock().clone()
    }

    /// How many there were.
    pub(crate) fn received(&self) -> usize {
        self.shared.sent.lock().len()
    }

    /// Connections so far, those included whose handshake failed.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// Requests that are open now: their response has not been sent in full.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.now.load(SeqCst)
    }

    /// The most requests that were open at the same time.
    pub(crate) fn max_at_once(&self) -> usize {
        self.shared.open.most.load(SeqCst)
    }

    /// Connections that are open now.
    pub(crate) fn connected(&self) -> usize {
        self.closing.receiver_count()
    }

    /// Closes connections as a server that is restarted does: at once if they are idle, and with GOAWAY over HTTP/2.
    pub(crate) fn close_idle(&self) {
        self.closing.send_replace(());
    }

    /// The next connections over TLS take no request: GOAWAY is the response to the first one.
    pub(crate) fn turns_away(&self, connections: usize) {
        self.shared.turned_away.store(connections, SeqCst);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(
    socket: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    shared: Arc<Shared>,
    closing: watch::Sender<()>,
) {
    let tls = tls.map(TlsAcceptor::from);
    while let Ok((stream, _)) = socket.accept().await {
        let number = shared.connections.fetch_add(1, SeqCst) + 1;
        let (shared, closing, tls) = (shared.clone(), closing.subscribe(), tls.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true).unwrap();
            let Some(tls) = tls else {
                return serve(stream, number, shared, closing).await;
            };
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let away = |left: usize| left.checked_sub(1);
            if shared
                .turned_away
                .fetch_update(SeqCst, SeqCst, away)
                .is_ok()
            {
                turn_away(stream).await;
            } else {
                serve(stream, number, shared, closing).await;
            }
        });
    }
}

async fn serve<S>(stream: S, number: usize, shared: Arc<Shared>, mut closing: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| answer(request, number, shared.clone()));
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = closing.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(
    request: Request<Incoming>,
    connection: usize,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Broken> {
    let open = shared.open.begin();
    let (head, body_of) = request.into_parts();
    let sent = Posted {
        method: head.method,
        path: head.uri.path_and_query().unwrap().to_string(),
        version: head.version,
        headers: head.headers,
        body: body_of.collect().await.map_err(|_| Broken)?.to_bytes(),
        at: Instant::now(),
        connection,
    };
    let does = shared.next.lock().pop_front();
    let does = does.unwrap_or_else(|| (shared.otherwise.lock())(&sent));
    shared.sent.lock().push(sent);
    body(does, open).await
}

/// HTTP/2 by hand: the first request is not processed, and the connection ends.
async fn turn_away(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // No stream was processed, and there is no error.
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let talk = async {
        stream.write_all(&SETTINGS).await?;
        stream.read_exact(&mut [0; PREFACE]).await?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut frame = vec![0; length as usize];
            stream.read_exact(&mut frame).await?;
            if head[3] == HEADERS {
                break;
            }
        }
        stream.write_all(&GOAWAY).await?;
        stream.flush().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.shutdown().await
    };
    // The client may have gone.
    let _: Result<(), std::io::Error> = talk.await;
}

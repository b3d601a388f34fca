//! The endpoint of the push scenarios: a hyper server in this process that answers 200 at once and counts. A path that
//! begins with `/hang` is not answered for 30 seconds, and one that begins with `/other` is not counted. And the base that pushes are compared with: a bare hyper client
//! that posts the same requests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::Result;

/// How long an endpoint hangs.
const HANG: Duration = Duration::from_secs(30);

/// What the sink has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Requests that were answered at once.
    count: AtomicU64,
    /// Ids of messages with the time of their arrival, if they are wanted.
    times: Mutex<Option<Vec<(String, Instant)>>>,
    /// The latest request.
    sample: Mutex<Option<(HeaderMap, Bytes)>>,
}

/// A sink.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    serving: JoinHandle<()>,
}

impl Sink {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, seen) = (listener.local_addr()?, Arc::new(Seen::default()));
        let serving = tokio::spawn(serve(listener, seen.clone()));
        Ok(Self {
            address,
            seen,
            serving,
        })
    }

    /// URL of an endpoint.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Posts the latest request again and again over this many connections, and returns the requests a second.
    pub(crate) async fn post(&self, connections: usize, lasting: Duration) -> Result<f64> {
        let (mut headers, body) = self
            .seen
            .sample
            .lock()
            .clone()
            .ok_or("nothing was pushed yet")?;
        headers.remove(hyper::header::CONTENT_LENGTH);
        let mut clients = JoinSet::new();
        for _ in 0..connections {
            let socket = TcpStream::connect(self.address).await?;
            socket.set_nodelay(true)?;
            clients.spawn(post(
                socket,
                headers.clone(),
                body.clone(),
                Instant::now() + lasting,
            ));
        }
        let (mut count, began) = (0, Instant::now());
        while let Some(posted) = clients.join_next().await {
            count += posted??;
        }
        Ok(count as f64 / began.elapsed().as_secs_f64())
    }
}

impl Seen {
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Begins to note ids with their times.
    pub(crate) fn note_times(&self) {
        *self.times.lock() = Some(Vec::new());
    }

    /// The ids and times that were noted.
    pub(crate) fn take_times(&self) -> Vec<(String, Instant)> {
        self.times.lock().take().unwrap_or_default()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, seen: Arc<Seen>) {
    while let Ok((socket, _)) = listener.accept().await {
        let _ = socket.set_nodelay(true);
        let seen = seen.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(request, seen.clone()));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), answer)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Seen>,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let arrived = Instant::now();
    if head.uri.path().starts_with("/hang") {
        tokio::time::sleep(HANG).await;
        return Ok(Response::default());
    }
    if head.uri.path().starts_with("/other") {
        return Ok(Response::default());
    }
    if seen.count.fetch_add(1, Ordering::Relaxed) == 0 {
        *seen.sample.lock() = Some((head.headers.clone(), body.unwrap_or_default()));
    }
    if let Some(times) = seen.times.lock().as_mut()
        && let Some(id) = head.headers.get("cursus-message-id")
    {
        times.push((id.to_str().unwrap_or_default().to_owned(), arrived));
    }
    Ok(Response::default())
}

/// Posts over one connection until a time, and returns the number of answers.
async fn post(socket: TcpStream, headers: HeaderMap, body: Bytes, until: Instant) -> Result<u64> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let connection = tokio::spawn(connection);
    let mut count = 0;
    while Instant::now() < until {
        let mut request = Request::post("/sink").body(Full::new(body.clone()))?;
        *request.headers_mut() = headers.clone();
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        answer.into_body().collect().await?;
        count += 1;
    }
    connection.abort();
    Ok(count)
}

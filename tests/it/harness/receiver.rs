//! A server that events are sent to. It accepts each request, unless it is set to refuse, to be late, to send nothing or to
//! hang up. Remembers every request. Speaks HTTP/1.1 by hand, one request a connection, so that it can do all of this.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Does {
    /// Answers with a status.
    Says(u16),
    /// Answers with a status and a header.
    SaysWith(u16, &'static str),
    /// Takes it, but not at once.
    Late(Duration),
    /// Sends nothing.
    Nothing,
    /// Closes the connection.
    HangsUp,
}

/// A request that it got.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// By their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Sent {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Whether it is signed with this secret (Standard Webhooks), by another implementation than that of the service.
    pub(crate) fn is_signed(&self, secret: &str) -> bool {
        let secret = secret.strip_prefix("whsec_").unwrap();
        let secret = BASE64_STANDARD.decode(secret).unwrap();
        let (id, at) = (
            &self.headers["webhook-id"],
            &self.headers["webhook-timestamp"],
        );
        assert!(!id.contains('.') && !id.is_empty());
        let signature = &self.headers["webhook-signature"];
        let signature = BASE64_STANDARD
            .decode(signature.strip_prefix("v1,").unwrap())
            .unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let message = format!("{id}.{at}.{}", self.body);
        hmac::verify(&key, message.as_bytes(), &signature).is_ok()
    }
}

#[derive(Default)]
struct Shared {
    next: Mutex<VecDeque<Does>>,
    sent: Mutex<Vec<Sent>>,
}

pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl Receiver {
    pub(crate) async fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let answering = shared.clone();
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = socket.accept().await {
                tokio::spawn(answer(connection, answering.clone()));
            }
        });
        Self {
            address,
            shared,
            serving,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/events?of=cursus", self.address)
    }

    /// What it does with the next requests, in this order; then it takes everything.
    pub(crate) fn next(&self, does: impl IntoIterator<Item = Does>) {
        self.shared.next.lock().extend(does);
    }

    /// All requests so far, also those that it did not take.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.shared.sent.lock().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(mut connection: TcpStream, shared: Arc<Shared>) {
    let Some(sent) = read(&mut connection).await else {
        return;
    };
    let does = shared.next.lock().pop_front();
    shared.sent.lock().push(sent);
    let (status, header) = match does.unwrap_or(Does::Says(204)) {
        Does::Says(status) => (status, ""),
        Does::SaysWith(status, header) => (status, header),
        Does::Late(time) => {
            tokio::time::sleep(time).await;
            (202, "")
        }
        Does::Nothing => return std::future::pending().await,
        Does::HangsUp => return,
    };
    let header = match header {
        "" => String::new(),
        header => format!("{header}\r\n"),
    };
    let head = format!("HTTP/1.1 {status} Said\r\n{header}connection: close\r\n");
    let body = match status {
        204 => "\r\n",
        _ => "content-length: 2\r\n\r\nok",
    };
    // The sender may have gone.
    drop(
        connection
            .write_all(format!("{head}{body}").as_bytes())
            .await,
    );
}

async fn read(connection: &mut TcpStream) -> Option<Sent> {
    let mut text = Vec::new();
    let (head, body) = loop {
        let mut piece = [0; 8_192];
        let count = connection.read(&mut piece).await.ok()?;
        if count == 0 {
            return None;
        }
        text.extend_from_slice(&piece[..count]);
        let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(text[..end].to_vec()).unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.parse::<usize>().unwrap())
        });
        if text.len() >= end + 4 + length.unwrap_or(0) {
            break (head, text.split_off(end + 4));
        }
    };
    let line = head.lines().next().unwrap_or_default();
    let is_known = ["POST", "OPTIONS"].map(|method| format!("{method} /events?of=cursus HTTP/1.1"));
    assert!(is_known.contains(&line.to_owned()), "{head}");
    let headers = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Some(Sent {
        headers: headers.collect(),
        body: String::from_utf8(body).unwrap(),
    })
}

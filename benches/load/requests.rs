//! Requests as bytes, made before the load begins: a pool of publishes with different bodies that all connections walk
//! through from different offsets, and the short texts of receive, ack and the control plane.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::bodies::{self, Random};

/// A pool of publishes for one URL; cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    requests: Arc<Vec<Vec<u8>>>,
    /// Messages in each request.
    pub(crate) batch: usize,
}

impl Pool {
    /// Publishes of one raw body (`batch` 1) or of a JSON batch.
    pub(crate) fn publish(to: &Server, topic: &str, batch: usize) -> Self {
        match batch {
            1 => Self::new(to, &format!("/v1/topics/{topic}/messages"), batch),
            _ => Self::new(to, &format!("/v1/topics/{topic}/messages/batch"), batch),
        }
    }

    /// JSON batches of messages of one customer.
    pub(crate) fn of_customer(to: &Server, topic: &str, batch: usize, customer: &str) -> Self {
        let path = format!("/v1/topics/{topic}/messages/batch");
        let attributes = json!({ "fairness_key": customer });
        Self::made(to, &path, batch, |random| {
            json_batch(
                batch,
                || json!({ "body": bodies::order(random), "attributes": attributes }),
            )
        })
    }

    /// The bodies of `publish`, for the echo.
    pub(crate) fn echo(batch: usize) -> Self {
        let path = if batch == 1 { "/order" } else { "/batch" };
        Self::new(&Server::default(), path, batch)
    }

    fn new(to: &Server, path: &str, batch: usize) -> Self {
        Self::made(to, path, batch, |random| match batch {
            1 => bodies::order(random),
            _ => json_batch(batch, || json!({ "body": bodies::order(random) })),
        })
    }

    fn made(to: &Server, path: &str, batch: usize, body: impl Fn(&mut Random) -> String) -> Self {
        let mut random = Random(batch as u64);
        let requests = (0..pool_size(batch)).map(|_| to.request("POST", path, &body(&mut random)));
        Self {
            requests: Arc::new(requests.collect()),
            batch,
        }
    }

    pub(crate) fn get(&self, at: usize) -> &[u8] {
        &self.requests[at % self.requests.len()]
    }
}

/// Publishes of one message to many topics in turn. Heads and bodies are stored apart: all their combinations would not
/// fit into memory, and joining two parts costs less than reading a prepared request from cold memory.
#[derive(Clone)]
pub(crate) struct ManyTopics {
    heads: Arc<Vec<Vec<u8>>>,
    bodies: Arc<Vec<String>>,
}

impl ManyTopics {
    pub(crate) fn new(to: &Server, topics: &[String]) -> Self {
        let mut random = Random(1);
        let bodies: Vec<String> = (0..4096).map(|_| bodies::order(&mut random)).collect();
        let length = bodies::BODY_BYTES;
        let head =
            |topic: &String| to.head("POST", &format!("/v1/topics/{topic}/messages"), length);
        Self {
            heads: Arc::new(topics.iter().map(head).collect()),
            bodies: Arc::new(bodies),
        }
    }

    /// Writes the request number `at` into `request`.
    pub(crate) fn write(&self, at: usize, request: &mut Vec<u8>) {
        request.clear();
        request.extend_from_slice(&self.heads[at % self.heads.len()]);
        request.extend_from_slice(self.bodies[at % self.bodies.len()].as_bytes());
    }
}

/// Properties of every request to one server.
#[derive(Clone, Default)]
pub(crate) struct Server {
    api_key: Option<String>,
}

impl Server {
    pub(crate) fn new(api_key: Option<String>) -> Self {
        Self { api_key }
    }

    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let mut request = self.head(method, path, body.len());
        request.extend_from_slice(body.as_bytes());
        request
    }

    /// Everything before the body, including the blank line.
    pub(crate) fn head(&self, method: &str, path: &str, length: usize) -> Vec<u8> {
        self.head_with(method, path, "", length)
    }

    /// The same with additional header lines.
    pub(crate) fn head_with(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        length: usize,
    ) -> Vec<u8> {
        let authorization = match &self.api_key {
            Some(key) => format!("authorization: Bearer {key}\r\n"),
            None => String::new(),
        };
        format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{authorization}{headers}\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
        .into_bytes()
    }

    pub(crate) fn get(&self, path: &str) -> Vec<u8> {
        self.request("GET", path, "")
    }

    pub(crate) fn put_topic(&self, topic: &str) -> Vec<u8> {
        self.request("PUT", &format!("/v1/topics/{topic}"), "{}")
    }

    pub(crate) fn put_subscription(&self, name: &str, topic: &str) -> Vec<u8> {
        self.request(
            "PUT",
            &format!("/v1/subscriptions/{name}"),
            &format!(r#"{{"topic":"{topic}"}}"#),
        )
    }

    pub(crate) fn receive(
        &self,
        subscription: &str,
        max_messages: usize,
        wait_seconds: u32,
    ) -> Vec<u8> {
        let body = format!(r#"{{"max_messages":{max_messages},"wait_seconds":{wait_seconds}}}"#);
        self.request(
            "POST",
            &format!("/v1/subscriptions/{subscription}/receive"),
            &body,
        )
    }
}

/// Number of requests in a pool.
pub(crate) fn pool_size(batch: usize) -> usize {
    if batch == 1 { 4096 } else { 1024 }
}

pub(crate) fn json_batch(batch: usize, mut message: impl FnMut() -> Value) -> String {
    let messages: Vec<Value> = (0..batch).map(|_| message()).collect();
    json!({ "messages": messages }).to_string()
}

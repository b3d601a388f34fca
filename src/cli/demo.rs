//! `cursus demo`: what the service does, in one terminal, each request as curl would send it. It starts a node of its own
//! unless a service is named, ends by itself, and leaves nothing behind.

mod node;
mod webhook;

use std::time::Duration;

use clap::Args;
use cursus_sdk::{Client, Error, Options, Request};
use hyper::Method;
use serde_json::{Value, json};

use super::output::{note, print};
use super::{Common, Context, Failure};
use crate::config::Service;
use crate::shutdown::Shutdown;

use node::Node;
use webhook::Endpoint;

/// Time for a delivery to arrive.
const DELIVERED_WITHIN: Duration = Duration::from_secs(20);
/// Characters of an answer that are shown.
const ANSWER_CHARS: usize = 400;

/// `cursus demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cursus demo\n  cursus demo --url http://127.0.0.1:8080")]
pub(super) struct Demo {
    #[command(flatten)]
    common: Common,
}

impl Demo {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let shutdown = Shutdown::default();
        shutdown
            .listen()
            .map_err(|error| Failure::Other(error.to_string()))?;
        if self.common.connection.named_by().is_some() {
            let context = Context::of(&self.common, used)?;
            let has_key = context.service.key.is_some();
            let suffix = format!("-{:06x}", rand::random_range(0..0x0100_0000));
            let stage = Stage::new(context.client, &context.service.url, has_key, &suffix);
            return stage.play(&shutdown).await;
        }
        note("starting a node with a Postgres of its own, in a temporary directory …");
        let Some(started) = shutdown.unless_ending(Box::pin(Node::start())).await else {
            return Err(Failure::Interrupted(String::new()));
        };
        let node = started?;
        let client = Client::with_options(&node.url, Options::default());
        let played = match client {
            Ok(client) => {
                Stage::new(client, &node.url, false, "")
                    .play(&shutdown)
                    .await
            }
            Err(error) => Err(error.into()),
        };
        node.stop().await;
        if played.is_ok() {
            note("the node has ended, and its directory is removed. To keep one: cursus serve");
        }
        played
    }
}

/// What the demo acts on.
struct Stage {
    client: Client,
    url: String,
    has_key: bool,
    orders: String,
    dead: String,
    billing: String,
    failed: String,
    hooks: String,
}

impl Stage {
    fn new(client: Client, url: &str, has_key: bool, suffix: &str) -> Self {
        let name = |name: &str| format!("{name}{suffix}");
        Self {
            client,
            url: url.to_owned(),
            has_key,
            orders: name("orders"),
            dead: name("orders-dead"),
            billing: name("billing"),
            failed: name("orders-failed"),
            hooks: name("hooks"),
        }
    }

    /// Plays all acts, and deletes what they made, also when one fails.
    async fn play(&self, shutdown: &Shutdown) -> Result<(), Failure> {
        let played = shutdown.unless_ending(Box::pin(self.acts())).await;
        for name in [&self.billing, &self.failed, &self.hooks] {
            let _ = self
                .client
                .delete(format!("/v1/subscriptions/{name}"))
                .await;
        }
        for name in [&self.orders, &self.dead] {
            let _ = self.client.delete(format!("/v1/topics/{name}")).await;
        }
        played.unwrap_or_else(|| Err(Failure::Interrupted(String::new())))
    }

    async fn acts(&self) -> Result<(), Failure> {
        let key = if self.has_key {
            " key='authorization: Bearer '$CURSUS_KEY"
        } else {
            ""
        };
        print(&format!(
            "$ url={}{key} json='content-type: application/json'\n",
            self.url
        ))?;
        self.set_up().await?;
        self.publish_and_receive().await?;
        self.retry_and_dead_letter().await?;
        self.webhook().await?;
        print("\n# That was all. The reference of every route is at /docs of a running node.\n")
    }

    async fn set_up(&self) -> Result<(), Failure> {
        act("A topic keeps messages, and a subscription is a durable reader of it.")?;
        self.put("topics", &self.orders, json!({})).await?;
        self.put("topics", &self.dead, json!({})).await?;
        let billing =
            json!({"topic": self.orders, "max_attempts": 2, "dead_letter_topic": self.dead});
        self.put("subscriptions", &self.billing, billing).await?;
        self.put("subscriptions", &self.failed, json!({"topic": self.dead}))
            .await?;
        Ok(())
    }

    async fn publish_and_receive(&self) -> Result<(), Failure> {
        act("The body of a request is the body of a message.")?;
        self.publish("two espressos").await?;
        act(
            "A received message is hidden from others until it is acknowledged, or its time is over.",
        )?;
        let receipt = self.receive(&self.billing).await?;
        self.settle(json!({"receipt": receipt, "action": "ack"}))
            .await
    }

    async fn retry_and_dead_letter(&self) -> Result<(), Failure> {
        act("A message that fails is given back, and comes again: look at `attempt`.")?;
        self.publish("a cake that is sold out").await?;
        for _ in 0..2 {
            let receipt = self.receive(&self.billing).await?;
            self.settle(json!({"receipt": receipt, "action": "nack"}))
                .await?;
        }
        act(
            "After its two attempts it is a message of the dead-letter topic, with its origin in the attributes.",
        )?;
        self.receive(&self.failed).await?;
        Ok(())
    }

    async fn webhook(&self) -> Result<(), Failure> {
        act(
            "The service can deliver messages itself, signed, to an endpoint: here one that the demo listens on.",
        )?;
        let is_here = ["://127.0.0.1", "://localhost", "://[::1]"];
        if !is_here.iter().any(|host| self.url.contains(host)) {
            return print("# Left out: a service elsewhere cannot call this machine.\n");
        }
        let listening = Endpoint::listen().await;
        let mut endpoint = listening
            .map_err(|error| Failure::Other(format!("no port for the endpoint: {error}")))?;
        let push = json!({"topic": self.orders, "push": {"url": endpoint.url}});
        let made = match self.put("subscriptions", &self.hooks, push).await {
            // A fleet calls loopback only if it is told to.
            Err(Failure::Request(Error::Problem(problem))) => {
                return print(&format!("# Left out: {}\n", problem.problem.detail));
            }
            made => made?,
        };
        self.publish("one latte").await?;
        let delivery = tokio::time::timeout(DELIVERED_WITHIN, endpoint.next()).await;
        let Ok(Some(delivery)) = delivery else {
            return Err(Failure::Other("the delivery did not arrive".to_owned()));
        };
        print(&format!(
            "POST /hook, from the service to {}:\n",
            endpoint.url
        ))?;
        for name in [
            "content-type",
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "cursus-attempt",
        ] {
            print(&format!("  {name}: {}\n", delivery.header(name)))?;
        }
        print(&format!(
            "\n  {}\n",
            String::from_utf8_lossy(&delivery.body)
        ))?;
        let secret = made["push"]["secret"].as_str().unwrap_or_default();
        if !delivery.is_signed(secret) {
            return Err(Failure::Other(
                "the signature of the delivery is wrong".to_owned(),
            ));
        }
        print("# The signature is that of the subscription's secret.\n")
    }

    async fn put(&self, kind: &str, name: &str, settings: Value) -> Result<Value, Failure> {
        self.request(Method::PUT, &format!("/v1/{kind}/{name}"), &settings)
            .await
    }

    async fn publish(&self, text: &str) -> Result<(), Failure> {
        let path = format!("/v1/topics/{}/messages", self.orders);
        self.show(&format!(
            "curl \"$url{path}\"{} -H 'content-type: text/plain' -d '{text}'",
            self.key()
        ))?;
        let request = Request::new(Method::POST, path).body("text/plain", text.to_owned())?;
        answer(&self.client.json::<Value>(request).await?)
    }

    /// Receives the next message, and returns its receipt.
    async fn receive(&self, subscription: &str) -> Result<Value, Failure> {
        let path = format!("/v1/subscriptions/{subscription}/receive");
        let mut received = self
            .request(Method::POST, &path, &json!({"wait_seconds": 20}))
            .await?;
        let receipt = received["messages"][0]["receipt"].take();
        if receipt.is_null() {
            let text = format!("no message came to {subscription}");
            return Err(Failure::Other(text));
        }
        Ok(receipt)
    }

    async fn settle(&self, item: Value) -> Result<(), Failure> {
        let path = format!("/v1/subscriptions/{}/settle", self.billing);
        self.request(Method::POST, &path, &json!({"items": [item]}))
            .await?;
        Ok(())
    }

    /// Sends a request with a JSON body, and shows it and its answer.
    async fn request(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        let verb = if method == Method::PUT { " -X PUT" } else { "" };
        self.show(&format!(
            "curl{verb} \"$url{path}\"{} -H \"$json\" -d '{body}'",
            self.key()
        ))?;
        let request = Request::new(method, path).json(body)?;
        let value: Value = self.client.json(request.waiting(DELIVERED_WITHIN)).await?;
        answer(&value)?;
        Ok(value)
    }

    fn key(&self) -> &'static str {
        if self.has_key { " -H \"$key\"" } else { "" }
    }

    fn show(&self, command: &str) -> Result<(), Failure> {
        print(&format!("$ {command}\n"))
    }
}

fn act(text: &str) -> Result<(), Failure> {
    print(&format!("\n# {text}\n"))
}

fn answer(value: &Value) -> Result<(), Failure> {
    let text = value.to_string();
    let cut: String = text.chars().take(ANSWER_CHARS).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    print(&format!("{cut}{more}\n"))
}

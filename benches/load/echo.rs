//! The base of comparison: typed axum handlers that return the JSON they receive, on a bare `axum::serve` with the
//! default runtime and the allocator of the node, in its own process like the node. It does nothing else, so its requests per second are
//! the cost of HTTP and JSON on this machine at this time, and a ratio to it can be compared between machines.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::Result;

/// The shape of a batch of publishes.
#[derive(Deserialize, Serialize)]
struct Batch {
    messages: Vec<Message>,
}

#[derive(Deserialize, Serialize)]
struct Message {
    body: String,
}

/// The shape of the body itself, for one message per request; see `bodies::order`.
#[derive(Deserialize, Serialize)]
struct Order {
    order: String,
    customer: u64,
    amount_cents: u64,
    currency: String,
    city: String,
    sku: String,
    note: String,
}

/// Runs the echo until the bench that started it ends for any reason.
pub(crate) fn serve_until_stdin_closes() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    println!("{}", listener.local_addr()?);
    let app = Router::new()
        .route("/order", post(|order: Json<Order>| async { order }))
        .route("/batch", post(|batch: Json<Batch>| async { batch }));
    runtime.spawn(async move { axum::serve(listener, app).await });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// An echo in its own process, stopped when dropped.
pub(crate) struct Echo {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Echo {
    pub(crate) fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("echo")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("the echo has no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse()?;
        Ok(Self { child, address })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

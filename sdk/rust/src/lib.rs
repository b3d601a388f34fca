//! A pleasant client of Cursus in Rust: requests with retries and typed problems, pages of lists as streams, and a consumer
//! loop. It has the words and the defaults of the packages for Python and TypeScript. The types of the wire are those of the
//! crate `api`. Deliveries of push subscriptions are verified by the crate `standardwebhooks`.
//!
//! ```no_run
//! use cursus_sdk::{Client, Consumer};
//!
//! # async fn example() -> Result<(), cursus_sdk::Error> {
//! let client = Client::new("http://127.0.0.1:8080")?; // the key is in CURSUS_KEY
//! client.publish("orders", "two espressos").await?;
//! let consumer = Consumer::new(client, "billing", async |message| Ok(println!("{:?}", message.message.body)));
//! consumer.run_until(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await;
//! # Ok(())
//! # }
//! ```

mod client;
mod consumer;
mod error;
mod request;

pub use api;
pub use client::{Client, Options, Publish};
pub use consumer::{Consumer, ConsumerOptions, Failure};
pub use error::{Error, Problem};
pub use request::{Request, segment};

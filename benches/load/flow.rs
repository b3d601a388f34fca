//! The work that one connection repeats: publish (or echo), publish to many topics in turn, or a cycle of publish,
//! receive and ack. Every response is checked; an error is counted in the tally and fails the run.

use std::sync::Arc;
use std::time::Instant;

use memchr::memmem::Finder;

use crate::Result;
use crate::client::{Answer, Client};
use crate::requests::{ManyTopics, Pool, Server};
use crate::run::Tally;
use crate::wire;

/// A kind of load; cloned for every connection.
#[derive(Clone)]
pub(crate) enum Flow {
    /// Any 2xx response is correct.
    Echo(Pool),
    /// The response must contain an id for each message.
    Publish(Pool),
    /// One message to the next topic.
    Topics(ManyTopics),
    /// Publishes a batch, receives as many messages and acks the received ones.
    Cycle(Pool, Arc<Subscription>),
}

/// The prepared requests of one subscription.
pub(crate) struct Subscription {
    receive: Vec<u8>,
    ack_path: String,
    server: Server,
}

impl Subscription {
    pub(crate) fn new(server: &Server, name: &str, max_messages: usize) -> Self {
        Self {
            receive: server.receive(name, max_messages, 1),
            ack_path: format!("/v1/subscriptions/{name}/ack"),
            server: server.clone(),
        }
    }
}

/// One connection and its counts.
pub(crate) struct Worker {
    pub(crate) client: Client,
    pub(crate) tally: Tally,
    at: usize,
    step: usize,
    request: Vec<u8>,
    receipts: String,
}

impl Worker {
    /// `start` and `step` select which requests of a pool this connection sends.
    pub(crate) fn new(client: Client, tally: Tally, start: usize, step: usize) -> Self {
        Self {
            client,
            tally,
            at: start,
            step,
            request: Vec::new(),
            receipts: String::new(),
        }
    }

    /// One round of the flow. After an error the connection is unusable.
    pub(crate) async fn turn(&mut self, flow: &Flow) -> Result<()> {
        self.at = self.at.wrapping_add(self.step);
        match flow {
            Flow::Echo(pool) => self.echo(pool).await,
            Flow::Publish(pool) => self.publish(pool).await,
            Flow::Topics(topics) => self.publish_to_next(topics).await,
            Flow::Cycle(pool, subscription) => {
                self.publish(pool).await?;
                let count = self.receive(subscription, pool.batch).await?;
                self.ack(subscription, count).await
            }
        }
    }

    async fn echo(&mut self, pool: &Pool) -> Result<()> {
        let started = Instant::now();
        let answer = self.client.send(pool.get(self.at)).await?;
        self.tally.check(answer.is_success(), || answer.describe());
        self.tally.request(started, pool.batch);
        Ok(())
    }

    async fn publish(&mut self, pool: &Pool) -> Result<()> {
        let started = Instant::now();
        let answer = self.client.send(pool.get(self.at)).await?;
        self.tally
            .check(published(&answer, pool.batch), || answer.describe());
        self.tally.request(started, pool.batch);
        self.tally.published += pool.batch as u64;
        Ok(())
    }

    async fn publish_to_next(&mut self, topics: &ManyTopics) -> Result<()> {
        topics.write(self.at, &mut self.request);
        let started = Instant::now();
        let answer = self.client.send(&self.request).await?;
        self.tally
            .check(published(&answer, 1), || answer.describe());
        self.tally.request(started, 1);
        self.tally.published += 1;
        Ok(())
    }

    /// Receives once, keeps the receipts and returns the number of messages.
    pub(crate) async fn receive(
        &mut self,
        subscription: &Subscription,
        wanted: usize,
    ) -> Result<usize> {
        let started = Instant::now();
        let answer = self.client.send(&subscription.receive).await?;
        self.receipts.clear();
        let mut count = 0;
        for receipt in wire::strings_of(answer.body, &Finder::new(br#""receipt":""#)) {
            self.receipts
                .push_str(if count == 0 { "\"" } else { ",\"" });
            self.receipts.push_str(std::str::from_utf8(receipt)?);
            self.receipts.push('"');
            count += 1;
        }
        self.tally
            .check(answer.is_success() && count <= wanted, || answer.describe());
        self.tally.request(started, 0);
        self.tally.received += count as u64;
        self.tally.short_receives += u64::from(count < wanted);
        Ok(count)
    }

    /// Acks the receipts of the last receive. The response must have as many results, none of them an error.
    pub(crate) async fn ack(&mut self, subscription: &Subscription, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let body = [r#"{"receipts":["#, &self.receipts, "]}"].concat();
        self.request = subscription
            .server
            .request("POST", &subscription.ack_path, &body);
        let started = Instant::now();
        let answer = self.client.send(&self.request).await?;
        let acked = acked(&answer, count);
        self.tally.check(acked, || answer.describe());
        self.tally.request(started, 0);
        self.tally.acked += if acked { count as u64 } else { 0 };
        Ok(())
    }
}

fn published(answer: &Answer<'_>, batch: usize) -> bool {
    let ids = wire::strings_of(answer.body, &Finder::new(br#""id":""#)).count();
    answer.is_success() && ids == batch && !has_error(answer.body)
}

/// Whether every receipt of an ack was accepted.
pub(crate) fn acked(answer: &Answer<'_>, count: usize) -> bool {
    answer.is_success() && !has_error(answer.body) && results(answer.body) == count
}

fn has_error(body: &[u8]) -> bool {
    Finder::new(br#""error":"#).find(body).is_some()
}

/// The number of results in an ack response without errors: each is `{}`, or at least an object without nested objects.
fn results(body: &[u8]) -> usize {
    memchr::memchr_iter(b'{', body).count().saturating_sub(1)
}

//! The work that one connection repeats: publish (or echo), publish to many topics in turn, or a cycle of publish,
//! receive and settle. Every response is checked; an error is counted in the tally and fails the run.

mod settle;

use std::sync::Arc;
use std::time::Instant;

use memchr::memmem::Finder;

use crate::Result;
use crate::client::{Answer, Client};
use crate::requests::{ManyTopics, Pool};
use crate::run::Tally;
use crate::unique::{Numbers, UniquePool};
use crate::wire;

pub(crate) use settle::{Action, Subscription, acked};

/// A kind of load; cloned for every connection.
#[derive(Clone)]
pub(crate) enum Flow {
    /// Any 2xx response is correct.
    Echo(Pool),
    /// The response must contain an id for each message.
    Publish(Pool),
    /// The same, and no message may be a duplicate.
    PublishUnique(UniquePool),
    /// One message to the next topic.
    Topics(ManyTopics),
    /// Publishes a batch, receives as many messages and acks the received ones.
    Cycle(Pool, Arc<Subscription>),
    /// A cycle that changes the visibility timeout of the received messages before it acks them.
    Extend(Pool, Arc<Subscription>),
    /// A cycle that nacks every tenth message, and acks it when it is delivered again. Only acked messages count.
    Nack(Pool, Arc<Subscription>),
}

/// One connection and its counts.
pub(crate) struct Worker {
    pub(crate) client: Client,
    pub(crate) tally: Tally,
    at: usize,
    step: usize,
    numbers: Numbers,
    request: Vec<u8>,
    /// JSON items of the next request that settles.
    items: String,
    /// Messages received for the first time by a flow that nacks.
    first_times: u64,
}

impl Worker {
    /// `start` and `step` select which requests of a pool this connection sends.
    pub(crate) fn new(client: Client, tally: Tally, start: usize, step: usize) -> Self {
        Self {
            client,
            tally,
            at: start,
            step,
            numbers: Numbers::new(),
            request: Vec::new(),
            items: String::new(),
            first_times: 0,
        }
    }

    /// One round of the flow. After an error the connection is unusable.
    pub(crate) async fn turn(&mut self, flow: &Flow) -> Result<()> {
        self.at = self.at.wrapping_add(self.step);
        match flow {
            Flow::Echo(pool) => self.echo(pool).await,
            Flow::Publish(pool) => self.publish(pool, pool.batch).await,
            Flow::PublishUnique(pool) => self.publish_unique(pool).await,
            Flow::Topics(topics) => self.publish_to_next(topics).await,
            Flow::Cycle(pool, subscription) => {
                self.publish(pool, pool.batch).await?;
                let count = self.receive(subscription, pool.batch).await?;
                self.ack(subscription, count).await
            }
            Flow::Extend(pool, subscription) => {
                self.publish(pool, pool.batch).await?;
                let count = self.receive_to_extend(subscription, pool.batch).await?;
                self.extend(subscription, count).await?;
                self.ack(subscription, count).await
            }
            Flow::Nack(pool, subscription) => {
                self.publish(pool, 0).await?;
                let (count, nacked) = self.receive_to_nack(subscription, pool.batch).await?;
                self.settle(subscription, count, nacked).await
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

    /// `counted` is the number of messages in the tally: none when they count as soon as they are acked.
    async fn publish(&mut self, pool: &Pool, counted: usize) -> Result<()> {
        let started = Instant::now();
        let answer = self.client.send(pool.get(self.at)).await?;
        self.tally
            .check(published(&answer, pool.batch), || answer.describe());
        self.tally.request(started, counted);
        self.tally.published += pool.batch as u64;
        Ok(())
    }

    async fn publish_unique(&mut self, pool: &UniquePool) -> Result<()> {
        pool.write(self.at, &mut self.numbers, &mut self.request);
        let started = Instant::now();
        let answer = self.client.send(&self.request).await?;
        let is_new = published(&answer, pool.batch) && !has_duplicate(answer.body);
        self.tally.check(is_new, || answer.describe());
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
}

fn published(answer: &Answer<'_>, batch: usize) -> bool {
    let ids = wire::strings_of(answer.body, &Finder::new(br#""id":""#)).count();
    answer.is_success() && ids == batch && !has_error(answer.body)
}

fn has_error(body: &[u8]) -> bool {
    Finder::new(br#""error":"#).find(body).is_some()
}

/// The field is absent when it is false.
fn has_duplicate(body: &[u8]) -> bool {
    Finder::new(br#""duplicate":true"#).find(body).is_some()
}

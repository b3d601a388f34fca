//! The loads of the yardstick, as near to ours as Redis Streams allow: a publish is one round trip of pipelined `XADD`
//! for the batch; a cycle is a publish, an `XREADGROUP` of as many entries, and their `XACK` and `XDEL`, so that memory
//! stays bounded. Three round trips, as our cycle has three requests.

use std::sync::Arc;
use std::time::Instant;

use super::ratio::Kind;
use crate::Result;
use crate::bodies::{self, Random};
use crate::redis::Redis;
use crate::requests;
use crate::resp::{self, Connection, Replies};
use crate::run::{Outcome, Plan, Repeat, Tally, repeat};
use crate::scenario::Context;

const STREAM: &[u8] = b"bench";
const GROUP: &[u8] = b"bench";

/// Measures a fresh server.
pub(crate) async fn outcome(
    context: &Context,
    kind: Kind,
    plan: Plan,
    batch: usize,
) -> Result<Outcome> {
    let server = Redis::start(&context.args).await?;
    let create = resp::command(&[b"XGROUP", b"CREATE", STREAM, GROUP, b"0", b"MKSTREAM"]);
    Connection::open(server.address)
        .await?
        .send(&create, 1)
        .await?;
    let publishes = publishes(batch);
    let mut consumers = Vec::with_capacity(plan.connections);
    for at in 0..plan.connections {
        consumers.push(Consumer {
            connection: Connection::open(server.address).await?,
            tally: Tally::default(),
            kind,
            batch,
            publishes: publishes.clone(),
            at,
            step: plan.connections,
            read: read(at, batch),
            acks: Vec::new(),
        });
    }
    let mut outcome = repeat(plan, consumers, &[]).await?;
    let (published, acked) = (outcome.tally.published, outcome.tally.acked);
    outcome
        .tally
        .check(kind == Kind::Publish || published == acked, || {
            format!("published {published}, acked {acked}")
        });
    Ok(outcome)
}

/// Pipelined publishes of the bodies that our pool has.
fn publishes(batch: usize) -> Arc<Vec<Vec<u8>>> {
    let mut random = Random(batch as u64);
    let mut publish = || {
        let body = bodies::order(&mut random);
        resp::command(&[b"XADD", STREAM, b"*", b"body", body.as_bytes()])
    };
    let pool = (0..requests::pool_size(batch)).map(|_| {
        let adds: Vec<Vec<u8>> = (0..batch).map(|_| publish()).collect();
        adds.concat()
    });
    Arc::new(pool.collect())
}

fn read(consumer: usize, batch: usize) -> Vec<u8> {
    let (consumer, count) = (consumer.to_string(), batch.to_string());
    resp::command(&[
        b"XREADGROUP",
        b"GROUP",
        GROUP,
        consumer.as_bytes(),
        b"COUNT",
        count.as_bytes(),
        b"STREAMS",
        STREAM,
        b">",
    ])
}

/// One connection and its counts.
struct Consumer {
    connection: Connection,
    tally: Tally,
    kind: Kind,
    batch: usize,
    publishes: Arc<Vec<Vec<u8>>>,
    at: usize,
    step: usize,
    read: Vec<u8>,
    acks: Vec<u8>,
}

impl Repeat for Consumer {
    async fn turn(&mut self) -> Result<()> {
        self.at = self.at.wrapping_add(self.step);
        self.publish().await?;
        match self.kind {
            Kind::Publish => Ok(()),
            Kind::Cycle => {
                let count = self.receive().await?;
                self.ack(count).await
            }
        }
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }
}

impl Consumer {
    async fn publish(&mut self) -> Result<()> {
        let publish = &self.publishes[self.at % self.publishes.len()];
        let started = Instant::now();
        let replies = self.connection.send(publish, self.batch).await?;
        let ids = replies.texts().len();
        self.tally
            .check(ids == self.batch, || format!("{ids} ids of a publish"));
        self.tally.request(started, self.batch);
        self.tally.published += self.batch as u64;
        Ok(())
    }

    /// Writes the commands that settle the received entries, and returns the number of entries.
    async fn receive(&mut self) -> Result<usize> {
        let started = Instant::now();
        let replies = self.connection.send(&self.read, 1).await?;
        let count = ids(&replies).count();
        self.acks.clear();
        for words in [&[b"XACK", STREAM, GROUP][..], &[b"XDEL", STREAM]] {
            resp::begin(&mut self.acks, words.len() + count);
            for word in words.iter().copied().chain(ids(&replies)) {
                resp::push(&mut self.acks, word);
            }
        }
        self.tally.request(started, 0);
        self.tally.received += count as u64;
        self.tally.short_receives += u64::from(count < self.batch);
        Ok(count)
    }

    async fn ack(&mut self, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let started = Instant::now();
        // The numbers of acked and of deleted entries.
        let sum = self.connection.send(&self.acks, 2).await?.sum;
        let acked = sum == 2 * count as u64;
        self.tally
            .check(acked, || format!("{sum} acked and deleted of {count}"));
        self.tally.request(started, 0);
        self.tally.acked += if acked { count as u64 } else { 0 };
        Ok(())
    }
}

/// The ids of received entries: after the name of the stream, each has an id, the name of its field and its body.
fn ids<'a>(replies: &Replies<'a>) -> impl Iterator<Item = &'a [u8]> {
    replies.texts().skip(1).step_by(3)
}

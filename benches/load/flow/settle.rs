//! Receives and what follows them: ack, a change of the visibility timeout, and a mix of ack and nack. A receive writes
//! the items of the next request right from the response, so that no receipt is copied twice.

use std::time::Instant;

use memchr::memmem::Finder;

use super::{Worker, has_error};
use crate::Result;
use crate::client::Answer;
use crate::requests::Server;
use crate::wire;

/// One of so many messages is nacked when it is received for the first time.
const NACKED_OF: u64 = 10;

/// The prepared requests of one subscription.
pub(crate) struct Subscription {
    receive: Vec<u8>,
    path: String,
    server: Server,
}

/// What happens to all messages of a receive.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    Ack,
    DeadLetter,
}

impl Subscription {
    pub(crate) fn new(server: &Server, name: &str, max_messages: usize) -> Self {
        Self {
            receive: server.receive(name, max_messages, 1),
            path: format!("/v1/subscriptions/{name}"),
            server: server.clone(),
        }
    }

    /// A request with a list of JSON items.
    fn request(&self, verb: &str, list: &str, items: &str) -> Vec<u8> {
        let path = [&self.path, "/", verb].concat();
        let body = [r#"{""#, list, r#"":["#, items, "]}"].concat();
        self.server.request("POST", &path, &body)
    }

    fn ack(&self, receipts: &str) -> Vec<u8> {
        self.request("ack", "receipts", receipts)
    }

    fn settle(&self, items: &str) -> Vec<u8> {
        self.request("settle", "items", items)
    }
}

impl Worker {
    /// Receives once, keeps the receipts and returns the number of messages.
    pub(crate) async fn receive(
        &mut self,
        subscription: &Subscription,
        wanted: usize,
    ) -> Result<usize> {
        self.receive_as(subscription, wanted, push_receipts).await
    }

    pub(super) async fn receive_to_extend(
        &mut self,
        subscription: &Subscription,
        wanted: usize,
    ) -> Result<usize> {
        self.receive_as(subscription, wanted, push_changes).await
    }

    /// Returns the number of messages, and of those to nack.
    pub(super) async fn receive_to_nack(
        &mut self,
        subscription: &Subscription,
        wanted: usize,
    ) -> Result<(usize, usize)> {
        let (mut first_times, mut nacked) = (self.first_times, 0);
        // The receive is larger than the batch, so that redeliveries do not leave messages behind.
        let wanted_with_nacked = wanted + 1;
        let count = self
            .receive_as(subscription, wanted_with_nacked, |items, body| {
                push_settles(items, body, &mut first_times, &mut nacked)
            })
            .await?;
        self.first_times = first_times;
        Ok((count, nacked))
    }

    /// Receives once, and returns the request that settles the messages and their number.
    pub(crate) async fn receive_then(
        &mut self,
        subscription: &Subscription,
        wanted: usize,
        action: Action,
    ) -> Result<(Vec<u8>, usize)> {
        match action {
            Action::Ack => {
                let count = self.receive(subscription, wanted).await?;
                Ok((subscription.ack(&self.items), count))
            }
            Action::DeadLetter => {
                let push = push_dead_letters;
                let count = self.receive_as(subscription, wanted, push).await?;
                Ok((subscription.settle(&self.items), count))
            }
        }
    }

    /// Receives once, writes the items of the next request and returns their number.
    async fn receive_as(
        &mut self,
        subscription: &Subscription,
        wanted: usize,
        write: impl FnOnce(&mut String, &[u8]) -> Result<usize>,
    ) -> Result<usize> {
        let started = Instant::now();
        let answer = self.client.send(&subscription.receive).await?;
        self.items.clear();
        let count = write(&mut self.items, answer.body)?;
        self.tally
            .check(answer.is_success() && count <= wanted, || answer.describe());
        self.tally.request(started, 0);
        self.tally.received += count as u64;
        self.tally.short_receives += u64::from(count < wanted);
        Ok(count)
    }

    /// Changes the visibility timeout of the messages of the last receive, and keeps their new receipts.
    pub(super) async fn extend(&mut self, subscription: &Subscription, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.request = subscription.request("visibility", "changes", &self.items);
        let started = Instant::now();
        let answer = self.client.send(&self.request).await?;
        self.items.clear();
        let extended = push_receipts(&mut self.items, answer.body)?;
        let all = answer.is_success() && extended == count && !has_error(answer.body);
        self.tally.check(all, || answer.describe());
        self.tally.request(started, 0);
        Ok(())
    }

    /// Acks the receipts of the last receive. The response must have as many results, none of them an error.
    pub(crate) async fn ack(&mut self, subscription: &Subscription, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.request = subscription.ack(&self.items);
        let started = Instant::now();
        let answer = self.client.send(&self.request).await?;
        let acked = acked(&answer, count);
        self.tally.check(acked, || answer.describe());
        self.tally.request(started, 0);
        self.tally.acked += if acked { count as u64 } else { 0 };
        Ok(())
    }

    /// Settles the messages of the last receive, of which `nacked` are nacked.
    pub(super) async fn settle(
        &mut self,
        subscription: &Subscription,
        count: usize,
        nacked: usize,
    ) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.request = subscription.settle(&self.items);
        let started = Instant::now();
        let answer = self.client.send(&self.request).await?;
        let settled = acked(&answer, count);
        self.tally.check(settled, || answer.describe());
        self.tally.request(started, count - nacked);
        if settled {
            self.tally.acked += (count - nacked) as u64;
            self.tally.nacked += nacked as u64;
        }
        Ok(())
    }
}

/// Writes an item for each receipt of a response and returns their number.
fn push_each(
    items: &mut String,
    body: &[u8],
    mut push: impl FnMut(&mut String, &str),
) -> Result<usize> {
    let mut count = 0;
    for receipt in wire::strings_of(body, &Finder::new(br#""receipt":""#)) {
        if count > 0 {
            items.push(',');
        }
        push(items, std::str::from_utf8(receipt)?);
        count += 1;
    }
    Ok(count)
}

fn push_receipts(items: &mut String, body: &[u8]) -> Result<usize> {
    push_each(items, body, |items, receipt| {
        push_item(items, "\"", receipt, "\"");
    })
}

fn push_changes(items: &mut String, body: &[u8]) -> Result<usize> {
    const CHANGE: &str = r#"{"visibility_timeout_seconds":60,"receipt":""#;
    push_each(items, body, |items, receipt| {
        push_item(items, CHANGE, receipt, r#""}"#);
    })
}

fn push_dead_letters(items: &mut String, body: &[u8]) -> Result<usize> {
    const DEAD_LETTER: &str = r#"{"action":"dead_letter","receipt":""#;
    push_each(items, body, |items, receipt| {
        push_item(items, DEAD_LETTER, receipt, r#""}"#);
    })
}

/// Nacks one of [`NACKED_OF`] messages received for the first time, and acks the others.
fn push_settles(
    items: &mut String,
    body: &[u8],
    first_times: &mut u64,
    nacked: &mut usize,
) -> Result<usize> {
    const ACK: &str = r#"{"action":"ack","receipt":""#;
    const NACK: &str = r#"{"action":"nack","delay_seconds":0,"receipt":""#;
    let attempt = Finder::new(br#""attempt":"#);
    let mut attempts = wire::numbers_of(body, &attempt);
    push_each(items, body, |items, receipt| {
        let is_first = attempts.next() == Some(1);
        *first_times += u64::from(is_first);
        let nacks = is_first && first_times.is_multiple_of(NACKED_OF);
        *nacked += usize::from(nacks);
        push_item(items, if nacks { NACK } else { ACK }, receipt, r#""}"#);
    })
}

fn push_item(items: &mut String, before: &str, receipt: &str, after: &str) {
    items.push_str(before);
    items.push_str(receipt);
    items.push_str(after);
}

/// Whether every receipt of an ack was accepted.
pub(crate) fn acked(answer: &Answer<'_>, count: usize) -> bool {
    answer.is_success() && !has_error(answer.body) && results(answer.body) == count
}

/// The number of results in an ack response without errors: each is `{}`, or at least an object without nested objects.
fn results(body: &[u8]) -> usize {
    memchr::memchr_iter(b'{', body).count().saturating_sub(1)
}

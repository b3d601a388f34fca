//! Publishes with an id that no other publish has, as a `dedup_id` in the body or as an `Idempotency-Key`. Requests are
//! prepared with a blank for the number of each id, which is written when the request is sent. The rest of an id is
//! random for each pool, so that ids differ between rounds and runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memchr::memmem::Finder;
use serde_json::json;

use crate::bodies::{self, Random};
use crate::requests::{self, Server};

/// Takes the place of a number. No body contains it.
const BLANK: &str = "################";
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A pool of publishes for one URL; cheap to clone.
#[derive(Clone)]
pub(crate) struct UniquePool {
    requests: Arc<Vec<Blanks>>,
    /// Messages in each request.
    pub(crate) batch: usize,
}

/// A request and the positions of its numbers.
struct Blanks {
    request: Vec<u8>,
    numbers: Vec<usize>,
}

impl UniquePool {
    /// JSON batches in which each message has a `dedup_id`.
    pub(crate) fn with_dedup_ids(to: &Server, topic: &str, batch: usize) -> Self {
        let path = format!("/v1/topics/{topic}/messages/batch");
        let id = blank_id();
        Self::made(batch, |random| {
            let message = || json!({ "body": bodies::order(random), "dedup_id": id });
            to.request("POST", &path, &requests::json_batch(batch, message))
        })
    }

    /// Raw publishes with an `Idempotency-Key`, which is a quoted string (RFC 8941).
    pub(crate) fn with_keys(to: &Server, topic: &str) -> Self {
        let path = format!("/v1/topics/{topic}/messages");
        let header = format!("idempotency-key: \"{}\"\r\n", blank_id());
        Self::made(1, |random| {
            let mut request = to.head_with("POST", &path, &header, bodies::BODY_BYTES);
            request.extend_from_slice(bodies::order(random).as_bytes());
            request
        })
    }

    fn made(batch: usize, request: impl Fn(&mut Random) -> Vec<u8>) -> Self {
        let mut random = Random(batch as u64);
        let blank = Finder::new(BLANK);
        let requests = (0..requests::pool_size(batch)).map(|_| {
            let request = request(&mut random);
            let numbers = blank.find_iter(&request).collect();
            Blanks { request, numbers }
        });
        Self {
            requests: Arc::new(requests.collect()),
            batch,
        }
    }

    /// Writes the request number `at` with new ids into `request`.
    pub(crate) fn write(&self, at: usize, numbers: &mut Numbers, request: &mut Vec<u8>) {
        let blanks = &self.requests[at % self.requests.len()];
        request.clear();
        request.extend_from_slice(&blanks.request);
        for at in &blanks.numbers {
            numbers.write_next(&mut request[*at..*at + BLANK.len()]);
        }
    }
}

fn blank_id() -> String {
    format!("{:016x}-{BLANK}", rand::random::<u64>())
}

/// The numbers of one connection, which no other connection of this process has.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new() -> Self {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        Self(CONNECTIONS.fetch_add(1, Ordering::Relaxed) << 32)
    }

    /// Writes the next number as hexadecimal digits.
    fn write_next(&mut self, digits: &mut [u8]) {
        self.0 += 1;
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 0xf)];
        }
    }
}

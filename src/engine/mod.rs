//! The rules of Cursus, one verb a file. `http` and `worker` call in here; only here are transactions opened.

pub mod collect;
pub mod delivery;
pub mod duty;
mod error;
pub mod expire;
pub mod offload;
pub mod payload;
pub mod rotate;

use api::list::Page;
use api::message::{Published, ReceiveRequest};
use api::settle::Outcome;
use api::subscription::{Subscription, SubscriptionSettings, SubscriptionStats};
use api::topic::{Topic, TopicSettings, TopicStats};
use api::{MessageId, SubscriptionName, TopicName};
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use delivery::{Delivery, StoredMessage};
pub use error::Error;
use payload::{Meta, Records};

/// A tenant that was looked up by its key, or the only one of the embedded mode (I7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tenant(pub(crate) i64);

/// Messages of one publish, checked and encoded; an invalid one keeps its place among its neighbours.
#[derive(Debug, Default)]
pub struct Drafts {
    /// The valid ones.
    pub records: Records,
    /// One per item in order; the valid ones stand in `records` in the same order.
    pub items: Vec<Draft>,
}

/// One item of [`Drafts`].
#[derive(Debug)]
pub enum Draft {
    /// Encoded into the records, with its `dedup_id` if it has one.
    Valid(Option<String>),
    /// Refused before it came this far.
    Refused(Error),
}

/// An `Idempotency-Key` and what it was sent with.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The key, unquoted, 1 to 255 characters.
    pub key: String,
    /// SHA-256 of the request body.
    pub fingerprint: [u8; 32],
}

/// What to do with a message.
#[derive(Debug, Clone)]
pub enum Action {
    /// Done.
    Ack,
    /// Hand it out again after some seconds.
    Nack {
        /** Seconds. */
        delay_seconds: u32,
    },
    /// Hide it for some seconds from now; the subscription's timeout when `None`.
    Extend {
        /** Seconds. */
        visibility_seconds: Option<u32>,
    },
    /// Move it to the dead-letter topic.
    DeadLetter {
        /** Why. */
        reason: Option<String>,
    },
}

/// Where a browse begins.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// The oldest kept message.
    Start,
    /// The first message published at or after a time.
    Time(api::Timestamp),
    /// A message, itself included.
    Message(MessageId),
    /// After a message.
    After(MessageId),
}

/// A body as a stream.
pub struct BodyStream {
    /// Its media type.
    pub content_type: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its bytes.
    pub stream: BoxStream<'static, Result<Bytes, Error>>,
}

/// A part of the service and why it is not ready, if it is not.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// `database`, `object_storage`, …
    pub part: &'static str,
    /// What is missing.
    pub missing: Option<String>,
}

/// The engine of one node.
#[derive(Debug, Clone)]
pub struct Engine {}

#[expect(
    unused_variables,
    clippy::todo,
    clippy::unused_async,
    reason = "skeleton"
)]
impl Engine {
    /// The tenant of an API key (`None`: the request has none).
    pub async fn authenticate(&self, key: Option<&str>) -> Result<Tenant, Error> {
        todo!()
    }
    /// Creates or updates; true when created.
    pub async fn put_topic(
        &self,
        tenant: Tenant,
        name: &TopicName,
        settings: &TopicSettings,
    ) -> Result<(Topic, bool), Error> {
        todo!()
    }
    /// One topic.
    pub async fn topic(&self, tenant: Tenant, name: &TopicName) -> Result<Topic, Error> {
        todo!()
    }
    /// A page of topics by name.
    pub async fn topics(
        &self,
        tenant: Tenant,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Topic>, Error> {
        todo!()
    }
    /// Deletes a topic nobody needs.
    pub async fn delete_topic(&self, tenant: Tenant, name: &TopicName) -> Result<(), Error> {
        todo!()
    }
    /// How full it is.
    pub async fn topic_stats(&self, tenant: Tenant, name: &TopicName) -> Result<TopicStats, Error> {
        todo!()
    }
    /// Creates or updates; true when created.
    pub async fn put_subscription(
        &self,
        tenant: Tenant,
        name: &SubscriptionName,
        settings: &SubscriptionSettings,
    ) -> Result<(Subscription, bool), Error> {
        todo!()
    }
    /// One subscription.
    pub async fn subscription(
        &self,
        tenant: Tenant,
        name: &SubscriptionName,
    ) -> Result<Subscription, Error> {
        todo!()
    }
    /// A page of subscriptions by name.
    pub async fn subscriptions(
        &self,
        tenant: Tenant,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Subscription>, Error> {
        todo!()
    }
    /// Deletes a subscription with its leases.
    pub async fn delete_subscription(
        &self,
        tenant: Tenant,
        name: &SubscriptionName,
    ) -> Result<(), Error> {
        todo!()
    }
    /// How it stands.
    pub async fn subscription_stats(
        &self,
        tenant: Tenant,
        name: &SubscriptionName,
    ) -> Result<SubscriptionStats, Error> {
        todo!()
    }
    /// Publishes; one result per draft, in order. The outer error is for the whole request.
    pub async fn publish(
        &self,
        tenant: Tenant,
        topic: &TopicName,
        drafts: Drafts,
        key: Option<IdempotencyKey>,
    ) -> Result<Vec<Result<Published, Error>>, Error> {
        todo!()
    }
    /// Publishes one message whose body is over the hot limit, streaming it to object storage. `key` is the bare
    /// idempotency key; the fingerprint is taken on the way. A stream error means that the client went away or sent too much.
    pub async fn publish_stream(
        &self,
        tenant: Tenant,
        topic: &TopicName,
        meta: Meta<'_>,
        key: Option<String>,
        body: BoxStream<'static, Result<Bytes, Error>>,
    ) -> Result<Published, Error> {
        todo!()
    }
    /// Hands out messages; waits up to `wait_seconds`. Empty when nothing came or the node drains.
    pub async fn receive(
        &self,
        tenant: Tenant,
        subscription: &SubscriptionName,
        request: ReceiveRequest,
    ) -> Result<Vec<Delivery>, Error> {
        todo!()
    }
    /// Settles; one result per item, in order.
    pub async fn settle(
        &self,
        tenant: Tenant,
        subscription: &SubscriptionName,
        items: Vec<(&str, Action)>,
    ) -> Result<Vec<Result<Outcome, Error>>, Error> {
        todo!()
    }
    /// One message, not consumed.
    pub async fn message(&self, tenant: Tenant, id: MessageId) -> Result<StoredMessage, Error> {
        todo!()
    }
    /// The body of one message.
    pub async fn message_body(&self, tenant: Tenant, id: MessageId) -> Result<BodyStream, Error> {
        todo!()
    }
    /// Messages of a topic from a place on, and the `next` cursor.
    pub async fn browse(
        &self,
        tenant: Tenant,
        topic: &TopicName,
        from: From,
        limit: u32,
    ) -> Result<(Vec<StoredMessage>, Option<String>), Error> {
        todo!()
    }
    /// Whether all parts answer.
    pub async fn readiness(&self) -> Vec<Readiness> {
        todo!()
    }
    /// Largest body or batch kept in Postgres, in bytes; larger ones go through [`Engine::publish_stream`] or an object.
    pub fn hot_limit_bytes(&self) -> usize {
        todo!()
    }
    /// The metrics of this node in the Prometheus text format.
    pub fn metrics_text(&self) -> String {
        todo!()
    }
}

//! A sample message that is sent to an endpoint on request, so that its owner sees what it gets and answers. It is no
//! message of the topic: nothing is leased, settled or counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use api::push::PushTest;
use api::{SubscriptionName, Timestamp};
use bytes::Bytes;

use crate::engine::Engine;
use crate::engine::access::Tenant;
use crate::engine::error::Error;
use crate::engine::log::block::{Block, Delivery, StoredMessage};
use crate::engine::log::payload::{Meta, Payload, Records};
use crate::engine::push::answer;
use crate::engine::push::endpoint::Endpoint;
use crate::engine::push::request;
use crate::outbound::HeaderMap;
use crate::store::{self, Era, LaneId, Offset};

/// Body of the sample.
const BODY: &[u8] = br#"{"test":true,"from":"cursus"}"#;
/// Receipt of the sample, which settles nothing.
const RECEIPT: &str = "receipt-of-a-test";
/// Shown in place of a secret.
const HIDDEN: &str = "***";

impl Engine {
    /// Sends a sample to the endpoint of a subscription, also when it is paused or disabled.
    ///
    /// # Errors
    /// When the subscription does not exist or is not pushed, or the database is unavailable.
    pub async fn test_push(
        &self,
        tenant: Tenant,
        name: &SubscriptionName,
    ) -> Result<PushTest, Error> {
        let subscriber = self
            .catalog()
            .subscriber(self.store(), tenant, name)
            .await?;
        let mut session = self.store().session().await?;
        let rows = store::push_endpoint::of_subscriptions(&mut session, &[subscriber.id]).await?;
        drop(session);
        let row = rows.into_iter().next().ok_or_else(|| {
            Error::Conflict(format!("subscription {name} has no endpoint: set push.url"))
        })?;
        let endpoint = Endpoint::of(row)?;
        let at = self.clock().estimate();
        let deliveries = [sample(&subscriber.topic, subscriber.topic_id, at.into())?];
        let post = request::of(&endpoint, &deliveries, at)?;
        let mut request_headers = shown(&post.headers);
        if let Some(value) = request_headers.get_mut("authorization") {
            HIDDEN.clone_into(value);
        }
        let mut test = PushTest {
            url: post.url.to_string(),
            request_headers,
            request_body: String::from_utf8_lossy(&post.body).into_owned(),
            status: None,
            answer_headers: BTreeMap::new(),
            answer_body: None,
            error: None,
            duration_seconds: 0.0,
            accepted: false,
        };
        let began = Instant::now();
        let result = self.outbound().deliver(post).await;
        test.duration_seconds = began.elapsed().as_secs_f64();
        match result {
            Ok(reply) => {
                test.accepted = answer::verdict(&reply, at).is_accepted();
                test.status = Some(reply.status);
                test.answer_headers = shown(&reply.headers);
                test.answer_body = answer::start_of(&reply.body);
            }
            Err(error) => test.error = Some(error.to_string()),
        }
        Ok(test)
    }
}

/// Headers as text.
fn shown(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        (name.to_string(), value.into_owned())
    });
    text.collect()
}

/// A message that is in no topic.
fn sample(
    topic: &Arc<api::TopicName>,
    topic_id: store::TopicId,
    at: Timestamp,
) -> Result<Delivery, Error> {
    let mut records = Records::default();
    let meta = Meta {
        content_type: Some("application/json"),
        ..Meta::default()
    };
    records.push(&meta, BODY);
    let payload = Bytes::from(records.to_payload(Era::FIRST));
    let bytes = payload.len() as u64;
    let block = Block {
        lane: LaneId::new(0),
        first_offset: Offset::new(0),
        published_at: at,
        is_cold: false,
        payload: Payload::parse(payload, bytes).map_err(|_| Error::Internal)?,
    };
    Ok(Delivery {
        receipt: RECEIPT.to_owned(),
        message: StoredMessage {
            block: Arc::new(block),
            index: 0,
            topic: topic.clone(),
            topic_id,
        },
        attempt: 1,
        visible_until: at,
    })
}

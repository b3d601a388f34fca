//! One request to an endpoint: a place on the node, the request, its answer. And what the answer means for the messages
//! of the request, for the endpoint, and for those who watch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Timestamp;
use api::push::PushRetry;
use api::usage::Meter;
use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::limit::Capacity;
use crate::engine::log::block::Delivery;
use crate::engine::push::answer::{self, Verdict};
use crate::engine::push::attempts::Attempt;
use crate::engine::push::drive::Drive;
use crate::engine::push::endpoint::Endpoint;
use crate::engine::push::flow::Ended;
use crate::engine::push::{request, retry};
use crate::engine::receive::Action;
use crate::outbound::{self, Reply};

/// Why an endpoint is disabled that answered 410.
const GONE: &str = "answered with status 410";
/// Seconds after which a message is sent again that an endpoint did not take because it is gone.
const GONE_SECONDS: u32 = 60;

/// A request that is to be sent.
pub(super) struct Send {
    pub(super) engine: Engine,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) deliveries: Vec<Delivery>,
    /// It is not sent after this instant, because its lease may be over before the answer.
    pub(super) until: Instant,
}

/// A request that has ended.
pub(super) struct Sent {
    endpoint: Arc<Endpoint>,
    deliveries: Vec<Delivery>,
    at: OffsetDateTime,
    took: Duration,
    /// `None`: it was not sent.
    result: Option<Result<Reply, outbound::Error>>,
}

impl Sent {
    /// The receipts of its messages.
    pub(super) fn receipts(&self) -> impl Iterator<Item = String> {
        self.deliveries.iter().map(|one| one.receipt.clone())
    }
}

impl Send {
    /// Sends it.
    pub(super) async fn run(self) -> Sent {
        let tenant = self.endpoint.row.tenant_id.get();
        let until = self.until.into();
        let place = async {
            self.endpoint.rate_permit().await;
            self.engine.push().places.enter(tenant).await
        };
        let place = tokio::time::timeout_at(until, place).await;
        let (at, began) = (self.engine.clock().estimate(), Instant::now());
        let post = request::of(&self.endpoint, &self.deliveries, at);
        let result = match (place, post) {
            (Ok(place), Ok(post)) => {
                let result = self.engine.outbound().deliver(post).await;
                drop(place);
                Some(result)
            }
            _ => None,
        };
        Sent {
            endpoint: self.endpoint,
            deliveries: self.deliveries,
            at,
            took: began.elapsed(),
            result,
        }
    }
}

/// How long its lease hides a message from this time on.
fn hidden_for(delivery: &Delivery, at: OffsetDateTime) -> Duration {
    let hidden = delivery.visible_until.0 - Timestamp::from(at).0;
    Duration::from_micros(hidden.max(0).unsigned_abs())
}

impl Drive {
    /// Takes the end of a request over.
    pub(super) fn take(&mut self, sent: Sent) {
        let Some(result) = &sent.result else {
            if self.order.is_some() {
                return self.take_in_order(&sent, None);
            }
            self.flow.left_out();
            for delivery in &sent.deliveries {
                self.due_after(hidden_for(delivery, sent.at));
            }
            return;
        };
        let (verdict, ended) = match result {
            Ok(reply) => {
                let mut verdict = answer::verdict(reply, sent.at);
                if sent.endpoint.row.version != self.endpoint.row.version
                    && verdict == Verdict::Gone
                {
                    // What is gone is the endpoint before a change.
                    verdict = Verdict::Again { pause: None };
                }
                (verdict, answer::ended(reply, verdict))
            }
            Err(_) => (
                Verdict::Again { pause: None },
                Ended::Trouble { pause: None },
            ),
        };
        let is_accepted = verdict.is_accepted();
        self.flow.ended(ended, sent.took, Instant::now());
        self.flow.count(is_accepted);
        self.watch(&sent, result, is_accepted);
        if verdict == Verdict::Gone {
            self.control.status.disable(GONE.to_owned());
        }
        if self.order.is_some() {
            return self.take_in_order(&sent, Some(verdict));
        }
        for delivery in &sent.deliveries {
            let action = match verdict {
                Verdict::Done => Action::Ack,
                Verdict::Later => {
                    self.due_after(hidden_for(delivery, sent.at));
                    continue;
                }
                Verdict::Gone => Action::Nack {
                    delay_seconds: GONE_SECONDS,
                },
                Verdict::Again { pause } => self.again(&sent.endpoint, delivery, result, pause),
            };
            self.answered.push((delivery.receipt.clone(), action));
        }
    }

    /// What is done with a message that was not taken.
    fn again(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
        result: &Result<Reply, outbound::Error>,
        pause: Option<Duration>,
    ) -> Action {
        let standard = PushRetry::Standard;
        let policy = endpoint.settings.retry.as_ref().unwrap_or(&standard);
        let next = retry::next(policy, delivery.attempt);
        let settings = self.subscriber.settings();
        let is_last =
            next.is_last || delivery.attempt >= u32::from(settings.max_attempts.unsigned_abs());
        if is_last && settings.dead_letter_topic_id.is_some() {
            return Action::DeadLetter {
                reason: Some(answer::reason(result)),
            };
        }
        let asked = pause.map(|pause| u32::try_from(pause.as_secs()).unwrap_or(u32::MAX));
        Action::Nack {
            delay_seconds: next.pause(asked.map(|seconds| seconds.min(retry::ASKED_SECONDS_MAX))),
        }
    }

    /// Records the end of a request for those who watch, and for the bill. What is sent to a sink costs nothing, and a sink
    /// is never disabled for failing.
    fn watch(&self, sent: &Sent, result: &Result<Reply, outbound::Error>, is_accepted: bool) {
        let push = self.engine.push();
        push.metrics.ended(result, sent.took);
        let mut failing_since = None;
        if is_accepted {
            self.control.status.succeeded(sent.at);
        } else {
            let short = answer::in_short(result);
            failing_since = Some(self.control.status.failed(sent.at, short));
        }
        self.control.status.of_flow(&self.flow);
        if self.order.is_some() {
            return;
        }
        if is_accepted {
            let (meter, capacity) = (Meter::DeliverPush, Capacity::Guaranteed);
            self.engine
                .count(&self.subscriber, &sent.deliveries, meter, capacity);
        }
        let longest = sent.endpoint.disable_after();
        if failing_since.is_some_and(|since| sent.at - since > longest) {
            let seconds = longest.whole_seconds();
            let reason = format!("every request has failed for {seconds} seconds");
            self.control.status.disable(reason);
        }
        for delivery in &sent.deliveries {
            push.attempts.add(
                self.subscriber.id,
                Attempt::of(delivery, sent.at, sent.took, result),
            );
        }
    }
}

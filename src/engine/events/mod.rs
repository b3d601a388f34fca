//! Events of the service: CloudEvents that are sent to the sinks of tenants, at least once. The transaction that makes
//! a change also stores an event of it for each sink that wants it ([`emit`]). The duty `events` of the room `bill`
//! publishes stored events to the topics of sinks (`relay`). The id of an event is computed from its content, so an event that is made or sent
//! again has the same id.
//!
//! `sinks` has the settings of sinks, `transport` the topic and the push subscription by which a sink with a URL gets its
//! events. `endpoints` makes events of endpoints that were disabled.

pub mod endpoints;
mod relay;
mod sinks;
mod transport;

use api::Timestamp;
use api::event::EventKind;
use api::limits::EVENTS_HELD_MAX;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::hex;
use crate::store::event_outbox::{self, Frame, NewEvent};
use crate::store::{self, Session, TenantId};

pub use relay::{SinkRun, claim, settle, waiting};

/// Bytes of the hash that are used as an id.
const ID_BYTES: usize = 16;

/// Label of metrics: the kind of sink.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Target {
    /// `topic` or `url`.
    pub target: &'static str,
}

const AT_TOPIC: Target = Target { target: "topic" };
const AT_URL: Target = Target { target: "url" };

/// Metrics of events.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Events that were delivered.
    pub delivered: Family<Target, Counter>,
    /// Attempts that failed.
    pub failed: Family<Target, Counter>,
}

impl Metrics {
    /// Attempts that URLs did not take. The room `push` counts them.
    #[must_use]
    pub fn failed_at_url(&self) -> Counter {
        self.failed.get_or_create(&AT_URL).clone()
    }

    /// Adds them to a registry that prefixes `cursus`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "events_delivered",
            "Events that sinks took",
            self.delivered.clone(),
        );
        registry.register(
            "events_failed_attempts",
            "Attempts to deliver events that sinks did not take",
            self.failed.clone(),
        );
    }
}

/// A change that concerns a tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// The kind of change.
    pub kind: EventKind,
    /// Distinguishes it from other events of its kind and tenant. Part of the input of the id.
    pub identity: &'a [&'a str],
    /// When it happened.
    pub at: OffsetDateTime,
    /// Details: a JSON object.
    pub data: Value,
}

/// Stores an event of a tenant for all sinks that want it, in the transaction that makes the change. While an event
/// waits, the same event is not stored again. A caller that could make the event again later must store that it was
/// made.
///
/// # Errors
/// When the database is unavailable.
pub async fn emit(
    session: &mut Session,
    tenant: TenantId,
    event: &Event<'_>,
) -> Result<(), store::Error> {
    let frame = event_outbox::frame(session, tenant).await?;
    let kind = event.kind.as_str();
    let event = framed(&frame, event);
    event_outbox::emit(session, tenant, kind, &event, EVENTS_HELD_MAX.into()).await
}

/// The complete event (CloudEvents 1.0, JSON format).
pub(in crate::engine) fn framed(frame: &Frame, event: &Event<'_>) -> NewEvent {
    let id = id(&frame.tenant, event);
    let text = json!({
        "specversion": "1.0",
        "type": event.kind.event_type(),
        "id": id,
        "time": Timestamp::from(event.at).to_string(),
        "source": format!("urn:uuid:{}", frame.installation_id),
        "subject": frame.tenant,
        "datacontenttype": "application/json",
        "data": event.data,
    });
    NewEvent {
        id,
        text: text.to_string(),
    }
}

/// The id of an event: the first bytes of the SHA-256 of kind, tenant and identity, each with its length before it. In
/// hexadecimal, because Standard Webhooks allows no `.` in an id.
fn id(tenant: &str, event: &Event<'_>) -> String {
    let mut hash = Sha256::new();
    let parts = [event.kind.as_str(), tenant].into_iter();
    for part in parts.chain(event.identity.iter().copied()) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..ID_BYTES])
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    fn of(tenant: &str, identity: &[&str]) -> NewEvent {
        let frame = Frame {
            installation_id: Uuid::nil(),
            tenant: tenant.to_owned(),
        };
        let event = Event {
            kind: EventKind::Budget,
            identity,
            at: datetime!(2030-01-01 0:00 UTC),
            data: json!({"threshold": "50"}),
        };
        framed(&frame, &event)
    }

    #[test]
    fn an_event_is_a_cloud_event() {
        let event = of("a.b", &["monthly", "50"]);
        let value: Value = serde_json::from_str(&event.text).unwrap();
        let expected = json!({
            "specversion": "1.0", "type": "cursus.budget", "id": event.id, "time": "2030-01-01T00:00:00.000Z",
            "source": "urn:uuid:00000000-0000-0000-0000-000000000000", "subject": "a.b",
            "datacontenttype": "application/json", "data": {"threshold": "50"},
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn ids_are_the_same_for_the_same_and_differ_by_every_part() {
        let first = of("a", &["b", "c"]).id;
        assert_eq!(first, of("a", &["b", "c"]).id);
        assert!(first.len() == 32 && !first.contains('.'));
        for (tenant, identity) in [
            ("a", &["bc", ""][..]),
            ("a", &["b"]),
            ("a", &["b", "c", ""]),
            ("ab", &["", "c"]),
        ] {
            assert_ne!(of(tenant, identity).id, first, "{tenant} {identity:?}");
        }
    }
}

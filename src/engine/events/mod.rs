//! Events of the service: CloudEvents that go to the sinks of tenants, at least once. The transaction of what happened stores
//! an event for every sink that wants it ([`emit`]), and the duty `events` of the room `bill` delivers what is stored
//! (`deliver`). Ids are computed from what happened, so an event that is made or sent again is the same event.
//!
//! `sinks` is what tenants and operators set, `sign` the signatures of requests.

mod deliver;
mod sign;
mod sinks;

use api::Timestamp;
use api::event::EventKind;
use api::limits::EVENTS_HELD_MAX;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::hex;
use crate::store::event_outbox::{self, Frame, NewEvent, Waiting};
use crate::store::{self, Session};

pub use deliver::{Delivery, claim, waiting};

/// Bytes of the hash of what happened that make an id.
const ID_BYTES: usize = 16;

/// Label of what goes to a kind of sink.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Target {
    /// `topic` or `url`.
    pub target: &'static str,
}

/// What is counted of events.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Events delivered.
    pub delivered: Family<Target, Counter>,
    /// Attempts that failed.
    pub failed: Family<Target, Counter>,
}

/// Something that happened to a tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// What it is.
    pub kind: EventKind,
    /// Distinguishes it from other events of its kind and tenant: the id is computed from it.
    pub identity: &'a [&'a str],
    /// When it happened.
    pub at: OffsetDateTime,
    /// More of it: a JSON object.
    pub data: Value,
}

/// Stores an event of a tenant for all sinks that want it, in the transaction of what happened. While an event waits, the
/// same event is not stored again; a caller that could make it again later must remember that it was made.
///
/// # Errors
/// When the database does not answer.
pub async fn emit(
    session: &mut Session,
    tenant: i64,
    event: &Event<'_>,
) -> Result<(), store::Error> {
    let frame = event_outbox::frame(session, tenant).await?;
    let kind = event.kind.as_str();
    let event = framed(&frame, event);
    event_outbox::emit(session, (tenant, kind), &event, EVENTS_HELD_MAX.into()).await
}

/// The whole event (CloudEvents 1.0, JSON format).
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

/// The beginning of the SHA-256 of what the event is about, in hexadecimal: Standard Webhooks allows no `.` in an id. The
/// length before each part separates the parts.
fn id(tenant: &str, event: &Event<'_>) -> String {
    let mut hash = Sha256::new();
    let parts = [event.kind.as_str(), tenant].into_iter();
    for part in parts.chain(event.identity.iter().copied()) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..ID_BYTES])
}

/// The id of a request with several events: the same again for the same events.
fn batch_id(events: &[Waiting]) -> String {
    let mut hash = Sha256::new();
    for event in events {
        hash.update(&event.event_id);
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

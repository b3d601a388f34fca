//! Duty `endpoint_events`: makes an event of each endpoint that was disabled. The node that disables an endpoint only
//! says so in its row; the event and the mark that it was made commit together.

use std::time::Duration;

use api::Timestamp;
use api::event::EventKind;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::engine::events::{Event, emit};
use crate::store::push_driver;

/// Endpoints of one transaction.
const LIMIT: i64 = 100;

/// The duty.
#[derive(Debug)]
pub struct EndpointEvents;

impl Duty for EndpointEvents {
    const NAME: &'static str = "endpoint_events";
    const BUSY: Duration = Duration::from_secs(5);
    const IDLE: Duration = Duration::from_secs(10);

    /// Returns the number of endpoints.
    async fn run(&mut self, context: &Context, _: &CancellationToken) -> Result<Done, DutyError> {
        let mut tx = context.store.tx("endpoint_events").await?;
        let disabled = push_driver::disabled(&mut tx, LIMIT).await?;
        for endpoint in &disabled {
            let at = Timestamp::from(endpoint.disabled_at).to_string();
            let event = Event {
                kind: EventKind::Endpoint,
                identity: &[&endpoint.subscription, &at],
                at: endpoint.disabled_at,
                data: json!({
                    "subscription": endpoint.subscription,
                    "reason": endpoint.disabled_reason,
                }),
            };
            emit(&mut tx, endpoint.tenant_id, &event).await?;
        }
        let ids: Vec<_> = disabled.iter().map(|one| one.subscription_id).collect();
        if !ids.is_empty() {
            push_driver::told(&mut tx, &ids).await?;
            tx.commit().await?;
        }
        Ok(Done {
            count: ids.len() as u64,
            more: i64::try_from(ids.len()).unwrap_or(i64::MAX) == LIMIT,
        })
    }
}

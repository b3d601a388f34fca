//! The admission of a request to the quota of its tenant. The extractor that learns the tenant stores it in a slot of
//! the request. `layer` takes it out with the response, writes the rate limit headers, and holds it until the last byte
//! of a streamed body. If no tenant has a quota, requests have no slot.

use std::sync::{Arc, OnceLock};

use axum::body::{Body, HttpBody};
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::StreamExt;

use super::held::Held;
use crate::engine::quota::Admission;
use crate::engine::{Capacity, Engine, Tenant};
use crate::http::answer::problem::Refusal;
use crate::http::answer::throttle::QuotaTexts;

/// Holds the admission of one request. It is dropped with the request.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Slot(Arc<OnceLock<Admission>>);

/// Admits the request if the tenant's quota allows, and, if it `yields`, the shortage of the service; and returns the
/// capacity that serves it. A long body is counted as the tenant's from here on.
pub(in crate::http) async fn admit(
    parts: &Parts,
    engine: &Engine,
    tenant: Tenant,
    yields: bool,
) -> Result<Capacity, Refusal> {
    if let Some(held) = parts.extensions.get::<Held>() {
        held.belongs_to(tenant);
    }
    let Some(slot) = parts.extensions.get::<Slot>() else {
        return Ok(Capacity::Guaranteed);
    };
    let Some(admission) = engine.quotas().admit(tenant, yields).await? else {
        return Ok(Capacity::Guaranteed);
    };
    let capacity = admission.capacity();
    // The slot is empty: only one extractor of a request admits it.
    let _ = slot.0.set(admission);
    Ok(capacity)
}

impl Slot {
    /// Writes the rate limit headers, and holds the admission while the response streams.
    pub(in crate::http) fn finish(self, texts: &QuotaTexts, response: &mut Response) {
        let Some(admission) = self.0.get() else {
            return;
        };
        texts.put(response.headers_mut(), &admission.standing());
        if response.body().size_hint().exact().is_none() {
            let body = std::mem::replace(response.body_mut(), Body::empty());
            let held = body.into_data_stream().inspect(move |_| {
                let _admission = &self;
            });
            *response.body_mut() = Body::from_stream(held);
        }
    }
}

//! The admission of a request on its way through the layers: the extractor that knows the tenant puts it in, `manners` takes
//! it out when the answer is there, tells the tenant what is left, and holds it until the last byte of a body that streams.
//! There is none in an installation without quotas.

use std::sync::{Arc, OnceLock};

use axum::body::{Body, HttpBody};
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::StreamExt;

use crate::engine::quota::Admission;
use crate::engine::{Capacity, Engine, Tenant};
use crate::http::answer::problem::Refusal;
use crate::http::answer::throttle::QuotaTexts;

/// Where the admission of one request goes. Dropped with the request, whatever becomes of it.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Slot(Arc<OnceLock<Admission>>);

/// Lets the request in, if the tenant's quota allows, and answers what it is served from.
pub(in crate::http) async fn admit(
    parts: &Parts,
    engine: &Engine,
    tenant: Tenant,
) -> Result<Capacity, Refusal> {
    let Some(slot) = parts.extensions.get::<Slot>() else {
        return Ok(Capacity::Guaranteed);
    };
    let Some(admission) = engine.quotas().admit(tenant).await? else {
        return Ok(Capacity::Guaranteed);
    };
    let capacity = admission.capacity();
    // A second extractor of the same request would be let in twice: there is none.
    let _ = slot.0.set(admission);
    Ok(capacity)
}

impl Slot {
    /// Tells the tenant what is left, and holds the admission for as long as the answer streams.
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

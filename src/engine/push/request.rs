//! stub
use crate::engine::error::Error;
use crate::engine::log::block::Delivery;
use crate::engine::push::endpoint::Endpoint;
use crate::outbound::{HeaderMap, Post};
use bytes::Bytes;
use std::time::Duration;
use time::OffsetDateTime;
pub fn of(
    endpoint: &Endpoint,
    deliveries: &[Delivery],
    _at: OffsetDateTime,
) -> Result<Post, Error> {
    let view = deliveries
        .first()
        .and_then(|d| d.message.view())
        .and_then(|v| v.body().map(Bytes::copy_from_slice));
    Ok(Post {
        url: endpoint.url.clone(),
        headers: HeaderMap::new(),
        body: view.unwrap_or_default(),
        timeout: Duration::ZERO,
    })
}

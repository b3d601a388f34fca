//! What the URL of a sink gets: events as they were made, in structured mode, one or a list. Nothing is added, because
//! nothing else of their messages concerns the receiver.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::lines::Lines;
use super::{BATCH_ID_BYTES, CONTENT_TYPE, Parts};
use crate::engine::error::Error;
use crate::engine::log::block::Delivery;
use crate::hex;

/// Content type of several events in a list.
const BATCH: &str = "application/cloudevents-batch+json";
/// The attribute of a message that is the id of its event.
const ID: &str = "ce-id";

/// The value of `webhook-id` and the body: an event and its id, or a list and the hash of its ids.
pub(super) fn of(
    deliveries: &[Delivery],
    is_batch: bool,
    lines: &mut Lines,
) -> Result<(String, Bytes), Error> {
    let events: Result<Vec<Parts<'_>>, Error> = deliveries.iter().map(Parts::of).collect();
    let events = events?;
    if let ([event], false) = (events.as_slice(), is_batch) {
        lines.plain(&CONTENT_TYPE, event.content_type());
        return Ok((id(event).to_owned(), event.body_as_published(lines)));
    }
    let mut hash = Sha256::new();
    let mut body = vec![b'['];
    for (index, event) in events.iter().enumerate() {
        hash.update(id(event));
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event.body().unwrap_or_default());
    }
    body.push(b']');
    lines.plain(&CONTENT_TYPE, BATCH);
    let id = hex::encode(&hash.finalize()[..BATCH_ID_BYTES]);
    Ok((id, Bytes::from(body)))
}

fn id<'a>(event: &Parts<'a>) -> &'a str {
    let attributes = event.meta.attributes.iter();
    let mut ids = attributes.filter(|(name, _)| *name == ID);
    ids.next().map_or("", |(_, id)| *id)
}

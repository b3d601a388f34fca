//! Statistics of the customers of a fair subscription: their messages in leases, and their position in the line. Called
//! by `resources`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use api::fairness::{FairnessItem, FairnessStats};
use api::limits::FAIRNESS_SHOWN_MAX;
use time::OffsetDateTime;

use crate::engine::error::Error;
use crate::engine::order::fair::line::{Line, OTHERS, Weights};
use crate::engine::subscriber::Subscriber;
use crate::store::{self, Session};

/// Statistics by customer; `None` when the subscription is not fair. Reads all of its leases once, and one row per
/// lane.
pub async fn stats(
    session: &mut Session,
    subscriber: &Subscriber,
    now: Option<OffsetDateTime>,
) -> Result<Option<FairnessStats>, Error> {
    if !subscriber.is_fair() {
        return Ok(None);
    }
    let lanes = subscriber.lanes.all();
    let rows = store::fairness::list(session, subscriber.id, &lanes).await?;
    let counted = store::lease_waiting::of_keys(session, now, subscriber.id, &lanes).await?;
    let weights = Weights::of_subscriber(subscriber);
    let mut items: BTreeMap<i64, FairnessItem> = BTreeMap::new();
    for line in rows.into_iter().map(Line::of) {
        add_line(&line, &weights, &mut items);
    }
    for counted in counted {
        if let Some(item) = items.get_mut(&counted.order_key) {
            item.waiting = counted.waiting.unsigned_abs();
            item.in_flight = counted.in_flight.unsigned_abs();
        }
    }
    let keys = items.len() as u64;
    let mut items: Vec<FairnessItem> = items.into_values().collect();
    items.sort_by_key(|item| (Reverse(item.waiting), Reverse(item.in_flight)));
    items.truncate(FAIRNESS_SHOWN_MAX);
    Ok(Some(FairnessStats { keys, items }))
}

/// Adds the customers of one lane.
fn add_line(line: &Line, weights: &Weights, items: &mut BTreeMap<i64, FairnessItem>) {
    for (slot, customer) in line.customers() {
        let name = customer.name.as_deref();
        let new = || FairnessItem {
            key: customer.name.clone(),
            others: slot == OTHERS,
            weight: u32::try_from(weights.get(name)).unwrap_or(1),
            ..FairnessItem::default()
        };
        let item = items.entry(customer.order_key).or_insert_with(new);
        item.handed_out += customer.handed_out.unsigned_abs();
        let next_in = line.next_in(slot, weights);
        item.next_in = match (item.next_in, next_in) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

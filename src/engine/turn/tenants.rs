//! Who goes first when a turn cannot take all that gathered: what is guaranteed before what is not, and within each the
//! tenants in turns, by bytes. So a tenant that sends much waits for itself, and one that sends little waits for nobody.
//! Publishes of a tenant that are alike keep their order.

use std::collections::HashMap;

use crate::engine::limit::Capacity;
use crate::engine::turn::gather::Publish;

/// The publishes in the order in which they go.
pub(super) fn in_turns(publishes: Vec<Publish>) -> Vec<Publish> {
    let mut ahead: HashMap<(Capacity, i64), usize> = HashMap::new();
    let mut places: Vec<(Capacity, usize, Publish)> = Vec::with_capacity(publishes.len());
    for publish in publishes {
        // A publish stands behind those of its own tenant: the bytes of these are its place in the line.
        let of_tenant = ahead.entry((publish.capacity, publish.tenant)).or_default();
        let place = *of_tenant;
        *of_tenant += publish.content.queued_bytes();
        places.push((publish.capacity, place, publish));
    }
    places.sort_by_key(|(capacity, place, _)| (*capacity, *place));
    places.into_iter().map(|(.., publish)| publish).collect()
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::engine::turn::gather::Content;

    /// A publish whose lane is its number.
    fn publish(lane: i64, tenant: i64, capacity: Capacity, bytes: usize) -> Publish {
        let mut records = crate::engine::log::payload::Records::default();
        let meta = crate::engine::log::payload::Meta::default();
        records.push(&meta, &vec![0; bytes]);
        Publish {
            tenant,
            capacity,
            topic_id: tenant,
            lane,
            measure: records.measure(),
            content: Content::Records(records),
            reply: oneshot::channel().0,
        }
    }

    #[test]
    fn guaranteed_publishes_go_first_and_tenants_take_turns() {
        let (sure, free) = (Capacity::Guaranteed, Capacity::Elastic);
        let publishes = vec![
            publish(0, 1, free, 100),
            publish(1, 1, sure, 4_000),
            publish(2, 1, sure, 4_000),
            publish(3, 1, sure, 4_000),
            publish(4, 2, free, 100),
            publish(5, 2, sure, 100),
            publish(6, 2, sure, 100),
            publish(7, 3, sure, 6_000),
            publish(8, 3, sure, 100),
        ];
        let order: Vec<i64> = in_turns(publishes).iter().map(|one| one.lane).collect();
        assert_eq!(order, [1, 5, 7, 6, 2, 8, 3, 0, 4]);
    }
}

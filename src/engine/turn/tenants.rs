//! The order of publishes when a turn cannot take all of them. Guaranteed publishes go before elastic ones. Within each
//! kind, tenants alternate by bytes, so a tenant that sends much waits behind its own publishes, and a tenant that
//! sends little does not wait. Publishes of one tenant and one kind keep their order.

use std::collections::HashMap;

use crate::engine::limit::Capacity;
use crate::engine::turn::gather::Publish;
use crate::store::TenantId;

/// Sorts publishes into the order in which the turn takes them.
pub(super) fn alternate(publishes: Vec<Publish>) -> Vec<Publish> {
    let mut bytes_ahead: HashMap<(Capacity, TenantId), usize> = HashMap::new();
    let mut ordered: Vec<(Capacity, usize, Publish)> = Vec::with_capacity(publishes.len());
    for publish in publishes {
        // The sort key is the number of bytes that the same tenant has sent before this publish.
        let of_tenant = bytes_ahead
            .entry((publish.capacity, publish.tenant))
            .or_default();
        let ahead = *of_tenant;
        *of_tenant += publish.content.queued_bytes();
        ordered.push((publish.capacity, ahead, publish));
    }
    ordered.sort_by_key(|(capacity, ahead, _)| (*capacity, *ahead));
    ordered.into_iter().map(|(.., publish)| publish).collect()
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::engine::turn::gather::Content;
    use crate::store::{LaneId, TopicId};

    /// A publish that the test recognizes by its lane.
    fn publish(lane: i64, tenant: i64, capacity: Capacity, bytes: usize) -> Publish {
        let mut records = crate::engine::log::payload::Records::default();
        let meta = crate::engine::log::payload::Meta::default();
        records.push(&meta, &vec![0; bytes]);
        Publish {
            tenant: TenantId::new(tenant),
            capacity,
            topic_id: TopicId::new(tenant),
            lane: LaneId::new(lane),
            measure: records.measure(),
            content: Content::Records(records),
            keys: Vec::new(),
            is_free: false,
            reply: oneshot::channel().0,
        }
    }

    #[test]
    fn guaranteed_publishes_go_first_and_tenants_alternate() {
        let (guaranteed, elastic) = (Capacity::Guaranteed, Capacity::Elastic);
        let publishes = vec![
            publish(0, 1, elastic, 100),
            publish(1, 1, guaranteed, 4_000),
            publish(2, 1, guaranteed, 4_000),
            publish(3, 1, guaranteed, 4_000),
            publish(4, 2, elastic, 100),
            publish(5, 2, guaranteed, 100),
            publish(6, 2, guaranteed, 100),
            publish(7, 3, guaranteed, 6_000),
            publish(8, 3, guaranteed, 100),
        ];
        let lanes = alternate(publishes).into_iter().map(|one| one.lane.get());
        let order: Vec<i64> = lanes.collect();
        assert_eq!(order, [1, 5, 7, 6, 2, 8, 3, 0, 4]);
    }
}

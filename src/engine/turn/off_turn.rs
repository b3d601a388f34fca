//! The queue of subscriptions with an order of their own (`order`) whose receivers wait. Loops outside the turn take
//! from it. A subscription is never served by two loops at once; when it is queued again while it is served, it is
//! served once more. Bounded by the subscriptions that this node knows, because each is in the queue at most once.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::engine::inbox::Inbox;
use crate::engine::subscriber::Subscriber;
use crate::store::SubscriptionId;

/// The queue of subscriptions to be served outside the turn.
#[derive(Debug, Default)]
pub struct OffTurn {
    inbox: Inbox<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Arc<Subscriber>>,
    /// Ids of subscriptions to be served: those in the queue, and those to be queued when their present service ends.
    wanted: HashSet<SubscriptionId>,
    /// Ids of subscriptions that a loop serves now.
    served: HashSet<SubscriptionId>,
}

impl State {
    fn next(&mut self) -> Option<Arc<Subscriber>> {
        let next = self.queue.pop_front()?;
        self.wanted.remove(&next.id);
        self.served.insert(next.id);
        Some(next)
    }
}

impl OffTurn {
    /// Queues a subscription whose receivers want messages.
    pub fn want(&self, subscriber: &Arc<Subscriber>) {
        self.inbox.put_if(|state| {
            let is_new =
                state.wanted.insert(subscriber.id) && !state.served.contains(&subscriber.id);
            if is_new {
                state.queue.push_back(subscriber.clone());
            }
            is_new
        });
    }

    /// Waits for the next subscription to serve. The caller calls [`OffTurn::done`] afterwards.
    pub async fn take(&self) -> Arc<Subscriber> {
        self.inbox.take_one(State::next).await
    }

    /// Ends the service of a subscription; queues it again if it was wanted meanwhile.
    pub fn done(&self, subscriber: &Arc<Subscriber>) {
        self.inbox.put_if(|state| {
            state.served.remove(&subscriber.id);
            let is_wanted = state.wanted.contains(&subscriber.id);
            if is_wanted {
                state.queue.push_back(subscriber.clone());
            }
            is_wanted
        });
    }
}

#[cfg(test)]
mod tests {
    use api::TopicName;

    use super::*;
    use crate::store::LaneId;
    use crate::store::subscription::SubscriptionRow;

    fn subscriber(id: i64) -> Arc<Subscriber> {
        let topic: TopicName = "t".parse().unwrap();
        let row = SubscriptionRow {
            subscription_id: SubscriptionId::new(id),
            fairness_names: Some(Vec::new()),
            fairness_weights: Some(Vec::new()),
            ..SubscriptionRow::sample()
        };
        Arc::new(Subscriber::new(row, Arc::new(topic), vec![LaneId::new(1)]))
    }

    #[test]
    fn a_subscription_is_served_by_one_loop_and_again_when_it_is_wanted_meanwhile() {
        let (queue, one, two) = (OffTurn::default(), subscriber(1), subscriber(2));
        let next = || queue.inbox.with(State::next).map(|next| next.id.get());
        queue.want(&one);
        queue.want(&one);
        queue.want(&two);
        assert_eq!([next(), next(), next()], [Some(1), Some(2), None]);
        queue.want(&one);
        queue.want(&one);
        assert_eq!(next(), None);
        queue.done(&two);
        queue.done(&one);
        assert_eq!([next(), next()], [Some(1), None]);
        queue.done(&one);
        assert_eq!(next(), None);
    }
}

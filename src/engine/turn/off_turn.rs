//! Subscriptions of this node that have an order of their own (`order`) and whose receivers wait, in front of the loops that
//! serve them. One that is being served is served again if it is wanted meanwhile, and never by two loops at once. Bounded
//! by the subscriptions that the node knows: each is in the queue once.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::engine::inbox::Inbox;
use crate::engine::subscriber::Subscriber;

/// The queue.
#[derive(Debug, Default)]
pub struct OffTurn {
    inbox: Inbox<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Arc<Subscriber>>,
    wanted: HashSet<i64>,
    served: HashSet<i64>,
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
    /// Asks for messages for a subscription's receivers.
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

    /// The next one, as soon as there is one; [`OffTurn::done`] follows.
    pub async fn take(&self) -> Arc<Subscriber> {
        self.inbox.take_one(State::next).await
    }

    /// It was served.
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
    use crate::store::subscription::SubscriptionRow;

    fn subscriber(subscription_id: i64) -> Arc<Subscriber> {
        let topic: TopicName = "t".parse().unwrap();
        let row = SubscriptionRow {
            subscription_id,
            fairness_names: Some(Vec::new()),
            fairness_weights: Some(Vec::new()),
            ..SubscriptionRow::sample()
        };
        Arc::new(Subscriber::new(row, Arc::new(topic), vec![1]))
    }

    #[test]
    fn a_subscription_is_served_by_one_loop_and_again_when_it_is_wanted_meanwhile() {
        let (queue, one, two) = (OffTurn::default(), subscriber(1), subscriber(2));
        let next = || queue.inbox.with(State::next).map(|next| next.id);
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

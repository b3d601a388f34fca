//! Fair subscriptions of this node whose receivers wait, in front of the loops that serve them. One that is being served
//! is served again if it is wanted meanwhile, and never by two loops at once.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::subscriber::Subscriber;

/// The queue.
#[derive(Debug, Default)]
pub struct FairQueue {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Arc<Subscriber>>,
    wanted: HashSet<i64>,
    served: HashSet<i64>,
}

impl FairQueue {
    /// Asks for messages for a subscription's receivers.
    pub fn want(&self, subscriber: &Arc<Subscriber>) {
        let mut state = self.state.lock();
        if state.wanted.insert(subscriber.id) && !state.served.contains(&subscriber.id) {
            state.queue.push_back(subscriber.clone());
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// The next one, as soon as there is one; [`FairQueue::done`] follows.
    pub(super) async fn take(&self) -> Arc<Subscriber> {
        loop {
            if let Some(next) = self.take_now() {
                return next;
            }
            self.arrived.notified().await;
        }
    }

    fn take_now(&self) -> Option<Arc<Subscriber>> {
        let mut state = self.state.lock();
        let next = state.queue.pop_front()?;
        state.wanted.remove(&next.id);
        state.served.insert(next.id);
        if !state.queue.is_empty() {
            // Several may have come before a loop looked.
            self.arrived.notify_one();
        }
        Some(next)
    }

    /// It was served.
    pub(super) fn done(&self, subscriber: &Arc<Subscriber>) {
        let mut state = self.state.lock();
        state.served.remove(&subscriber.id);
        if state.wanted.contains(&subscriber.id) {
            state.queue.push_back(subscriber.clone());
            drop(state);
            self.arrived.notify_one();
        }
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
        let (queue, one, two) = (FairQueue::default(), subscriber(1), subscriber(2));
        let next = || queue.take_now().map(|next| next.id);
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
        assert!(one.is_fair() && one.half_of(3) + one.half_of(3) == 3 && one.half_of(4) == 2);
    }
}

//! An inbox between requests and background tasks. Requests put items in without waiting; a task takes them when it is
//! ready, and waits while there are none. Each user chooses the container (a list, a set, a queue) and bounds it (I9).

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A container of type `T` that tasks wait for.
#[derive(Debug, Default)]
pub struct Inbox<T> {
    held: Mutex<T>,
    arrived: Notify,
}

impl<T> Inbox<T> {
    /// Changes the container, and wakes one waiting task.
    pub fn put<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.held.lock());
        self.arrived.notify_one();
        result
    }

    /// Changes the container, and wakes one waiting task only when `change` returns true, which means that there is
    /// something new to take.
    pub fn put_if(&self, change: impl FnOnce(&mut T) -> bool) {
        if change(&mut self.held.lock()) {
            self.arrived.notify_one();
        }
    }

    /// Reads or changes the container without waking a task.
    pub fn with<R>(&self, access: impl FnOnce(&mut T) -> R) -> R {
        access(&mut self.held.lock())
    }

    /// Waits until `take` returns something, and returns it. For one task that takes everything.
    ///
    /// A wake-up without a waiting task is kept, but several are kept as one.
    pub async fn take<R>(&self, mut take: impl FnMut(&mut T) -> Option<R>) -> R {
        loop {
            let taken = take(&mut self.held.lock());
            if let Some(taken) = taken {
                return taken;
            }
            self.arrived.notified().await;
        }
    }

    /// The same for several tasks that take one item each. Wake-ups may have been merged into one, so a task that got
    /// an item wakes the next task.
    pub async fn take_one<R>(&self, take: impl FnMut(&mut T) -> Option<R>) -> R {
        let one = self.take(take).await;
        self.arrived.notify_one();
        one
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn each_of_several_tasks_gets_one_of_the_items_put_in_at_once() {
        let inbox: Arc<Inbox<VecDeque<u32>>> = Arc::default();
        let taker = || {
            let inbox = inbox.clone();
            tokio::spawn(async move { inbox.take_one(VecDeque::pop_front).await })
        };
        let (one, two) = (taker(), taker());
        tokio::task::yield_now().await;
        inbox.put(|held| held.extend([1, 2]));
        let mut taken = [one.await.unwrap(), two.await.unwrap()];
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
    }

    #[tokio::test]
    async fn an_item_put_in_before_a_task_waits_is_not_missed() {
        let inbox: Inbox<Vec<u32>> = Inbox::default();
        inbox.put_if(|held| {
            held.push(1);
            true
        });
        let all = |held: &mut Vec<u32>| (!held.is_empty()).then(|| std::mem::take(held));
        assert_eq!(inbox.take(all).await, [1]);
    }
}

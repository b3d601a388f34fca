//! An inbox: what gathers for a task that takes it when it is ready. Requests put things in without waiting; the tasks that
//! take wait until there is something. What is held, and how much of it at most (I9), says each user of it: a list, a set, a
//! queue with a limit.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Something of type `T` that gathers.
#[derive(Debug, Default)]
pub struct Inbox<T> {
    held: Mutex<T>,
    arrived: Notify,
}

impl<T> Inbox<T> {
    /// Changes what is held, and wakes a task that takes.
    pub fn put<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.held.lock());
        self.arrived.notify_one();
        result
    }

    /// Changes what is held, and wakes a task only when `change` returns true: there is something new to take.
    pub fn put_if(&self, change: impl FnOnce(&mut T) -> bool) {
        if change(&mut self.held.lock()) {
            self.arrived.notify_one();
        }
    }

    /// Reads or changes what is held without waking a task.
    pub fn with<R>(&self, access: impl FnOnce(&mut T) -> R) -> R {
        access(&mut self.held.lock())
    }

    /// Takes something as soon as `take` finds it. Several tasks may wait: a wake-up is kept when none does, but two are
    /// kept as one, so a task that finds something wakes the next.
    pub async fn take<R>(&self, mut take: impl FnMut(&mut T) -> Option<R>) -> R {
        loop {
            let taken = take(&mut self.held.lock());
            if let Some(taken) = taken {
                return taken;
            }
            self.arrived.notified().await;
        }
    }

    /// The same for an inbox from which several tasks take one thing each.
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
    async fn each_of_several_takers_gets_one_of_what_came_at_once() {
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
    async fn what_came_before_the_taker_is_not_missed() {
        let inbox: Inbox<Vec<u32>> = Inbox::default();
        inbox.put_if(|held| {
            held.push(1);
            true
        });
        let all = |held: &mut Vec<u32>| (!held.is_empty()).then(|| std::mem::take(held));
        assert_eq!(inbox.take(all).await, [1]);
    }
}

//! A turnstile: a bounded number of places (I9) that owners share fairly. Waiting owners enter in turns, and the
//! requests of one owner enter in their order. An owner that asks for 1,000 places queues behind itself; an owner that
//! asks for one place waits for at most one place of each other owner. No order helps against a place that is held for
//! long, such as one of a body as slow as its client; so the places of one owner can be bounded as well.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Owner of a place: a tenant's id, or [`SERVICE`].
pub type Owner = i64;

/// The service itself, for work on behalf of all tenants. Tenant ids begin at 1.
pub const SERVICE: Owner = 0;

/// Length of an owner's queue at which cancelled waiters are removed from it; again at each doubling.
const SWEEP_FROM: usize = 64;

/// The turnstile; clones share its places.
#[derive(Debug, Clone)]
pub struct Turnstile(Arc<Mutex<Places>>);

#[derive(Debug)]
struct Places {
    free: usize,
    of_one: usize,
    held: HashMap<Owner, usize>,
    /// Owners that wait, in the order in which they enter; each is listed once.
    turns: VecDeque<Owner>,
    waiting: HashMap<Owner, VecDeque<oneshot::Sender<Place>>>,
}

/// A place, held until it is dropped.
#[derive(Debug)]
pub struct Place {
    turnstile: Turnstile,
    owner: Owner,
}

impl Turnstile {
    /// A turnstile with `places` places, of which one owner holds at most `of_one`.
    #[must_use]
    pub fn new(places: usize, of_one: usize) -> Self {
        Self(Arc::new(Mutex::new(Places {
            free: places,
            of_one,
            held: HashMap::new(),
            turns: VecDeque::new(),
            waiting: HashMap::new(),
        })))
    }

    /// Waits for a place. Dropping the future leaves the queue.
    pub async fn enter(&self, owner: Owner) -> Place {
        let asked = {
            let mut places = self.0.lock();
            // This overtakes no other owner: an owner that waits while a place is free already holds all it may hold.
            if places.may_enter(owner) {
                places.take(owner);
                None
            } else {
                Some(places.enqueue(owner))
            }
        };
        match asked {
            None => self.place(owner),
            Some(asked) => match asked.await {
                Ok(place) => place,
                // A sender is dropped only after its receiver.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Whether an owner waits for a place. Includes those that gave up since a place became free.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        !self.0.lock().turns.is_empty()
    }

    fn place(&self, owner: Owner) -> Place {
        Place {
            turnstile: self.clone(),
            owner,
        }
    }
}

impl Places {
    fn may_enter(&self, owner: Owner) -> bool {
        self.free > 0 && self.held.get(&owner).copied().unwrap_or(0) < self.of_one
    }

    fn take(&mut self, owner: Owner) {
        self.free -= 1;
        *self.held.entry(owner).or_default() += 1;
    }

    fn give_back(&mut self, owner: Owner) {
        self.free += 1;
        if let Some(held) = self.held.get_mut(&owner) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&owner);
            }
        }
    }

    fn enqueue(&mut self, owner: Owner) -> oneshot::Receiver<Place> {
        let (sender, receiver) = oneshot::channel();
        let queue = self.waiting.entry(owner).or_default();
        if queue.is_empty() {
            self.turns.push_back(owner);
        } else if queue.len() >= SWEEP_FROM && queue.len().is_power_of_two() {
            queue.retain(|sender| !sender.is_closed());
        }
        queue.push_back(sender);
        receiver
    }

    /// The next waiter that may enter, if any. Its place is taken from here on.
    fn next(&mut self) -> Option<(Owner, oneshot::Sender<Place>)> {
        for _ in 0..self.turns.len() {
            let owner = self.turns.pop_front()?;
            if !self.may_enter(owner) {
                self.turns.push_back(owner);
                continue;
            }
            let Some(queue) = self.waiting.get_mut(&owner) else {
                continue;
            };
            let mut sender = queue.pop_front();
            while sender.as_ref().is_some_and(oneshot::Sender::is_closed) {
                sender = queue.pop_front();
            }
            if queue.is_empty() {
                self.waiting.remove(&owner);
            } else {
                self.turns.push_back(owner);
            }
            if let Some(sender) = sender {
                self.take(owner);
                return Some((owner, sender));
            }
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut next = {
            let mut places = self.turnstile.0.lock();
            places.give_back(self.owner);
            places.next()
        };
        while let Some((owner, sender)) = next {
            // If the waiter was cancelled just now, the place is returned and dropped here.
            let _ = sender.send(self.turnstile.place(owner));
            next = self.turnstile.0.lock().next();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Polls all waiters, and returns the places of those that entered, with their numbers.
    fn entered<F: Future<Output = Place> + Unpin>(line: &mut Vec<(i64, F)>) -> Vec<(i64, Place)> {
        let mut inside = Vec::new();
        line.retain_mut(|(number, asked)| match asked.now_or_never() {
            Some(place) => {
                inside.push((*number, place));
                false
            }
            None => true,
        });
        inside
    }

    fn ask(turnstile: &Turnstile, owner: Owner) -> impl Future<Output = Place> + Unpin + use<> {
        let turnstile = turnstile.clone();
        let mut asked = Box::pin(async move { turnstile.enter(owner).await });
        let first = asked.as_mut().now_or_never();
        Box::pin(async move {
            match first {
                Some(place) => place,
                None => asked.await,
            }
        })
    }

    #[test]
    fn owners_take_turns_and_each_keeps_its_order() {
        let turnstile = Turnstile::new(1, 1);
        let inside = turnstile.enter(9).now_or_never().unwrap();
        let asks = [1, 1, 1, 2, 3, 3].into_iter().zip(0..);
        let mut line: Vec<_> = asks
            .map(|(owner, at)| (owner * 10 + at, ask(&turnstile, owner)))
            .collect();
        assert!(entered(&mut line).is_empty());
        drop(inside);
        let mut order = Vec::new();
        while !line.is_empty() {
            let inside = entered(&mut line);
            assert_eq!(inside.len(), 1, "one place");
            order.push(inside[0].0);
        }
        assert_eq!(order, [10, 23, 34, 11, 35, 12]);
        assert!(
            turnstile.enter(1).now_or_never().is_some(),
            "it is free again"
        );
    }

    #[test]
    fn one_owner_leaves_places_to_others() {
        let turnstile = Turnstile::new(4, 3);
        let mut line: Vec<_> = (0..5).map(|number| (number, ask(&turnstile, 1))).collect();
        let mut inside = entered(&mut line);
        assert_eq!(inside.len(), 3);
        let other = turnstile.enter(2).now_or_never();
        assert!(other.is_some(), "there is a place for others");
        drop(other);
        assert!(entered(&mut line).is_empty(), "but not for the same");
        inside.remove(0);
        let more: Vec<i64> = entered(&mut line)
            .iter()
            .map(|(number, _)| *number)
            .collect();
        // One place became free, so exactly one more waiter entered.
        assert_eq!(more, [3]);
    }

    #[test]
    fn a_cancelled_waiter_is_skipped_and_its_place_goes_on() {
        let turnstile = Turnstile::new(1, 1);
        let inside = turnstile.enter(1).now_or_never().unwrap();
        let mut gone: Vec<_> = (0..1_000)
            .map(|number| (number, ask(&turnstile, 2)))
            .collect();
        let mut line = vec![(1, ask(&turnstile, 2)), (2, ask(&turnstile, 3))];
        assert!(turnstile.0.lock().waiting[&2].len() <= 1_001);
        gone.clear();
        for _ in 0..200 {
            drop(ask(&turnstile, 2));
        }
        assert!(
            turnstile.0.lock().waiting[&2].len() < 1_100,
            "they are swept"
        );
        drop(inside);
        let first = entered(&mut line);
        assert_eq!(first.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1]);
        // Given, but never taken: it goes on to the next.
        let given = ask(&turnstile, 4);
        drop(first);
        assert_eq!(entered(&mut line).len(), 1);
        drop(given);
        assert!(turnstile.enter(5).now_or_never().is_some());
        let places = turnstile.0.lock();
        assert!(places.waiting.is_empty() && places.held.is_empty() && places.turns.is_empty());
        assert_eq!(places.free, 1);
    }
}

//! The wait queue of a subscription's receivers on this node: first come, first served, of bounded length (I9).

use std::collections::VecDeque;

use api::limits::WAITING_RECEIVERS_MAX;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::engine::error::Error;
use crate::engine::limit::Limit;
use crate::engine::subscriber::Grant;

/// The result of a waiter: grants, maybe none.
pub type Served = Result<Vec<Grant>, Error>;

/// A receiver that waits for messages.
#[derive(Debug)]
pub struct Waiter {
    /// Messages it takes at most.
    pub wanted: u32,
    /// Visibility timeout in seconds.
    pub visibility_seconds: u32,
    /// Whether it takes only messages that are due again, because its tenant has too much in flight. It does not wait.
    pub due_only: bool,
    /// Whether it goes on waiting when there are no messages.
    pub patient: bool,
    /// Whether a claim has asked for it. Only then an empty claim means that there are no messages for it.
    pub asked: bool,
    /// Where its result goes.
    pub reply: oneshot::Sender<Served>,
}

impl Waiter {
    /// Whether its receiver has gone away.
    fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }
}

/// What the first receivers in the wait queue have in common. They are served together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Visibility timeout in seconds.
    pub visibility_seconds: u32,
    /// Whether they take only messages that are due again.
    pub due_only: bool,
}

impl Waiter {
    fn group(&self) -> Group {
        Group {
            visibility_seconds: self.visibility_seconds,
            due_only: self.due_only,
        }
    }
}

/// The wait queue.
#[derive(Debug, Default)]
pub struct Waiters {
    waiting: Mutex<VecDeque<Waiter>>,
}

impl Waiters {
    /// Adds a receiver at the end. Receivers that have gone away make room when the queue is full.
    ///
    /// # Errors
    /// When too many wait.
    pub(super) fn push(&self, waiter: Waiter) -> Result<(), Error> {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING_RECEIVERS_MAX {
            waiting.retain(|waiter| !waiter.is_gone());
            if waiting.len() >= WAITING_RECEIVERS_MAX {
                return Err(Error::Limited(Limit::Receivers));
            }
        }
        waiting.push_back(waiter);
        Ok(())
    }

    /// Whether no receiver waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// Calls `each` with the number of messages that each receiver of the first group wants, as long as it returns true,
    /// and returns the group. Removes receivers that have gone away, and marks all others as asked for.
    pub(super) fn ask_group(&self, mut each: impl FnMut(u32) -> bool) -> Option<Group> {
        let mut waiting = self.waiting.lock();
        waiting.retain_mut(|waiter| {
            waiter.asked = true;
            !waiter.is_gone()
        });
        let group = waiting.front()?.group();
        let _ = waiting
            .iter()
            .take_while(|waiter| waiter.group() == group)
            .all(|waiter| each(waiter.wanted));
        Some(group)
    }

    /// Takes the first receiver, if it is of this group.
    pub(super) fn pop(&self, group: Group) -> Option<Waiter> {
        let mut waiting = self.waiting.lock();
        let first = waiting.front()?;
        (first.group() == group).then(|| waiting.pop_front())?
    }

    /// Takes all receivers.
    pub(super) fn take_all(&self) -> VecDeque<Waiter> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Takes the receivers that do not wait for messages, if a claim has asked for them: all of them, or only those that
    /// take nothing but messages that are due again.
    pub(super) fn take_impatient(&self, due_only: bool) -> Vec<Waiter> {
        let mut waiting = self.waiting.lock();
        let (rest, impatient) = std::mem::take(&mut *waiting)
            .into_iter()
            .partition(|waiter| waiter.patient || !waiter.asked || (due_only && !waiter.due_only));
        *waiting = rest;
        Vec::from(impatient)
    }
}

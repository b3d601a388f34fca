//! The part of the node's budget for bodies that one request takes. `layer` makes it for requests whose body is long or
//! has no announced length, the extractor of the caller says whose it is, and reading the body takes from it. A publish
//! gives it back when its messages are encoded, because they count against the queue from there on; all others give it
//! back with the response.

use std::sync::{Arc, OnceLock};

use axum::body::HttpBody;
use axum::extract::Request;
use parking_lot::Mutex;

use crate::engine::held::{Budget, Share};
use crate::engine::{Error, Limit, Tenant};

/// A body up to this size is not counted.
pub(in crate::http) const SHORT_BYTES: usize = 64 << 10;

/// What one request takes of the budget.
#[derive(Clone)]
pub(in crate::http) struct Held(Arc<Inner>);

struct Inner {
    budget: Budget,
    /// How many times each byte of the body is held: the decoder of a coded body holds a window of it.
    weight: usize,
    tenant: OnceLock<Tenant>,
    share: Mutex<Option<Share>>,
}

impl Held {
    /// Attaches it to a request, unless its body is short.
    pub(in crate::http) fn of(
        request: &mut Request,
        budget: &Budget,
        is_coded: bool,
    ) -> Option<Self> {
        let upper = request.body().size_hint().upper();
        if upper.is_some_and(|bytes| bytes <= SHORT_BYTES as u64) {
            return None;
        }
        let held = Self(Arc::new(Inner {
            budget: budget.clone(),
            weight: if is_coded { 2 } else { 1 },
            tenant: OnceLock::new(),
            share: Mutex::default(),
        }));
        request.extensions_mut().insert(held.clone());
        Some(held)
    }

    /// The tenant whose request it is. Set once, before the body is read.
    pub(in crate::http) fn belongs_to(&self, tenant: Tenant) {
        let _ = self.0.tenant.set(tenant);
    }

    /// Gives back what was taken.
    pub(in crate::http) fn release(&self) {
        *self.0.share.lock() = None;
    }

    /// Takes `bytes` more.
    pub(in crate::http) fn take(&self, bytes: usize) -> Result<(), Error> {
        let Some(tenant) = self.0.tenant.get() else {
            // No route reads the body of a request without a caller.
            return Err(Error::Internal);
        };
        let mut share = self.0.share.lock();
        let share = share.get_or_insert_with(|| self.0.budget.share(tenant.0));
        if share.add(bytes * self.0.weight) {
            Ok(())
        } else {
            Err(Error::Limited(Limit::HeldBodies))
        }
    }
}

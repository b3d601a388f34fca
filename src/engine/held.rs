//! One budget for the bytes of bodies that a node holds for its clients: requests that are read and answers that are
//! written (I9). Short ones are not counted; their number is bounded by the connections. Blocks in the cache and
//! publishes that wait for a turn have bounds of their own. This file is a leaf: it uses no other module of the engine.
//!
//! Tenants share the budget by dynamic thresholds (Choudhury and Hahne, 1998): each may hold up to twice what is free.
//! A tenant alone can hold two thirds, two can hold two fifths each, and there is always room for one more tenant.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::store::TenantId;

/// A tenant may hold this many times what is free.
const THRESHOLD: usize = 2;

/// The budget; clones share it.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    held: Mutex<Holders>,
    bytes: Gauge,
}

impl Inner {
    fn note(&self, held: &Holders) {
        self.bytes.set(i64::try_from(held.all).unwrap_or(i64::MAX));
    }
}

#[derive(Debug, Default)]
struct Holders {
    all: usize,
    of: HashMap<TenantId, usize>,
}

impl Holders {
    /// Bytes that the tenant may take now.
    fn left(&self, tenant: TenantId, max: usize) -> usize {
        let free = max.saturating_sub(self.all);
        let own = self.of.get(&tenant).copied().unwrap_or(0);
        // What is taken is free no more: own + taken <= THRESHOLD * (free - taken).
        let by_share = (THRESHOLD * free).saturating_sub(own) / (THRESHOLD + 1);
        by_share.min(free)
    }
}

/// Bytes of one body, given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    tenant: TenantId,
    bytes: usize,
}

impl Budget {
    /// A budget of `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Inner {
            max,
            held: Mutex::default(),
            bytes: Gauge::default(),
        }))
    }

    /// An empty share of a tenant, to be increased.
    #[must_use]
    pub fn share(&self, tenant: TenantId) -> Share {
        Share {
            budget: self.clone(),
            tenant,
            bytes: 0,
        }
    }

    /// A share of up to `bytes`, and fewer or none when the tenant may not hold as many.
    #[must_use]
    pub fn share_of(&self, tenant: TenantId, bytes: usize) -> Share {
        let mut share = self.share(tenant);
        share.take(|left| left.min(bytes));
        share
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "held_body_bytes",
            "Bytes of request bodies and answers that this node holds, without short ones",
            self.0.bytes.clone(),
        );
    }
}

impl Share {
    /// Adds `bytes`; false when the tenant may not hold as many.
    #[must_use]
    pub fn add(&mut self, bytes: usize) -> bool {
        self.take(|left| if bytes <= left { bytes } else { 0 }) == bytes
    }

    /// Bytes of the share.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn take(&mut self, of_left: impl FnOnce(usize) -> usize) -> usize {
        let inner = &self.budget.0;
        let mut held = inner.held.lock();
        let taken = of_left(held.left(self.tenant, inner.max));
        if taken > 0 {
            held.all += taken;
            *held.of.entry(self.tenant).or_default() += taken;
            inner.note(&held);
        }
        self.bytes += taken;
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let inner = &self.budget.0;
        let mut held = inner.held.lock();
        held.all -= self.bytes;
        inner.note(&held);
        if let Some(of) = held.of.get_mut(&self.tenant) {
            *of -= self.bytes;
            if *of == 0 {
                held.of.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: TenantId = TenantId::new(1);

    #[test]
    fn a_tenant_alone_holds_two_thirds_and_the_next_one_still_finds_room() {
        let budget = Budget::new(900);
        let mut one = budget.share(ONE);
        assert!(one.add(600) && !one.add(1));
        let two = budget.share_of(TenantId::new(2), 900);
        assert_eq!(two.bytes(), 200);
        let three = budget.share_of(TenantId::new(3), 900);
        assert!(three.bytes() > 0);
        drop((one, two, three));
        let held = budget.0.held.lock();
        assert_eq!((held.all, held.of.len(), budget.0.bytes.get()), (0, 0, 0));
    }

    #[test]
    fn two_tenants_that_ask_for_all_end_with_equal_shares() {
        let budget = Budget::new(10_000);
        let mut shares = [budget.share(ONE), budget.share(TenantId::new(2))];
        // Bodies of 100 bytes come and go.
        for _ in 0..1_000 {
            for share in &mut shares {
                while share.add(100) {}
            }
            let (a, b) = (shares[0].bytes(), shares[1].bytes());
            let most = usize::from(b > a);
            let tenant = shares[most].tenant;
            let less = shares[most].bytes() - 100;
            shares[most] = budget.share(tenant);
            let _ = shares[most].add(less);
        }
        let (a, b) = (shares[0].bytes(), shares[1].bytes());
        assert!(a.abs_diff(b) <= 200 && a + b <= 8_000, "{a} {b}");
    }

    #[test]
    fn a_share_never_exceeds_the_budget() {
        let budget = Budget::new(10);
        let shares: Vec<_> = (0..100)
            .map(|tenant| budget.share_of(TenantId::new(tenant), 10))
            .collect();
        let all: usize = shares.iter().map(Share::bytes).sum();
        assert!(all <= 10);
    }
}

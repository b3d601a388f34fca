//! The checks that the verbs of the engine call before they act: concurrent requests and the request rate for every
//! request, messages and bytes for a publish, and the caps on what is kept, handed out or created. A refused call takes
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use api::quota::RateQuota;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::engine::access::Tenant;
use crate::engine::error::Error;
use crate::engine::limit::{Capacity, Limit, Policy, Violation};
use crate::engine::quota::limited::{Limited, Rate, Standing};
use crate::engine::quota::{Quotas, nanos_since};
use crate::store::quota::QuotaRow;
use crate::store::{self, Session};

/// Suggested seconds until the next try, where the real time is not known.
const SOON_SECONDS: u32 = 1;
/// The same for caps where only a deletion or retention makes room.
const LATER_SECONDS: u32 = 60;

/// An admitted request of a limited tenant. It counts as a concurrent request until this is dropped.
#[derive(Debug)]
pub struct Admission {
    limited: Arc<Limited>,
    capacity: Capacity,
    /// When it was admitted, in the time of the buckets.
    at: u64,
}

impl Admission {
    /// Whether the request is inside the guarantee.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// The tenant's quota, and what is left of it on this node, at the time of the request.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.limited.standing(self.at)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.limited.concurrency.end();
    }
}

/// What a request takes of a rate.
struct RateUse {
    policy: Policy,
    quota: Option<RateQuota>,
    items: u64,
    /// Whether it is refused above the guarantee while the service is short of capacity.
    yields: bool,
}

/// What an admitted publish has taken of its tenant's rates.
#[derive(Debug, Clone, Default)]
pub struct PublishAdmission {
    limited: Option<Arc<Limited>>,
    /// `None` when neither messages nor bytes have a rate.
    capacity: Option<Capacity>,
    messages: TakenItems,
    bytes: TakenItems,
}

/// The items taken of a rate, and whether they are inside the guarantee.
type TakenItems = (u64, Capacity);

impl PublishAdmission {
    /// Whether the publish is inside the guarantee. Its messages and bytes decide when they have a rate, and otherwise
    /// the capacity of its request does.
    pub fn capacity(&self, of_request: Capacity) -> Capacity {
        self.capacity.unwrap_or(of_request)
    }

    /// Gives back what a failed publish took, unless the error leaves open whether it was stored.
    pub fn failed(&self, error: &Error) {
        let is_open = matches!(error, Error::Unavailable(_) | Error::Internal);
        if let Some(limited) = self.limited.as_ref().filter(|_| !is_open) {
            limited.messages.give_back(self.messages.0, self.messages.1);
            limited.bytes.give_back(self.bytes.0, self.bytes.1);
        }
    }

    /// Adds the bytes of a publish to what the tenant keeps.
    pub fn stored(&self, bytes: usize) {
        if let Some(limited) = &self.limited {
            limited.stored.moved(i64::try_from(bytes).unwrap_or(0));
        }
    }
}

impl Quotas {
    /// Admits a request of a tenant, if its limits allow; `None` when it has no limits.
    ///
    /// # Errors
    /// When a limit refuses it, when it `yields` and is above the guarantee while the service is short of capacity, or when the
    /// database does not respond.
    pub async fn admit(&self, tenant: Tenant, yields: bool) -> Result<Option<Admission>, Error> {
        let Some(limited) = self.limited(tenant).await? else {
            return Ok(None);
        };
        let quota = limited.quota();
        self.wake(&limited);
        if !limited.concurrency.begin() {
            let policy = Policy::ConcurrentRequests;
            return Err(self.exceeded(policy, quota.concurrent_requests, SOON_SECONDS));
        }
        let at = self.now();
        // From here on, dropping it ends the concurrent request.
        let mut admission = Admission {
            limited,
            capacity: Capacity::Guaranteed,
            at,
        };
        let one = RateUse {
            policy: Policy::Requests,
            quota: quota.requests_per_second,
            items: 1,
            yields,
        };
        admission.capacity = self.take(&admission.limited.requests, one, at)?;
        Ok(Some(admission))
    }

    /// Takes items of a rate, or refuses them.
    fn take(&self, rate: &Rate, wanted: RateUse, now: u64) -> Result<Capacity, Error> {
        let RateUse {
            policy,
            items,
            yields,
            ..
        } = wanted;
        let quota = wanted.quota.unwrap_or_default();
        let capacity = rate.take(items, now).map_err(|wait| {
            // Rounded up, so that there is room by then.
            let seconds = wait
                .saturating_add(Duration::from_nanos(999_999_999))
                .as_secs();
            let again = u32::try_from(seconds).unwrap_or(u32::MAX).max(SOON_SECONDS);
            self.exceeded(policy, quota.ceiling, again)
        })?;
        if yields && capacity == Capacity::Elastic && self.is_short() {
            rate.give_back(items, capacity);
            let violation = self.count_refused(Violation {
                policy,
                quota: quota.guaranteed.unwrap_or(0),
                used: None,
                again_seconds: SOON_SECONDS,
            });
            return Err(Error::Limited(Limit::Guarantee(violation)));
        }
        Ok(capacity)
    }

    /// Admits a publish with this number of messages and bytes, all or nothing.
    pub fn admit_publish(
        &self,
        tenant: Tenant,
        messages: usize,
        bytes: usize,
    ) -> Result<PublishAdmission, Error> {
        let Some(limited) = self.limited_before(tenant) else {
            return Ok(PublishAdmission::default());
        };
        self.check_stopped(&limited)?;
        let (quota, now) = (limited.quota(), self.now());
        let (messages, bytes) = (messages as u64, bytes as u64);
        if let Some((cap, used)) = limited.stored.check()
            && used.saturating_add(bytes) > cap
        {
            return Err(self.full(Policy::StoredBytes, cap, used, LATER_SECONDS));
        }
        let all_messages = RateUse {
            policy: Policy::Messages,
            quota: quota.messages_per_second,
            items: messages,
            yields: true,
        };
        let of_messages = self.take(&limited.messages, all_messages, now)?;
        let all_bytes = RateUse {
            policy: Policy::Bytes,
            quota: quota.bytes_per_second,
            items: bytes,
            yields: true,
        };
        let of_bytes = self
            .take(&limited.bytes, all_bytes, now)
            .inspect_err(|_| limited.messages.give_back(messages, of_messages))?;
        let has_rate = quota.messages_per_second.is_some() || quota.bytes_per_second.is_some();
        Ok(PublishAdmission {
            limited: Some(limited),
            capacity: has_rate.then(|| of_messages.max(of_bytes)),
            messages: (messages, of_messages),
            bytes: (bytes, of_bytes),
        })
    }

    /// Refuses publishes and receives, which cost money, while a spent budget stops the tenant. Settling, reading and
    /// managing are not refused.
    fn check_stopped(&self, limited: &Limited) -> Result<(), Error> {
        let Some(until) = limited.stopped_until() else {
            return Ok(());
        };
        let left = until - self.clock.estimate().unix_timestamp();
        match u32::try_from(left) {
            Ok(left) if left > 0 => Err(self.exceeded(Policy::Budget, None, left)),
            // The month of the budget is over.
            _ => Ok(()),
        }
    }

    /// Wraps the body of an admitted publish whose length is not known in advance: its bytes are owed as they arrive.
    pub fn charged(
        &self,
        admission: &PublishAdmission,
        body: BoxStream<'static, Result<Bytes, Error>>,
    ) -> BoxStream<'static, Result<Bytes, Error>> {
        let Some(limited) = admission.limited.clone() else {
            return body;
        };
        let (began, capacity) = (self.began, admission.capacity.unwrap_or_default());
        let charge = move |piece: &Result<Bytes, Error>| {
            let bytes = piece.as_ref().map_or(0, |piece| piece.len() as u64);
            limited.bytes.owe(bytes, capacity, nanos_since(began));
            limited.stored.moved(i64::try_from(bytes).unwrap_or(0));
        };
        body.inspect(charge).boxed()
    }

    /// Admits a receive. Returns how many messages may be handed out to it for the first time, with the limits that
    /// count them; `None` when there is no cap.
    pub fn admit_receive(&self, tenant: Tenant) -> Result<Option<(Arc<Limited>, u32)>, Error> {
        let Some(limited) = self.limited_before(tenant) else {
            return Ok(None);
        };
        self.check_stopped(&limited)?;
        let room =
            |(cap, used): (u64, u64)| u32::try_from(cap.saturating_sub(used)).unwrap_or(u32::MAX);
        let room = limited.in_flight.check().map(room);
        Ok(room.map(|room| (limited, room)))
    }

    /// The error for a receive when too many messages are in flight.
    pub fn too_much_in_flight(&self, limited: &Limited) -> Error {
        let cap = limited.quota().in_flight_messages.unwrap_or(0);
        let used = limited.in_flight.used();
        self.full(Policy::InFlight, cap, used, SOON_SECONDS)
    }

    /// Counts topics or subscriptions inside the transaction that has just created one, and refuses it when there are
    /// too many now.
    pub async fn check_count(
        &self,
        tx: &mut Session,
        tenant: Tenant,
        policy: Policy,
    ) -> Result<(), Error> {
        let Some(row) = store::quota::lock(tx, tenant.0).await? else {
            return Ok(());
        };
        let cap = |cap: fn(&QuotaRow) -> Option<i64>| cap(&row).map(i64::unsigned_abs);
        let (cap, count) = if policy == Policy::Topics {
            (
                cap(|row| row.topics),
                store::quota::topics(tx, tenant.0).await?,
            )
        } else {
            let count = store::quota::subscriptions(tx, tenant.0).await?;
            (cap(|row| row.subscriptions), count)
        };
        match cap {
            // `count` includes the one that was just created.
            Some(cap) if count.unsigned_abs() > cap => {
                Err(self.full(policy, cap, count.unsigned_abs() - 1, LATER_SECONDS))
            }
            _ => Ok(()),
        }
    }

    fn exceeded(&self, policy: Policy, quota: Option<u64>, again_seconds: u32) -> Error {
        let quota = quota.unwrap_or(0);
        let used = None;
        self.refused(Violation {
            policy,
            quota,
            used,
            again_seconds,
        })
    }

    fn full(&self, policy: Policy, quota: u64, used: u64, again_seconds: u32) -> Error {
        let used = Some(used);
        self.refused(Violation {
            policy,
            quota,
            used,
            again_seconds,
        })
    }

    fn refused(&self, violation: Violation) -> Error {
        Error::Limited(Limit::Quota(self.count_refused(violation)))
    }
}

//! Changes of the endpoint of a subscription apart from its settings: pause, resume, a new secret.

use api::SubscriptionName;
use api::limits::PUSH_OVERLAP_SECONDS_DEFAULT;
use api::push::{PushRotation, PushSecret};
use api::subscription::Subscription;
use serde::Serialize;

use crate::engine::Engine;
use crate::engine::access::audit::{self, Change, Nothing};
use crate::engine::access::{Access, Tenant};
use crate::engine::error::Error;
use crate::engine::push::sign;
use crate::store::event_sink::SigningKey;
use crate::store::subscription::SubscriptionRow;
use crate::store::{self, Session, push_endpoint};

impl Engine {
    /// Pauses the endpoint of a subscription, or resumes it. A resume also enables one that was disabled.
    ///
    /// # Errors
    /// When the subscription does not exist or has no endpoint, or the database is unavailable.
    pub async fn set_push_paused(
        &self,
        by: &Access,
        name: &SubscriptionName,
        paused: bool,
    ) -> Result<Subscription, Error> {
        let now = self.clock().now();
        let mut tx = self.store().tx("set_push_paused").await?;
        let row = push_subscription(&mut tx, by.tenant(), name).await?;
        let (changed, action) = if paused {
            let changed = push_endpoint::pause(&mut tx, row.subscription_id, now).await?;
            (changed, "subscription.pause_push")
        } else {
            let changed = push_endpoint::resume(&mut tx, row.subscription_id).await?;
            (changed, "subscription.resume_push")
        };
        if changed {
            let change = Change {
                tenant: Some(by.tenant()),
                action,
                target: name.as_str(),
                detail: &Nothing {},
            };
            self.commit_change(tx, by, change).await?;
        } else {
            tx.commit().await?;
        }
        self.subscription(by.tenant(), name).await
    }

    /// Gives the endpoint of a subscription a new secret. The present one goes on to sign for a while.
    ///
    /// # Errors
    /// When the subscription does not exist or has no endpoint, or the database is unavailable.
    pub async fn rotate_push_secret(
        &self,
        by: &Access,
        name: &SubscriptionName,
        rotation: PushRotation,
    ) -> Result<PushSecret, Error> {
        let now = self.clock().now();
        let overlap = rotation.overlap_seconds;
        let overlap = overlap.unwrap_or(PUSH_OVERLAP_SECONDS_DEFAULT);
        let secret = SigningKey(sign::new_secret().to_vec());
        let mut tx = self.store().tx("rotate_push_secret").await?;
        let row = push_subscription(&mut tx, by.tenant(), name).await?;
        let id = row.subscription_id;
        let until = push_endpoint::rotate(&mut tx, id, &secret, overlap, now).await?;
        let until = until.ok_or_else(|| no_endpoint(name))?;
        let change = Change {
            tenant: Some(by.tenant()),
            action: "subscription.rotate_push_secret",
            target: name.as_str(),
            detail: &rotation,
        };
        self.commit_change(tx, by, change).await?;
        Ok(PushSecret {
            secret: sign::shown(&secret.0),
            old_secret_until: until.map(Into::into),
        })
    }

    /// Records a change of an endpoint and commits it, so that the node that drives it notices.
    async fn commit_change<T: Serialize>(
        &self,
        mut tx: Session,
        by: &Access,
        change: Change<'_, T>,
    ) -> Result<(), Error> {
        audit::record(&mut tx, by, change, self.clock().now()).await?;
        store::installation::bump_catalog(&mut tx).await?;
        tx.commit().await?;
        self.catalog().invalidate();
        self.push().assign_now();
        Ok(())
    }
}

/// Locks a subscription whose messages are delivered to an endpoint.
async fn push_subscription(
    tx: &mut Session,
    tenant: Tenant,
    name: &SubscriptionName,
) -> Result<SubscriptionRow, Error> {
    let row = store::subscription::lock(tx, tenant.0, name.as_str()).await?;
    let row = row.ok_or_else(|| Error::not_found("subscription", name))?;
    if row.is_push() {
        return Ok(row);
    }
    Err(no_endpoint(name))
}

fn no_endpoint(name: &SubscriptionName) -> Error {
    Error::Conflict(format!(
        "subscription {name} has no endpoint: its messages are received; put it with push to deliver them"
    ))
}

//! A node's hold on a duty: a row of the table `duty` that expires by the database's clock (I10). The loop of a duty
//! takes and renews it. The duties of a node that dies become free when its heartbeats are missed.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::engine::duty::Context;
use crate::store::{self, duty};

/// A hold expires this long after it was last renewed.
pub(super) const HELD_FOR: Duration = Duration::from_secs(60);
/// A hold is renewed when it is this old.
pub(super) const RENEW_AFTER: Duration = Duration::from_secs(20);

/// A node's hold on a duty.
pub(super) struct Hold<'a> {
    context: &'a Context,
    node: Uuid,
    duty: &'static str,
    /// When it was last renewed, by the node's clock, which is used only to renew less often.
    since: Option<Instant>,
}

impl<'a> Hold<'a> {
    /// A hold that is not taken yet.
    pub(super) fn new(context: &'a Context, node: Uuid, duty: &'static str) -> Self {
        Self {
            context,
            node,
            duty,
            since: None,
        }
    }

    /// Takes or renews the hold. False while another node has it.
    pub(super) async fn take(&mut self) -> Result<bool, store::Error> {
        if self
            .since
            .is_some_and(|since| since.elapsed() < RENEW_AFTER)
        {
            return Ok(true);
        }
        self.since = None;
        let taken = Instant::now();
        let now = self.context.clock.now();
        let mut session = self.context.store.session().await?;
        let is_held = duty::hold(&mut session, self.duty, self.node, HELD_FOR, now).await?;
        self.since = is_held.then_some(taken);
        Ok(is_held)
    }

    /// Gives up the hold, so that another node can take the duty at once.
    pub(super) async fn release(&self) {
        if self.since.is_none() {
            return;
        }
        let release = async {
            let mut session = self.context.store.session().await?;
            duty::release(&mut session, self.duty, self.node).await
        };
        if let Err(error) = release.await {
            tracing::debug!(duty = self.duty, %error, "the hold on a duty ends by time");
        }
    }
}

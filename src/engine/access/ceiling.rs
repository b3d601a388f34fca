//! The ceiling of an issuer: the most that its tokens may do. A token's scopes are cut to it. A request that only what
//! was cut off would have permitted is refused like any other, and recorded in the audit log: somebody who can sign
//! tokens asked for more than the operator granted to the issuer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::{Permission, Scope};
use parking_lot::Mutex;
use serde::Serialize;

use crate::engine::access::audit::{self, Change};
use crate::engine::access::{Access, Gate};
use crate::engine::error::Error;

/// One entry of the audit log stands for all refusals of a caller in this time.
const PERIOD: Duration = Duration::from_secs(3_600);
/// Callers with an entry in the last period. Further ones are only logged: who can sign tokens can make up subjects.
const CALLERS_MAX: usize = 1_000;

/// The scopes of a token inside the ceiling, and those that go beyond it.
pub(super) fn split(asked: &[Scope], ceiling: &[Scope]) -> (Vec<Scope>, Vec<Scope>) {
    let granted = asked
        .iter()
        .flat_map(|asked| ceiling.iter().filter_map(|most| asked.both(most)));
    let is_above = |asked: &&Scope| !ceiling.iter().any(|most| most.includes(asked));
    let above = asked.iter().filter(is_above).cloned();
    (granted.collect(), above.collect())
}

/// The scopes of a token that its issuer may not give.
#[derive(Debug)]
pub(super) struct Withheld {
    issuer: String,
    scopes: Vec<Scope>,
    /// Whether a request was refused that they would have permitted, and that is not recorded yet.
    is_missed: AtomicBool,
}

impl Withheld {
    pub(super) fn new(issuer: &str, scopes: Vec<Scope>) -> Option<Box<Self>> {
        let is_missed = AtomicBool::new(false);
        let issuer = issuer.to_owned();
        (!scopes.is_empty()).then(|| {
            Box::new(Self {
                issuer,
                scopes,
                is_missed,
            })
        })
    }

    /// Notes that a request was refused for want of these permissions; `name`: for this name.
    pub(super) fn missed(&self, permissions: &[Permission], name: Option<&str>) {
        let would = |scope: &Scope| {
            permissions.contains(&scope.permission()) && name.is_none_or(|name| scope.covers(name))
        };
        if self.scopes.iter().any(would) {
            self.is_missed.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_missed(&self) -> bool {
        self.is_missed.load(Ordering::Relaxed)
    }
}

/// The callers whose refusals were recorded.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    at: Mutex<HashMap<String, Instant>>,
}

impl Recorded {
    /// Whether a refusal of this caller is to be recorded now.
    fn begin(&self, actor: &str, now: Instant) -> bool {
        let mut at = self.at.lock();
        let is_recent = |at: &Instant| now.duration_since(*at) < PERIOD;
        if at.get(actor).is_some_and(is_recent) {
            return false;
        }
        if at.len() >= CALLERS_MAX {
            at.retain(|_, at| is_recent(at));
        }
        if at.len() >= CALLERS_MAX {
            return false;
        }
        at.insert(actor.to_owned(), now);
        true
    }

    fn failed(&self, actor: &str) {
        self.at.lock().remove(actor);
    }
}

/// What the audit log says about a refusal.
#[derive(Serialize)]
struct Refused<'a> {
    issuer: &'a str,
    scopes_above_ceiling: &'a [Scope],
}

impl Gate {
    /// Checks that a caller has one of these permissions for `name`, or, with `None`, for any name. Records a refusal
    /// that the ceiling of an issuer has caused.
    ///
    /// # Errors
    /// When none of its scopes permits it, or its tenant is suspended.
    pub async fn permit(
        &self,
        by: &Access,
        permissions: &[Permission],
        name: Option<&str>,
    ) -> Result<(), Error> {
        let permitted = by.check(permissions, name);
        if permitted.is_err() {
            // Boxed: rare, and without the box every request's future would contain this one.
            Box::pin(self.record_missed(by)).await;
        }
        permitted
    }

    /// Records in the audit log that a caller missed what its issuer may not give.
    pub(super) async fn record_missed(&self, by: &Access) {
        let Some(withheld) = &by.withheld else {
            return;
        };
        if !withheld.is_missed.swap(false, Ordering::Relaxed) {
            return;
        }
        let (actor, issuer) = (by.actor(), &withheld.issuer);
        if !self.recorded.begin(actor, Instant::now()) {
            return;
        }
        let scopes = &withheld.scopes;
        tracing::warn!(
            actor,
            issuer,
            ?scopes,
            "a token asked for more than its issuer may give"
        );
        let detail = Refused {
            issuer,
            scopes_above_ceiling: scopes,
        };
        let change = Change {
            tenant: Some(by.tenant()),
            action: "token.refused",
            target: issuer,
            detail: &detail,
        };
        let recorded = async {
            let mut session = self.store.session().await?;
            audit::record(&mut session, by, change, self.clock.now()).await
        };
        if let Err(error) = recorded.await {
            self.recorded.failed(actor);
            tracing::warn!(%error, "a refusal is missing in the audit log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(texts: &[&str]) -> Vec<Scope> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_token_has_what_both_it_and_the_ceiling_name() {
        for (asked, ceiling, granted, above) in [
            (
                &["publish", "admin"][..],
                &["publish"][..],
                &["publish"][..],
                &["admin"][..],
            ),
            (
                &["publish"],
                &["publish:a", "publish:b.*"],
                &["publish:a", "publish:b.*"],
                &["publish"],
            ),
            (&["admin"], &["admin:shop"], &["admin:shop"], &["admin"]),
            (&["receive:a"], &["receive"], &["receive:a"], &[]),
            (&["admin:shop"], &["publish"], &[], &["admin:shop"]),
        ] {
            let split = split(&scopes(asked), &scopes(ceiling));
            assert_eq!(
                split,
                (scopes(granted), scopes(above)),
                "{asked:?} {ceiling:?}"
            );
        }
    }

    #[test]
    fn only_what_would_have_been_permitted_is_missed() {
        let withheld = Withheld::new("login", scopes(&["admin:shop"])).unwrap();
        withheld.missed(&[Permission::Publish], None);
        withheld.missed(&[Permission::Admin], Some("bank"));
        assert!(!withheld.is_missed());
        withheld.missed(&[Permission::Admin], Some("shop"));
        assert!(withheld.is_missed());
        assert!(Withheld::new("login", Vec::new()).is_none());
    }

    #[test]
    fn a_caller_is_recorded_once_in_a_while_and_callers_are_bounded() {
        let (recorded, now) = (Recorded::default(), Instant::now());
        assert!(recorded.begin("a", now) && !recorded.begin("a", now));
        recorded.failed("a");
        assert!(recorded.begin("a", now));
        for n in 1..CALLERS_MAX {
            assert!(recorded.begin(&n.to_string(), now));
        }
        assert!(!recorded.begin("one too many", now));
        assert!(recorded.begin("later", now + PERIOD));
    }
}

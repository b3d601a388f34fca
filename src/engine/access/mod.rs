//! Who calls, and what they may do: an API key or a token of an issuer opens a tenant with scopes. What a node has let in
//! it remembers, until the installation's version of access changes (`watch` looks once a second), so a request costs one
//! look-up in memory. Whoever brings nothing valid is slowed (`guard`).
//!
//! Secrets are compared in constant time and never logged; the memory is keyed by SHA-256, so its timing tells nothing of
//! a secret either.

pub mod audit;
pub mod expire_audit;
mod guard;
mod key_sets;
mod secret;
mod seen;
mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{Permission, Scope};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;

use crate::clock::Clock;
use crate::engine::error::Error;
use crate::outbound::Outbound;
use crate::store::api_key::ValidKey;
use crate::store::{self, Store};

pub(in crate::engine) use secret::Secret;

/// A tenant that was looked up by a key or token, or the only one of the embedded mode (I7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tenant(pub(crate) i64);

/// Lets callers in, and remembers those it has let in.
#[derive(Debug)]
pub struct Gate {
    store: Store,
    clock: Clock,
    outbound: Outbound,
    seen: seen::Seen,
    issuers: key_sets::Issuers,
    guard: guard::Guard,
    /// The access of requests without a key, on a node that asks for none.
    open: Option<Arc<Access>>,
}

impl Gate {
    /// `open`: the tenant of requests without a key.
    #[must_use]
    pub fn new((store, clock): (Store, Clock), outbound: Outbound, open: Option<Tenant>) -> Self {
        let open = open.map(|tenant| {
            let scopes = Permission::ALL.map(Scope::all).to_vec();
            Arc::new(Access::new(tenant, "open".to_owned(), scopes))
        });
        Self {
            store,
            clock,
            outbound,
            seen: seen::Seen::default(),
            issuers: key_sets::Issuers::default(),
            guard: guard::Guard::default(),
            open,
        }
    }
}

/// A caller that was let in.
#[derive(Debug)]
pub struct Access {
    tenant: Tenant,
    /// Its name in the audit log.
    actor: String,
    scopes: Vec<Scope>,
    /// Its tenant is suspended.
    suspended: bool,
    /// From then on it is refused.
    expires_at: Option<OffsetDateTime>,
    /// The id of its key, if it is one.
    key: Option<String>,
    /// It was used since that was last written down.
    used: AtomicBool,
}

impl Access {
    fn new(tenant: Tenant, actor: String, scopes: Vec<Scope>) -> Self {
        Self {
            tenant,
            actor,
            scopes,
            suspended: false,
            expires_at: None,
            key: None,
            used: AtomicBool::new(false),
        }
    }

    fn of_key(key: ValidKey) -> Self {
        // A scope that this version does not know permits nothing.
        let scopes = key.scopes.iter().filter_map(|scope| scope.parse().ok());
        let actor = format!("key:{}", key.key_id);
        Self {
            suspended: key.suspended,
            expires_at: key.expires_at,
            key: Some(key.key_id),
            ..Self::new(Tenant(key.tenant_id), actor, scopes.collect())
        }
    }

    /// A caller at the command line, which has the database itself.
    #[must_use]
    pub fn of_command_line() -> Self {
        let scopes = vec![Scope::all(Permission::Admin)];
        Self::new(Tenant(0), "cli".to_owned(), scopes)
    }

    /// The tenant that it opens (I7).
    #[must_use]
    pub fn tenant(&self) -> Tenant {
        self.tenant
    }

    /// Its name in the audit log.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// Whether it has one of these permissions for this name.
    #[must_use]
    pub fn covers(&self, permissions: &[Permission], name: &str) -> bool {
        let mut scopes = self.scopes.iter();
        scopes.any(|scope| permissions.contains(&scope.permission()) && scope.covers(name))
    }

    /// Whether it has a permission for all names.
    #[must_use]
    pub fn has_all(&self, permission: Permission) -> bool {
        let mut scopes = self.scopes.iter();
        scopes.any(|scope| scope.permission() == permission && scope.is_for_all())
    }

    /// Lets it do one of these with `name`, or with anything at all (`None`).
    ///
    /// # Errors
    /// When none of its scopes says so, or its tenant is suspended.
    pub fn check(&self, permissions: &[Permission], name: Option<&str>) -> Result<(), Error> {
        let has_any = |scope: &Scope| permissions.contains(&scope.permission());
        let may = match name {
            Some(name) => self.covers(permissions, name),
            None => self.scopes.iter().any(has_any),
        };
        if self.suspended && !permissions.contains(&Permission::Usage) {
            return Err(Error::Suspended);
        }
        if may {
            return Ok(());
        }
        let words: Vec<&str> = permissions.iter().map(|p| p.as_str()).collect();
        let for_name = name.map_or(String::new(), |name| format!(" for {name}"));
        Err(Error::Forbidden(format!(
            "this needs the scope {}{for_name}",
            words.join(" or ")
        )))
    }

    /// Lets it do what concerns all names.
    ///
    /// # Errors
    /// When its scope is limited to some, or its tenant is suspended.
    pub fn check_all(&self, permission: Permission) -> Result<(), Error> {
        self.check(&[permission], None)?;
        if self.has_all(permission) {
            return Ok(());
        }
        let word = permission.as_str();
        Err(Error::Forbidden(format!(
            "this needs the scope {word} for all names"
        )))
    }

    /// The names that it has a permission for, as patterns of LIKE.
    #[must_use]
    pub fn like(&self, permissions: &[Permission]) -> Vec<String> {
        let scopes = self.scopes.iter();
        let mine = scopes.filter(|scope| permissions.contains(&scope.permission()));
        mine.map(|scope| {
            let text = scope.to_string();
            let names = text.split_once(':').map_or("*", |(_, names)| names);
            names.replace('_', r"\_").replace('*', "%")
        })
        .collect()
    }
}

impl Gate {
    /// Whether requests without a key are let in: whoever reaches the node may use it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whom the key or token of a request lets in (`None`: it has none). `peer` is where the request came from.
    ///
    /// # Errors
    /// When there is none, it is not valid, or that cannot be found out.
    pub async fn authenticate(
        &self,
        bearer: Option<&str>,
        peer: Option<IpAddr>,
    ) -> Result<Arc<Access>, Error> {
        let Some(bearer) = bearer else {
            return self.open.clone().ok_or(Error::Unauthenticated);
        };
        let secret = Secret::of(bearer);
        if let Some(access) = self.seen.get(&secret) {
            return self.unexpired(access);
        }
        // On the heap: the future of the rare miss must not be carried by every request.
        Box::pin(self.let_in(bearer, secret, peer)).await
    }

    fn unexpired(&self, access: Arc<Access>) -> Result<Arc<Access>, Error> {
        if let Some(expires_at) = access.expires_at
            && expires_at <= self.clock.estimate()
        {
            return Err(Error::Unauthenticated);
        }
        if access.key.is_some() && !access.used.load(Ordering::Relaxed) {
            access.used.store(true, Ordering::Relaxed);
        }
        Ok(access)
    }

    async fn let_in(
        &self,
        bearer: &str,
        secret: Secret,
        peer: Option<IpAddr>,
    ) -> Result<Arc<Access>, Error> {
        self.guard.check(peer)?;
        let epoch = self.seen.epoch();
        let admitted = if token::is_token(bearer) {
            self.by_token(bearer).await
        } else {
            self.by_key(bearer, &secret).await
        };
        let access = admitted.and_then(|access| self.unexpired(Arc::new(access)));
        if let Err(Error::Unauthenticated) = access {
            self.guard.failed(peer);
        }
        let access = access?;
        self.seen.insert(secret, &access, epoch);
        Ok(access)
    }

    async fn by_key(&self, bearer: &str, secret: &Secret) -> Result<Access, Error> {
        // A key that contradicts itself is no key of anybody: mistyped, or made up.
        if !secret.is_of(bearer) {
            return Err(Error::Unauthenticated);
        }
        let mut session = self.store.session().await?;
        let found = store::api_key::valid(&mut session, &[secret.id().to_string()]).await?;
        let key = found.into_iter().next().ok_or(Error::Unauthenticated)?;
        let same: bool = key.key_hash.ct_eq(secret.hash()).into();
        if !same {
            return Err(Error::Unauthenticated);
        }
        Ok(Access::of_key(key))
    }

    /// Reads again which callers this node lets in, after something of that has changed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn read_again(&self) -> Result<(), Error> {
        // A caller that is let in from here on by what was read before is not remembered.
        self.seen.begin_again();
        let ids = self.seen.keys();
        let mut session = self.store.session().await?;
        let found = store::api_key::valid(&mut session, &ids).await?;
        let issuers = store::issuer::all(&mut session).await?;
        drop(session);
        self.issuers.replace(issuers);
        self.seen.replace(found);
        Ok(())
    }

    /// This node knows of every change until now.
    pub fn is_current(&self) {
        self.seen.is_current();
    }

    /// Writes down which keys were used.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note_used(&self, session: &mut store::Session) -> Result<(), Error> {
        let used = self.seen.take_used();
        if !used.is_empty() {
            store::api_key::used(session, &used, self.clock.now()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(scopes: &[&str]) -> Access {
        let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
        Access::new(Tenant(1), "key:1".to_owned(), scopes)
    }

    #[test]
    fn scopes_permit_what_they_name_and_nothing_else() {
        use Permission::{Manage, Publish, Receive};
        let access = access(&["publish:orders.*", "receive"]);
        assert!(access.check(&[Publish], Some("orders.eu")).is_ok());
        assert!(access.check(&[Publish], None).is_ok());
        let refused = access.check(&[Publish], Some("secrets")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "this needs the scope publish for secrets"
        );
        assert!(access.check(&[Manage, Receive], Some("secrets")).is_ok());
        assert!(access.check(&[Manage], None).is_err());
        assert!(access.has_all(Receive) && !access.has_all(Publish));
    }

    #[test]
    fn names_turn_into_patterns_of_like() {
        let access = access(&["manage:a_b.*", "manage:one", "receive"]);
        assert_eq!(access.like(&[Permission::Manage]), [r"a\_b.%", "one"]);
        assert_eq!(access.like(&[Permission::Receive]), ["%"]);
        assert!(access.like(&[Permission::Admin]).is_empty());
    }

    #[test]
    fn a_suspended_tenant_reads_its_usage_and_does_nothing_else() {
        let access = Access {
            suspended: true,
            ..access(&["publish", "usage"])
        };
        let refused = access.check(&[Permission::Publish], None);
        assert!(matches!(refused, Err(Error::Suspended)));
        assert!(access.check(&[Permission::Usage], None).is_ok());
    }
}

//! Authentication and permissions. An API key or a token of an issuer gives access to one tenant with some scopes. A
//! node remembers the callers it has let in (`remembered`), so most requests cost one lookup in memory. The memory is
//! refreshed when the installation's access version changes, which `fleet::watch` polls once a second. Networks that
//! send invalid keys are slowed (`guard`). What a token may do at most is set for its issuer (`ceiling`).
//!
//! Secrets are compared in constant time and never logged. The memory is keyed by SHA-256, so its timing reveals
//! nothing about a secret either.

pub mod audit;
mod ceiling;
pub mod expire_audit;
mod fetch;
mod guard;
mod issuers;
mod jws;
mod key_set;
mod remembered;
mod secret;
mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{Permission, Scope};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;

use crate::clock::Clock;
use crate::engine::duty::Context;
use crate::engine::error::Error;
use crate::network::Network;
use crate::outbound::Outbound;
use crate::store::api_key::ValidKey;
use crate::store::{self, Store, TenantId};

pub(in crate::engine) use secret::Secret;

/// Id of a tenant that a key or token gave access to, or the default tenant of the embedded mode (I7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tenant(pub(crate) TenantId);

/// Authenticates callers, and remembers those that it has let in.
#[derive(Debug)]
pub struct Gate {
    store: Store,
    clock: Clock,
    outbound: Outbound,
    remembered: remembered::Remembered,
    issuers: issuers::Issuers,
    guard: guard::Guard,
    recorded: ceiling::Recorded,
    trusted_proxies: Vec<Network>,
    /// The access of requests without a key, on a node that needs none.
    open: Option<Arc<Access>>,
}

impl Gate {
    /// A gate that remembers no caller yet. `open` is the tenant of requests without a key; `None` refuses them.
    #[must_use]
    pub fn new(
        context: Context,
        outbound: Outbound,
        open: Option<Tenant>,
        trusted_proxies: Vec<Network>,
    ) -> Self {
        let open = open.map(|tenant| {
            let scopes = Permission::ALL.map(Scope::all).to_vec();
            Arc::new(Access::new(tenant, "open".to_owned(), scopes))
        });
        Self {
            store: context.store,
            clock: context.clock,
            outbound,
            remembered: remembered::Remembered::default(),
            issuers: issuers::Issuers::default(),
            guard: guard::Guard::default(),
            recorded: ceiling::Recorded::default(),
            trusted_proxies,
            open,
        }
    }
}

/// An authenticated caller: its tenant, its scopes and its name for the audit log.
#[derive(Debug)]
pub struct Access {
    tenant: Tenant,
    /// Its name in the audit log.
    actor: String,
    scopes: Vec<Scope>,
    /// What its token asked for and its issuer may not give.
    withheld: Option<Box<ceiling::Withheld>>,
    /// Whether its tenant is suspended.
    suspended: bool,
    /// From this time on the caller is refused.
    expires_at: Option<OffsetDateTime>,
    /// The id of its key; `None` for a token and for an open node.
    key: Option<String>,
    /// Whether the key was used since that was last written to the database.
    used: AtomicBool,
}

impl Access {
    fn new(tenant: Tenant, actor: String, scopes: Vec<Scope>) -> Self {
        Self {
            tenant,
            actor,
            scopes,
            withheld: None,
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

    /// The access of the command line, which connects to the database itself.
    #[must_use]
    pub fn of_command_line() -> Self {
        let scopes = vec![Scope::all(Permission::Admin)];
        Self::new(Tenant(TenantId::UNASSIGNED), "cli".to_owned(), scopes)
    }

    /// The tenant that it has access to (I7).
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

    /// Checks that it has one of these permissions for `name`, or, with `None`, for any name.
    ///
    /// # Errors
    /// When none of its scopes permits it, or its tenant is suspended.
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
        if let Some(withheld) = &self.withheld {
            withheld.missed(permissions, name);
        }
        let words: Vec<&str> = permissions.iter().map(|p| p.as_str()).collect();
        let for_name = name.map_or(String::new(), |name| format!(" for {name}"));
        Err(Error::Forbidden(format!(
            "this needs the scope {}{for_name}",
            words.join(" or ")
        )))
    }

    /// Checks that it has a permission for all names.
    ///
    /// # Errors
    /// When its scopes are limited to some names, or its tenant is suspended.
    pub fn check_all(&self, permission: Permission) -> Result<(), Error> {
        self.check(&[permission], None)?;
        if self.has_all(permission) {
            return Ok(());
        }
        if let Some(withheld) = &self.withheld {
            withheld.missed(&[permission], None);
        }
        let word = permission.as_str();
        Err(Error::Forbidden(format!(
            "this needs the scope {word} for all names"
        )))
    }

    /// The names that it has one of these permissions for, as patterns of LIKE.
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
    /// Whether requests without a key are let in: every client that reaches the node may use it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a peer is a proxy that is trusted to say from whom it passes a request on.
    #[must_use]
    pub fn is_trusted_proxy(&self, peer: IpAddr) -> bool {
        let mut networks = self.trusted_proxies.iter();
        networks.any(|network| network.contains(peer))
    }

    /// The caller of a request by its key or token; `bearer` is `None` when it has neither. `client` is the address that
    /// the request came from.
    ///
    /// # Errors
    /// When the key or token is missing or not valid, or the database or issuer that has to be read does not respond.
    pub async fn authenticate(
        &self,
        bearer: Option<&str>,
        client: Option<IpAddr>,
    ) -> Result<Arc<Access>, Error> {
        let Some(bearer) = bearer else {
            return self.open.clone().ok_or(Error::Unauthenticated);
        };
        let secret = Secret::of(bearer);
        if let Some(access) = self.remembered.get(&secret) {
            return self.unexpired(access);
        }
        // Boxed: misses are rare, and without the box every request's future would contain this one.
        Box::pin(self.look_up(bearer, secret, client)).await
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

    async fn look_up(
        &self,
        bearer: &str,
        secret: Secret,
        client: Option<IpAddr>,
    ) -> Result<Arc<Access>, Error> {
        let stranger = guard::Stranger::new(client, bearer, &secret);
        // Who was let in before is no guesser, even while what the node remembers is not trusted.
        if !self.remembered.has(&secret) {
            self.guard.check(stranger)?;
        }
        let mut epoch = self.remembered.epoch();
        let mut access = self.admit(bearer, &secret).await;
        if epoch != self.remembered.epoch() {
            // Access changed meanwhile. The caller is read again, because one that is not remembered would be slowed
            // with the guessers of its network.
            epoch = self.remembered.epoch();
            access = self.admit(bearer, &secret).await;
        }
        if let Err(Error::Unauthenticated) = access {
            self.remembered.forget(&secret);
            self.guard.failed(stranger);
        }
        let access = access?;
        self.remembered.insert(secret, &access, epoch);
        Ok(access)
    }

    async fn admit(&self, bearer: &str, secret: &Secret) -> Result<Arc<Access>, Error> {
        let admitted = if jws::is_token(bearer) {
            self.by_token(bearer).await
        } else {
            self.by_key(bearer, secret).await
        };
        admitted.and_then(|access| self.unexpired(Arc::new(access)))
    }

    async fn by_key(&self, bearer: &str, secret: &Secret) -> Result<Access, Error> {
        // The id does not match the secret, so the key is mistyped or made up. No query is needed.
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

    /// Reads the remembered callers and the issuers again, after something about access has changed.
    ///
    /// # Errors
    /// When the database does not respond.
    pub async fn read_again(&self) -> Result<(), Error> {
        // First: a lookup that is running now may have read the old state, and must not be remembered.
        self.remembered.begin_epoch();
        let ids = self.remembered.old_keys();
        let mut session = self.store.session().await?;
        let valid = store::api_key::valid(&mut session, &ids).await?;
        let issuers = store::issuer::all(&mut session).await?;
        drop(session);
        self.issuers.replace(issuers);
        self.remembered.refresh(valid);
        Ok(())
    }

    /// Lets nobody in by what this node remembers, until it has read again who may come in.
    pub fn distrust(&self) {
        self.remembered.distrust();
    }

    /// Records that this node knows of every change up to now.
    pub fn confirm_current(&self) {
        self.remembered.confirm_current();
    }

    /// Writes to the database which keys were used since the last call, and which callers missed what their issuers may
    /// not give.
    ///
    /// # Errors
    /// When the database does not respond.
    pub async fn note_used(&self, session: &mut store::Session) -> Result<(), Error> {
        let used = self.remembered.take_used();
        if !used.is_empty() {
            store::api_key::used(session, &used, self.clock.now()).await?;
        }
        for by in self.remembered.missed() {
            self.record_missed(&by).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(scopes: &[&str]) -> Access {
        let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
        Access::new(Tenant(TenantId::new(1)), "key:1".to_owned(), scopes)
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
    fn scopes_become_patterns_of_like() {
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

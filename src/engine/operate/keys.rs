//! API keys of a tenant: create, rotate, revoke, read and list. The secret of a key is returned once, when the key is
//! created. A caller cannot grant more than it has: creating a key with the scope `admin` requires the scope `admin`
//! for all names.

use std::time::Duration;

use api::key::{ApiKey, ApiKeyWithSecret, KeyRotation, KeySettings};
use api::limits::{KEYS_PER_TENANT_MAX, PAGE};
use api::list::Page;
use api::tenant::TenantSettings;
use api::{KeyId, Permission, Scope, TenantName, Validate};
use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::access::audit::{self, Change, Nothing};
use crate::engine::access::{Access, Secret, Tenant};
use crate::engine::error::Error;
use crate::engine::operate::tenants;
use crate::store::api_key::{InsertKey, KeyRow};
use crate::store::{self, Session, Store};

impl Engine {
    /// Creates a key.
    ///
    /// # Errors
    /// When the tenant does not exist or has too many keys, or the database call fails.
    pub async fn create_key(
        &self,
        by: &Access,
        tenant: &TenantName,
        settings: &KeySettings,
    ) -> Result<ApiKeyWithSecret, Error> {
        may_grant(by, &settings.scopes())?;
        let now = self.clock().now();
        let mut tx = self.store().tx("create_key").await?;
        let tenant = lock_for_key(&mut tx, tenant).await?;
        let made = insert(&mut tx, by, tenant, settings, now).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Creates a key with the scopes of the key `id`. The old key expires after the overlap.
    ///
    /// # Errors
    /// When the key does not exist, is revoked or has expired, the overlap is out of range, or the database call fails.
    pub async fn rotate_key(
        &self,
        by: &Access,
        tenant: &TenantName,
        id: KeyId,
        rotation: &KeyRotation,
    ) -> Result<ApiKeyWithSecret, Error> {
        let now = self.clock().now();
        let mut tx = self.store().tx("rotate_key").await?;
        let tenant = lock_for_key(&mut tx, tenant).await?;
        let text = id.to_string();
        let before = store::api_key::by_id(&mut tx, tenant.0, &text)
            .await?
            .ok_or_else(|| Error::not_found("key", id))?;
        may_grant(by, &scopes(&before)?)?;
        let overlap = Duration::from_secs(rotation.overlap_seconds().into());
        let ended = store::api_key::expire(&mut tx, tenant.0, &text, overlap, now).await?;
        ended.ok_or_else(|| {
            Error::Conflict(format!(
                "key {id} is revoked or has expired; create another"
            ))
        })?;
        let (secret, hash) = Secret::new();
        let life = before.expires_at.map(|at| at - before.created_at);
        let new = InsertKey {
            hash: hash.hash(),
            tenant: tenant.0,
            name: &before.name,
            scopes: &before.scopes,
            // The same lifetime as that of the old key.
            expires_in: life.and_then(|life| life.try_into().ok()),
        };
        let row = store::api_key::insert(&mut tx, &new, now).await?;
        let change = Change {
            tenant: Some(tenant),
            action: "key.rotate",
            target: &text,
            detail: rotation,
        };
        audit::record(&mut tx, by, change, now).await?;
        store::installation::bump_access(&mut tx).await?;
        tx.commit().await?;
        self.poll_now().await;
        Ok(ApiKeyWithSecret {
            secret,
            key: shown(row)?,
        })
    }

    /// Revokes a key. All nodes refuse it from then on, and it stays in the list.
    ///
    /// # Errors
    /// When the key does not exist, or the database call fails.
    pub async fn revoke_key(
        &self,
        by: &Access,
        tenant: &TenantName,
        id: KeyId,
    ) -> Result<(), Error> {
        let now = self.clock().now();
        let mut tx = self.store().tx("revoke_key").await?;
        revoke(&mut tx, by, tenant, id, now).await?;
        tx.commit().await?;
        self.poll_now().await;
        Ok(())
    }

    /// One key.
    ///
    /// # Errors
    /// When it does not exist, or the database call fails.
    pub async fn key(&self, tenant: &TenantName, id: KeyId) -> Result<ApiKey, Error> {
        let mut session = self.store().session().await?;
        let tenant = tenants::found(&mut session, tenant).await?.tenant_id;
        let row = store::api_key::by_id(&mut session, tenant, &id.to_string()).await?;
        shown(row.ok_or_else(|| Error::not_found("key", id))?)
    }

    /// A page of keys in order of age, including the revoked ones.
    ///
    /// # Errors
    /// When the tenant does not exist, or the database call fails.
    pub async fn keys(
        &self,
        tenant: &TenantName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<ApiKey>, Error> {
        let limit = limit.clamp(*PAGE.start(), *PAGE.end());
        let mut session = self.store().session().await?;
        let tenant = tenants::found(&mut session, tenant).await?.tenant_id;
        let rows = store::api_key::list(&mut session, tenant, after, i64::from(limit) + 1).await?;
        let items: Vec<ApiKey> = rows.into_iter().map(shown).collect::<Result<_, _>>()?;
        Ok(crate::engine::page::page(items, limit, |key| {
            key.id.to_string()
        }))
    }
}

/// Creates a key for a tenant, and the tenant if it does not exist. For the command line, whose caller has access to
/// the database and so needs no permission.
///
/// # Errors
/// When a setting is out of range, or the database call fails.
pub async fn create_key(
    store: &Store,
    tenant: &TenantName,
    settings: &KeySettings,
) -> Result<ApiKeyWithSecret, Error> {
    let errors = settings.validate();
    if !errors.is_empty() {
        return Err(Error::Invalid(errors));
    }
    let by = Access::of_command_line();
    let mut tx = store.tx("create_key").await?;
    let settings_of_tenant = TenantSettings::default();
    let (owner, _) = tenants::put(&mut tx, &by, tenant, &settings_of_tenant, None).await?;
    let made = insert(&mut tx, &by, Tenant(owner.tenant_id), settings, None).await?;
    tx.commit().await?;
    Ok(made)
}

/// Revokes a key of a tenant, for the command line. All nodes refuse it soon.
///
/// # Errors
/// When it does not exist, or the database call fails.
pub async fn revoke_key(store: &Store, tenant: &TenantName, id: KeyId) -> Result<(), Error> {
    let by = Access::of_command_line();
    let mut tx = store.tx("revoke_key").await?;
    revoke(&mut tx, &by, tenant, id, None).await?;
    Ok(tx.commit().await?)
}

/// All keys of a tenant in order of age, for the command line.
///
/// # Errors
/// When the tenant does not exist, or the database call fails.
pub async fn all_keys(store: &Store, tenant: &TenantName) -> Result<Vec<ApiKey>, Error> {
    let mut session = store.session().await?;
    let tenant = tenants::found(&mut session, tenant).await?.tenant_id;
    // Few: those that are not revoked are bounded, and a person has revoked the others.
    let rows = store::api_key::list(&mut session, tenant, None, i64::MAX).await?;
    rows.into_iter().map(shown).collect()
}

/// Revokes a key, and records it. Revoking a revoked key changes nothing and is no error.
async fn revoke(
    tx: &mut Session,
    by: &Access,
    tenant: &TenantName,
    id: KeyId,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    let tenant = Tenant(tenants::found(tx, tenant).await?.tenant_id);
    let text = id.to_string();
    let row = store::api_key::by_id(tx, tenant.0, &text).await?;
    row.ok_or_else(|| Error::not_found("key", id))?;
    if store::api_key::revoke(tx, tenant.0, &text, now).await? {
        let change = Change {
            tenant: Some(tenant),
            action: "key.revoke",
            target: &text,
            detail: &Nothing {},
        };
        audit::record(tx, by, change, now).await?;
        store::installation::bump_access(tx).await?;
    }
    Ok(())
}

/// Inserts a key and its audit record, and raises the version of access.
async fn insert(
    tx: &mut Session,
    by: &Access,
    tenant: Tenant,
    settings: &KeySettings,
    now: Option<OffsetDateTime>,
) -> Result<ApiKeyWithSecret, Error> {
    let (secret, hash) = Secret::new();
    let scopes: Vec<String> = settings.scopes().iter().map(ToString::to_string).collect();
    let life = settings.expires_in_seconds;
    let new = InsertKey {
        hash: hash.hash(),
        tenant: tenant.0,
        name: settings.name.as_deref().unwrap_or("key"),
        scopes: &scopes,
        expires_in: life.map(|seconds| Duration::from_secs(seconds.into())),
    };
    let row = store::api_key::insert(tx, &new, now).await?;
    let change = Change {
        tenant: Some(tenant),
        action: "key.create",
        target: &row.key_id,
        detail: settings,
    };
    audit::record(tx, by, change, now).await?;
    store::installation::bump_access(tx).await?;
    Ok(ApiKeyWithSecret {
        secret,
        key: shown(row)?,
    })
}

/// Locks the tenant. Fails if it has the maximum number of keys.
async fn lock_for_key(tx: &mut Session, name: &TenantName) -> Result<Tenant, Error> {
    let tenant = store::tenant::lock(tx, name.as_str())
        .await?
        .ok_or_else(|| Error::not_found("tenant", name))?
        .tenant_id;
    if store::api_key::count(tx, tenant).await? >= i64::from(KEYS_PER_TENANT_MAX) {
        return Err(Error::Conflict(format!(
            "tenant {name} has {KEYS_PER_TENANT_MAX} keys already; revoke those that are not used"
        )));
    }
    Ok(Tenant(tenant))
}

/// Fails when the caller may not create a key with these scopes.
fn may_grant(by: &Access, scopes: &[Scope]) -> Result<(), Error> {
    let is_admin = |scope: &Scope| scope.permission() == Permission::Admin;
    if scopes.iter().any(is_admin) {
        by.check_all(Permission::Admin)?;
    }
    Ok(())
}

/// The scopes of a key.
fn scopes(row: &KeyRow) -> Result<Vec<Scope>, Error> {
    let scopes = row.scopes.iter().map(|scope| scope.parse());
    let corrupt = |_| store::Error::Corrupt {
        table: "api_key",
        column: "scopes",
        row: row.key_id.clone(),
    };
    Ok(scopes.collect::<Result<_, _>>().map_err(corrupt)?)
}

/// A key as an API object.
fn shown(row: KeyRow) -> Result<ApiKey, Error> {
    let corrupt = |_| store::Error::Corrupt {
        table: "api_key",
        column: "key_id",
        row: row.key_id.clone(),
    };
    Ok(ApiKey {
        id: row.key_id.parse().map_err(corrupt)?,
        scopes: scopes(&row)?,
        name: row.name,
        created_at: row.created_at.into(),
        expires_at: row.expires_at.map(Into::into),
        last_used_at: row.last_used_at.map(Into::into),
        revoked_at: row.revoked_at.map(Into::into),
    })
}

//! API keys of a tenant: create, rotate, revoke, list. A key's secret leaves here once, with the answer that makes it.
//! Nobody gives away more than they have: only who operates all tenants makes a key that operates any.

use std::time::Duration;

use api::key::{Key, KeyRotation, KeySettings, NewKey};
use api::limits::{KEYS_PER_TENANT_MAX, PAGE};
use api::list::Page;
use api::tenant::TenantSettings;
use api::{KeyId, Permission, Scope, TenantName};
use serde::Serialize;
use time::OffsetDateTime;

use crate::store::api_key::{InsertKey, KeyRow};
use crate::store::{self, Session, Store};

use crate::engine::access::audit::{self, Change, Nothing};
use crate::engine::access::{Access, Secret};
use crate::engine::error::Error;
use crate::engine::operate::tenants;
use crate::engine::{Engine, Tenant};

impl Engine {
    /// Makes a key.
    ///
    /// # Errors
    /// When a setting is out of range, the tenant does not exist or has too many keys, or the database does not answer.
    pub async fn create_key(
        &self,
        by: &Access,
        tenant: &TenantName,
        settings: &KeySettings,
    ) -> Result<NewKey, Error> {
        let errors = settings.validate();
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        may_give(by, &settings.scopes())?;
        let now = self.clock().now();
        let mut tx = self.store().tx("create_key").await?;
        let tenant = room_for_one(&mut tx, tenant).await?;
        let made = insert(&mut tx, by, tenant, settings, now).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Makes a key that may do the same as `id`, which ends after the overlap.
    ///
    /// # Errors
    /// When there is no such key or it has ended, the overlap is out of range, or the database does not answer.
    pub async fn rotate_key(
        &self,
        by: &Access,
        (tenant, id): (&TenantName, KeyId),
        rotation: &KeyRotation,
    ) -> Result<NewKey, Error> {
        let errors = rotation.validate();
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let now = self.clock().now();
        let mut tx = self.store().tx("rotate_key").await?;
        let tenant = room_for_one(&mut tx, tenant).await?;
        let text = id.to_string();
        let before = store::api_key::by_id(&mut tx, tenant.0, &text).await?;
        let before = before.ok_or_else(|| Error::not_found("key", id))?;
        may_give(by, &scopes(&before)?)?;
        let overlap = Duration::from_secs(rotation.overlap_seconds().into());
        let ended = store::api_key::expire(&mut tx, (tenant.0, &text), overlap, now).await?;
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
            // As long as the old one had.
            expires_in: life.and_then(|life| life.try_into().ok()),
        };
        let row = store::api_key::insert(&mut tx, &new, now).await?;
        let change = ("key.rotate", &*text);
        note(&mut tx, by, tenant, change, (rotation, now)).await?;
        tx.commit().await?;
        self.poll_now().await;
        Ok(NewKey {
            secret,
            key: shown(row)?,
        })
    }

    /// Revokes a key on all nodes; it stays in the list.
    ///
    /// # Errors
    /// When there is no such key, or the database does not answer.
    pub async fn revoke_key(
        &self,
        by: &Access,
        tenant: &TenantName,
        id: KeyId,
    ) -> Result<(), Error> {
        let now = self.clock().now();
        let mut tx = self.store().tx("revoke_key").await?;
        let tenant = Tenant(tenants::found(&mut tx, tenant).await?.tenant_id);
        let text = id.to_string();
        let row = store::api_key::by_id(&mut tx, tenant.0, &text).await?;
        row.ok_or_else(|| Error::not_found("key", id))?;
        // Revoked already is as good.
        if store::api_key::revoke(&mut tx, (tenant.0, &text), now).await? {
            let change = ("key.revoke", &*text);
            note(&mut tx, by, tenant, change, (&Nothing {}, now)).await?;
        }
        tx.commit().await?;
        self.poll_now().await;
        Ok(())
    }

    /// One key.
    ///
    /// # Errors
    /// When it does not exist, or the database does not answer.
    pub async fn key(&self, tenant: &TenantName, id: KeyId) -> Result<Key, Error> {
        let mut session = self.store().session().await?;
        let tenant = tenants::found(&mut session, tenant).await?.tenant_id;
        let row = store::api_key::by_id(&mut session, tenant, &id.to_string()).await?;
        shown(row.ok_or_else(|| Error::not_found("key", id))?)
    }

    /// A page of keys in order of age, the revoked ones among them.
    ///
    /// # Errors
    /// When the tenant does not exist, or the database does not answer.
    pub async fn keys(
        &self,
        tenant: &TenantName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Key>, Error> {
        let limit = limit.clamp(*PAGE.start(), *PAGE.end());
        let mut session = self.store().session().await?;
        let tenant = tenants::found(&mut session, tenant).await?.tenant_id;
        let rows = store::api_key::list(&mut session, tenant, after, i64::from(limit) + 1).await?;
        let items = rows.into_iter().map(shown).collect::<Result<Vec<_>, _>>()?;
        Ok(crate::engine::page(items, limit, |key| key.id.to_string()))
    }
}

/// Makes a key for a tenant, which is created when it is new: from the command line, where the database itself is at hand.
///
/// # Errors
/// When a setting is out of range, or the database does not answer.
pub async fn create_key(
    store: &Store,
    tenant: &TenantName,
    settings: &KeySettings,
) -> Result<NewKey, Error> {
    let errors = settings.validate();
    if !errors.is_empty() {
        return Err(Error::Invalid(errors));
    }
    let by = Access::of_command_line();
    let mut tx = store.tx("create_key").await?;
    let how = (&TenantSettings::default(), None);
    let (owner, _) = tenants::put(&mut tx, &by, tenant, how).await?;
    let made = insert(&mut tx, &by, Tenant(owner.tenant_id), settings, None).await?;
    tx.commit().await?;
    Ok(made)
}

/// Makes a key, writes that down and tells all nodes: the end of its transaction.
async fn insert(
    tx: &mut Session,
    by: &Access,
    tenant: Tenant,
    settings: &KeySettings,
    now: Option<OffsetDateTime>,
) -> Result<NewKey, Error> {
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
    let change = ("key.create", &*row.key_id);
    note(tx, by, tenant, change, (settings, now)).await?;
    Ok(NewKey {
        secret,
        key: shown(row)?,
    })
}

/// Writes a change of a key down and tells all nodes: the end of its transaction.
async fn note<T: Serialize>(
    tx: &mut Session,
    by: &Access,
    tenant: Tenant,
    (action, target): (&'static str, &str),
    (detail, now): (&T, Option<OffsetDateTime>),
) -> Result<(), Error> {
    let change = Change {
        tenant: Some(tenant),
        action,
        target,
        detail,
    };
    audit::record(tx, by, change, now).await?;
    Ok(store::installation::bump_access(tx).await?)
}

/// Locks the tenant, and sees that it may have another key.
async fn room_for_one(tx: &mut Session, name: &TenantName) -> Result<Tenant, Error> {
    let row = store::tenant::lock(tx, name.as_str()).await?;
    let tenant = row
        .ok_or_else(|| Error::not_found("tenant", name))?
        .tenant_id;
    if store::api_key::count(tx, tenant).await? >= i64::from(KEYS_PER_TENANT_MAX) {
        return Err(Error::Conflict(format!(
            "tenant {name} has {KEYS_PER_TENANT_MAX} keys already; revoke those that are not used"
        )));
    }
    Ok(Tenant(tenant))
}

fn may_give(by: &Access, scopes: &[Scope]) -> Result<(), Error> {
    let mut given = scopes.iter().map(Scope::permission);
    if given.any(|permission| permission == Permission::Admin) {
        by.check_all(Permission::Admin)?;
    }
    Ok(())
}

fn scopes(row: &KeyRow) -> Result<Vec<Scope>, Error> {
    let scopes = row.scopes.iter().map(|scope| scope.parse());
    let corrupt = |_| store::Error::Corrupt {
        table: "api_key",
        column: "scopes",
        row: row.key_id.clone(),
    };
    Ok(scopes.collect::<Result<_, _>>().map_err(corrupt)?)
}

fn shown(row: KeyRow) -> Result<Key, Error> {
    let corrupt = |_| store::Error::Corrupt {
        table: "api_key",
        column: "key_id",
        row: row.key_id.clone(),
    };
    Ok(Key {
        id: row.key_id.parse().map_err(corrupt)?,
        scopes: scopes(&row)?,
        name: row.name,
        created_at: row.created_at.into(),
        expires_at: row.expires_at.map(Into::into),
        last_used_at: row.last_used_at.map(Into::into),
        revoked_at: row.revoked_at.map(Into::into),
    })
}

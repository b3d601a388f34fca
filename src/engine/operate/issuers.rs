//! Issuers of tokens: put, read, list and delete. An issuer can give access to any tenant, so a change requires the
//! scope `admin` for all names. Nodes notice a change by the version of access; `access` checks the tokens.

use api::issuer::{Audience, ClaimName, Issuer, IssuerSettings, TokenAlgorithm, TokenTenant};
use api::limits::{CLOCK_SKEW_SECONDS_DEFAULT, ISSUERS_MAX};
use api::list::Page;
use api::{FieldError, IssuerName, Permission, Scope};
use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::access::audit::{self, Change, Nothing};
use crate::engine::error::Error;
use crate::engine::operate::tenants;
use crate::store::issuer::{IssuerRow, NewIssuer};
use crate::store::{self, Session};

/// Default claim with the scopes of a token.
const SCOPE_CLAIM: &str = "scope";

impl Engine {
    /// Creates an issuer or replaces its settings. Returns `true` if it is new.
    ///
    /// # Errors
    /// When a setting is out of range, the tenant does not exist, another issuer has the same `iss`, or the database
    /// call fails.
    pub async fn put_issuer(
        &self,
        by: &Access,
        name: &IssuerName,
        settings: &IssuerSettings,
    ) -> Result<(Issuer, bool), Error> {
        by.check_all(Permission::Admin)?;
        if let Err(detail) = self.outbound().check(&settings.jwks_url) {
            let error = FieldError::new("/jwks_url", detail);
            return Err(Error::Invalid(vec![error]));
        }
        let now = self.clock().now();
        let mut tx = self.store().tx("put_issuer").await?;
        let created = put(&mut tx, name, settings, now).await?;
        let rows = store::issuer::all(&mut tx).await?;
        if rows.len() > ISSUERS_MAX as usize {
            let detail = format!("there are {ISSUERS_MAX} issuers already");
            return Err(Error::Conflict(detail));
        }
        let row = rows.into_iter().find(|row| row.name == name.as_str());
        let change = Change {
            tenant: None,
            action: "issuer.put",
            target: name.as_str(),
            detail: settings,
        };
        audit::record(&mut tx, by, change, now).await?;
        store::installation::bump_access(&mut tx).await?;
        tx.commit().await?;
        self.poll_now().await;
        Ok((shown(row.ok_or(Error::Internal)?)?, created))
    }

    /// One issuer.
    ///
    /// # Errors
    /// When it does not exist, or the database call fails.
    pub async fn issuer(&self, by: &Access, name: &IssuerName) -> Result<Issuer, Error> {
        let mut all = self.issuers(by).await?.items.into_iter();
        all.find(|issuer| issuer.name == *name)
            .ok_or_else(|| Error::not_found("issuer", name))
    }

    /// All issuers by name: a single page, because there are few.
    ///
    /// # Errors
    /// When the database call fails.
    pub async fn issuers(&self, by: &Access) -> Result<Page<Issuer>, Error> {
        by.check_all(Permission::Admin)?;
        let mut session = self.store().session().await?;
        let rows = store::issuer::all(&mut session).await?.into_iter();
        Ok(Page {
            items: rows.map(shown).collect::<Result<_, _>>()?,
            next: None,
        })
    }

    /// Deletes an issuer. All nodes refuse its tokens from then on.
    ///
    /// # Errors
    /// When it does not exist, or the database call fails.
    pub async fn delete_issuer(&self, by: &Access, name: &IssuerName) -> Result<(), Error> {
        by.check_all(Permission::Admin)?;
        let now = self.clock().now();
        let mut tx = self.store().tx("delete_issuer").await?;
        if !store::issuer::delete(&mut tx, name.as_str()).await? {
            return Err(Error::not_found("issuer", name));
        }
        let change = Change {
            tenant: None,
            action: "issuer.delete",
            target: name.as_str(),
            detail: &Nothing {},
        };
        audit::record(&mut tx, by, change, now).await?;
        store::installation::bump_access(&mut tx).await?;
        tx.commit().await?;
        self.poll_now().await;
        Ok(())
    }
}

/// Writes the row of an issuer. Returns `true` if it is new.
async fn put(
    tx: &mut Session,
    name: &IssuerName,
    settings: &IssuerSettings,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let (tenant, tenant_claim) = match &settings.tenant {
        TokenTenant::Name(name) => (Some(tenants::found(tx, name).await?.tenant_id), None),
        TokenTenant::Claim(claim) => (None, Some(&*claim.0)),
    };
    let audiences: Vec<String> = settings
        .audiences
        .iter()
        .map(|audience| audience.0.clone())
        .collect();
    let scope_claim = settings.scope_claim.as_ref();
    let algorithms: Vec<&str> = settings
        .algorithms
        .as_deref()
        .unwrap_or(&TokenAlgorithm::ALL)
        .iter()
        .map(|algorithm| algorithm.as_str())
        .collect();
    let skew = settings.clock_skew_seconds;
    let scopes: Vec<String> = settings.ceiling().iter().map(ToString::to_string).collect();
    let new = NewIssuer {
        name: name.as_str(),
        issuer: &settings.issuer,
        jwks_url: &settings.jwks_url,
        audiences: &audiences,
        algorithms: &algorithms,
        tenant,
        tenant_claim,
        scope_claim: scope_claim.map_or(SCOPE_CLAIM, |claim| &claim.0),
        scopes: &scopes,
        clock_skew_seconds: skew.unwrap_or(CLOCK_SKEW_SECONDS_DEFAULT).cast_signed(),
    };
    match store::issuer::put(tx, &new, now).await {
        Err(store::Error::Conflict(constraint)) if constraint == "issuer_issuer_key" => {
            Err(Error::AlreadyExists(format!(
                "another issuer than {name} has the iss {}",
                settings.issuer
            )))
        }
        put => Ok(put?),
    }
}

/// An issuer as an API object.
fn shown(row: IssuerRow) -> Result<Issuer, Error> {
    let corrupt = |column| store::Error::Corrupt {
        table: "issuer",
        column,
        row: row.name.clone(),
    };
    let algorithm = |name: &String| {
        let mut all = TokenAlgorithm::ALL.into_iter();
        all.find(|known| known.as_str() == name)
    };
    let algorithms: Option<Vec<_>> = row.algorithms.iter().map(algorithm).collect();
    let tenant = match (&row.tenant, row.tenant_claim) {
        (Some(name), _) => TokenTenant::Name(name.parse().map_err(|_| corrupt("tenant_id"))?),
        (None, Some(claim)) => TokenTenant::Claim(ClaimName(claim)),
        (None, None) => return Err(corrupt("tenant_claim").into()),
    };
    let scopes = row.scopes.iter().map(|scope| scope.parse());
    let scopes: Vec<Scope> = scopes
        .collect::<Result<_, _>>()
        .map_err(|_| corrupt("scopes"))?;
    Ok(Issuer {
        name: row.name.parse().map_err(|_| corrupt("name"))?,
        settings: IssuerSettings {
            algorithms: Some(algorithms.ok_or_else(|| corrupt("algorithms"))?),
            tenant,
            clock_skew_seconds: Some(row.clock_skew_seconds.unsigned_abs()),
            issuer: row.issuer,
            jwks_url: row.jwks_url,
            audiences: row.audiences.into_iter().map(Audience).collect(),
            scope_claim: Some(ClaimName(row.scope_claim)),
            scopes: Some(scopes),
        },
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        keys_read_at: row.jwks_read_at.map(Into::into),
    })
}

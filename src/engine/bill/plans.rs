//! Price plans: put, read, list and delete their versions, and read the prices of a tenant. A plan decides what all
//! tenants pay, so changing it takes the scope `admin` for all names. Prices that may have been billed never change: a
//! version begins today or later, except for the first version of a plan.

use std::collections::BTreeSet;

use api::limits::{PLAN_VERSIONS_MAX, PLANS_MAX};
use api::list::Page;
use api::price::{Plan, PlanVersion, PlanVersionSettings};
use api::{Day, Permission, PlanName};
use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::access::audit::{self, Change, Nothing};
use crate::engine::bill::plan_rows::{applied, corrupt, rows, shown};
use crate::engine::bill::schedule::{Schedule, Version};
use crate::engine::error::Error;
use crate::store::{self, Session, TenantId};

impl Engine {
    /// Creates a version of a plan, or changes one that has not begun. The first version also creates the plan. Returns
    /// `true` if the version is new.
    ///
    /// # Errors
    /// When the currency is not that of the plan, the version is not the first and would begin before today, there are
    /// too many versions or plans, or the database call fails.
    pub async fn put_plan_version(
        &self,
        by: &Access,
        plan: &PlanName,
        day: Day,
        settings: &PlanVersionSettings,
    ) -> Result<(PlanVersion, bool), Error> {
        by.check_all(Permission::Admin)?;
        let now = self.clock().now();
        let mut tx = self.store().tx("put_plan_version").await?;
        store::price_plan::insert(&mut tx, plan.as_str(), &settings.currency, now).await?;
        let currency = store::price_plan::lock(&mut tx, plan.as_str()).await?;
        if let Some(currency) = currency.filter(|currency| *currency != settings.currency) {
            let detail = format!("the currency of plan {plan} is {currency}, which never changes");
            return Err(Error::Conflict(detail));
        }
        let versions = versions(&mut tx, plan).await?;
        let wanted = rows(plan, day, &settings.prices);
        if let Some(version) = versions.iter().find(|version| version.valid_from == day)
            && rows(plan, day, &version.settings.prices) == wanted
        {
            return Ok((version.clone(), false));
        }
        let today = today(&mut tx, now).await?;
        check_put(&mut tx, &versions, plan, day, today).await?;
        let created = store::price_version::put(&mut tx, plan.as_str(), day.0, now).await?;
        store::price::clear(&mut tx, plan.as_str(), day.0).await?;
        store::price::insert(&mut tx, &wanted).await?;
        let change = Change {
            tenant: None,
            action: "plan.put",
            target: &format!("{plan}/{day}"),
            detail: settings,
        };
        audit::record(&mut tx, by, change, now).await?;
        let shown = version(&mut tx, plan, day).await?;
        tx.commit().await?;
        Ok((shown, created))
    }

    /// Deletes a version of a plan. Deleting the last one deletes the plan.
    ///
    /// # Errors
    /// When there is no such version, when tenants have or had the plan and the version has begun or is the last, or
    /// when the database call fails.
    pub async fn delete_plan_version(
        &self,
        by: &Access,
        plan: &PlanName,
        day: Day,
    ) -> Result<(), Error> {
        by.check_all(Permission::Admin)?;
        let now = self.clock().now();
        let mut tx = self.store().tx("delete_plan_version").await?;
        store::price_plan::lock(&mut tx, plan.as_str()).await?;
        let versions = store::price_version::of_plans(&mut tx, &[plan.as_str()]).await?;
        if store::price_plan::has_tenants(&mut tx, plan.as_str()).await? {
            let has_begun = day <= today(&mut tx, now).await?;
            if has_begun || versions.len() == 1 {
                let detail = format!(
                    "tenants have plan {plan}, or had it, and what they used has its prices"
                );
                return Err(Error::Conflict(detail));
            }
        }
        if !store::price_version::delete(&mut tx, plan.as_str(), day.0).await? {
            return Err(no_version(plan, day));
        }
        store::price_plan::delete_empty(&mut tx, plan.as_str()).await?;
        let change = Change {
            tenant: None,
            action: "plan.delete",
            target: &format!("{plan}/{day}"),
            detail: &Nothing {},
        };
        audit::record(&mut tx, by, change, now).await?;
        Ok(tx.commit().await?)
    }

    /// A version of a plan.
    ///
    /// # Errors
    /// When it does not exist, or the database call fails.
    pub async fn plan_version(
        &self,
        by: &Access,
        plan: &PlanName,
        day: Day,
    ) -> Result<PlanVersion, Error> {
        by.check_all(Permission::Admin)?;
        let mut session = self.store().session().await?;
        version(&mut session, plan, day).await
    }

    /// All plans by name: a single page, because there are few.
    ///
    /// # Errors
    /// When the database call fails.
    pub async fn plans(&self, by: &Access) -> Result<Page<Plan>, Error> {
        by.check_all(Permission::Admin)?;
        let mut session = self.store().session().await?;
        let rows = store::price_plan::all(&mut session).await?.into_iter();
        let shown = rows.map(|row| {
            Ok(Plan {
                name: row.name.parse().map_err(|_| corrupt("name", &row.name))?,
                currency: row.currency,
                versions: row.versions.into_iter().map(Day).collect(),
                created_at: row.created_at.into(),
            })
        });
        Ok(Page {
            items: shown.collect::<Result<_, Error>>()?,
            next: None,
        })
    }
}

/// Refuses a new or changed version that would break the rules above.
async fn check_put(
    tx: &mut Session,
    versions: &[PlanVersion],
    plan: &PlanName,
    day: Day,
    today: Day,
) -> Result<(), Error> {
    if !versions.is_empty() && day < today {
        let detail = format!(
            "{day} is past, and plan {plan} has a version: prices that may have been billed do not change"
        );
        return Err(Error::Conflict(detail));
    }
    let is_new = versions.iter().all(|version| version.valid_from != day);
    if is_new && versions.len() >= PLAN_VERSIONS_MAX as usize {
        let detail = format!("plan {plan} has {PLAN_VERSIONS_MAX} versions already");
        return Err(Error::Conflict(detail));
    }
    if versions.is_empty() && store::price_plan::all(tx).await?.len() > PLANS_MAX as usize {
        let detail = format!("there are {PLANS_MAX} price plans already");
        return Err(Error::Conflict(detail));
    }
    Ok(())
}

/// Current day (UTC) of the database.
pub(in crate::engine) async fn today(
    session: &mut Session,
    now: Option<OffsetDateTime>,
) -> Result<Day, Error> {
    Ok(Day(store::usage::status(session, now).await?.at.date()))
}

/// The prices of a tenant over time.
pub(in crate::engine) async fn of_tenant(
    session: &mut Session,
    tenant: TenantId,
) -> Result<Schedule, Error> {
    let spans = store::tenant_plan::of(session, &[tenant]).await?;
    let distinct: BTreeSet<&str> = spans.iter().filter_map(|row| row.plan.as_deref()).collect();
    let plans: Vec<&str> = distinct.into_iter().collect();
    if plans.is_empty() {
        return Ok(Schedule::default());
    }
    let rows = store::price_version::of_plans(session, &plans).await?;
    let prices = store::price::of_plans(session, &plans).await?;
    let versions: Vec<Version> = rows
        .into_iter()
        .map(|row| applied(row, &prices))
        .collect::<Result<_, _>>()?;
    let plans: Vec<_> = spans
        .iter()
        .map(|row| (Day(row.valid_from), row.plan.as_deref()))
        .collect();
    Ok(Schedule::new(&plans, &versions))
}

/// All versions of a plan, by day.
async fn versions(session: &mut Session, plan: &PlanName) -> Result<Vec<PlanVersion>, Error> {
    let rows = store::price_version::of_plans(session, &[plan.as_str()]).await?;
    let prices = store::price::of_plans(session, &[plan.as_str()]).await?;
    rows.into_iter().map(|row| shown(row, &prices)).collect()
}

async fn version(session: &mut Session, plan: &PlanName, day: Day) -> Result<PlanVersion, Error> {
    let mut versions = versions(session, plan).await?.into_iter();
    versions
        .find(|version| version.valid_from == day)
        .ok_or_else(|| no_version(plan, day))
}

fn no_version(plan: &PlanName, day: Day) -> Error {
    Error::not_found("version", format!("{day} of plan {plan}"))
}

//! Budgets of a tenant: put, read, list and delete. A budget covers all usage of the tenant, so reading one takes the
//! scope `usage` for all names and changing one takes `manage` for all names. The transaction of a change also compares
//! the tenant with its budgets (`spend`): alerts that become due are sent, and the tenant is stopped or resumed.

use std::collections::BTreeSet;

use api::budget::{Budget, BudgetAlert, BudgetSettings, Percent};
use api::limits::{ALERT_PERCENTS_DEFAULT, BUDGETS_MAX};
use api::list::Page;
use api::{BudgetName, Permission};

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::access::audit::{self, Change, Nothing};
use crate::engine::bill::spend::{self, Spent};
use crate::engine::error::Error;
use crate::store::budget::{BudgetRow, NewBudget};
use crate::store::budget_alert::AlertRow;
use crate::store::{self, Session, TenantId};

impl Engine {
    /// Creates a budget or replaces its settings. Returns true when it is new.
    ///
    /// # Errors
    /// When there are too many, or the database call fails.
    pub async fn put_budget(
        &self,
        by: &Access,
        name: &BudgetName,
        settings: &BudgetSettings,
    ) -> Result<(Budget, bool), Error> {
        by.check_all(Permission::Manage)?;
        let (tenant, now) = (by.tenant(), self.clock().now());
        let mut tx = self.store().tx("put_budget").await?;
        store::quota::lock_tenant_id(&mut tx, tenant.0).await?;
        let before = store::budget::of_tenant(&mut tx, tenant.0).await?;
        let existing = before.iter().find(|row| row.name == name.as_str());
        if existing.is_none() && before.len() >= BUDGETS_MAX as usize {
            let detail = format!("the tenant has {BUDGETS_MAX} budgets already");
            return Err(Error::Conflict(detail));
        }
        let percents = percents(settings);
        let new = NewBudget {
            name: name.as_str(),
            amount: &settings.amount.to_string(),
            alert_percents: &percents,
            hard_stop: settings.hard_stop.unwrap_or(false),
        };
        let spent = spend::spent(&mut tx, tenant.0, now).await?;
        if !existing.is_some_and(|row| is_same(row, &new)) {
            store::budget::put(&mut tx, tenant.0, &new, now).await?;
            if let Some(row) = existing {
                // Alerts above the percentage that is reached now can be sent again.
                let percent = spent.percent_of(settings.amount).unwrap_or(0);
                let reached = i16::try_from(percent).unwrap_or(i16::MAX);
                let month = spent.month.start().date();
                store::budget_alert::forget(&mut tx, row.budget_id, month, reached).await?;
            }
            let change = Change {
                tenant: Some(tenant),
                action: "budget.put",
                target: name.as_str(),
                detail: settings,
            };
            audit::record(&mut tx, by, change, now).await?;
        }
        spend::compare(&mut tx, tenant.0, &spent, now).await?;
        let shown = one(all(&mut tx, tenant.0, &spent).await?, name)?;
        let created = existing.is_none();
        tx.commit().await?;
        self.poll_now().await;
        Ok((shown, created))
    }

    /// Deletes a budget.
    ///
    /// # Errors
    /// When it does not exist, or the database call fails.
    pub async fn delete_budget(&self, by: &Access, name: &BudgetName) -> Result<(), Error> {
        by.check_all(Permission::Manage)?;
        let (tenant, now) = (by.tenant(), self.clock().now());
        let mut tx = self.store().tx("delete_budget").await?;
        store::quota::lock_tenant_id(&mut tx, tenant.0).await?;
        if !store::budget::delete(&mut tx, tenant.0, name.as_str()).await? {
            return Err(Error::not_found("budget", name));
        }
        let change = Change {
            tenant: Some(tenant),
            action: "budget.delete",
            target: name.as_str(),
            detail: &Nothing {},
        };
        audit::record(&mut tx, by, change, now).await?;
        let spent = spend::spent(&mut tx, tenant.0, now).await?;
        spend::compare(&mut tx, tenant.0, &spent, now).await?;
        tx.commit().await?;
        self.poll_now().await;
        Ok(())
    }

    /// A budget, and how much of it is spent this month.
    ///
    /// # Errors
    /// When it does not exist, or the database call fails.
    pub async fn budget(&self, by: &Access, name: &BudgetName) -> Result<Budget, Error> {
        one(self.budgets(by).await?.items, name)
    }

    /// All budgets by name: a single page, because there are few.
    ///
    /// # Errors
    /// When the database call fails.
    pub async fn budgets(&self, by: &Access) -> Result<Page<Budget>, Error> {
        by.check_all(Permission::Usage)?;
        let mut session = self.store().session().await?;
        let tenant = by.tenant();
        let spent = spend::spent(&mut session, tenant.0, self.clock().now()).await?;
        Ok(Page {
            items: all(&mut session, tenant.0, &spent).await?,
            next: None,
        })
    }
}

/// Alert percentages in rising order, without duplicates. They are validated, so each fits its column.
fn percents(settings: &BudgetSettings) -> Vec<i16> {
    let default = ALERT_PERCENTS_DEFAULT.map(Percent);
    let percents = settings.alert_percents.as_deref().unwrap_or(&default);
    let sorted: BTreeSet<u16> = percents.iter().map(|percent| percent.0).collect();
    sorted.into_iter().map(u16::cast_signed).collect()
}

/// Whether a budget already has these settings.
fn is_same(row: &BudgetRow, new: &NewBudget<'_>) -> bool {
    (&*row.amount, &*row.alert_percents, row.hard_stop)
        == (new.amount, new.alert_percents, new.hard_stop)
}

/// The budget with this name.
fn one(budgets: Vec<Budget>, name: &BudgetName) -> Result<Budget, Error> {
    let found = budgets.into_iter().find(|budget| budget.name == *name);
    found.ok_or_else(|| Error::not_found("budget", name))
}

/// The budgets of a tenant as API objects.
async fn all(session: &mut Session, tenant: TenantId, spent: &Spent) -> Result<Vec<Budget>, Error> {
    let rows = store::budget::of_tenant(session, tenant).await?;
    let alerts =
        store::budget_alert::of_tenant(session, tenant, spent.month.start().date()).await?;
    let quota = store::quota::get(session, tenant).await?;
    let stopped_until = quota.and_then(|quota| quota.stopped_until);
    let is_stopped = stopped_until.is_some_and(|until| until > spent.at);
    let show = |row: BudgetRow| shown(row, &alerts, spent, is_stopped);
    rows.into_iter().map(show).collect()
}

fn shown(
    row: BudgetRow,
    alerts: &[AlertRow],
    spent: &Spent,
    is_stopped: bool,
) -> Result<Budget, Error> {
    let corrupt = |column| store::Error::Corrupt {
        table: "budget",
        column,
        row: row.budget_id.to_string(),
    };
    let amount = spend::amount(&row)?;
    let percent = spent.percent_of(amount);
    let alerts = alerts
        .iter()
        .filter(|alert| alert.budget_id == row.budget_id)
        .map(|alert| {
            Ok(BudgetAlert {
                percent: Percent(alert.percent.unsigned_abs()),
                cost: alert.cost.parse().map_err(|_| corrupt("cost"))?,
                at: alert.at.into(),
            })
        });
    let percents = row.alert_percents.iter();
    Ok(Budget {
        name: row.name.parse().map_err(|_| corrupt("name"))?,
        amount,
        alert_percents: percents.map(|at| Percent(at.unsigned_abs())).collect(),
        hard_stop: row.hard_stop,
        period: spent.month,
        cost: spent.cost.as_ref().map(|(cost, _)| *cost),
        currency: spent.cost.as_ref().map(|(_, currency)| currency.clone()),
        percent,
        alerts: alerts.collect::<Result<_, Error>>()?,
        stopped: is_stopped && spend::stops(&row, percent),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
    })
}

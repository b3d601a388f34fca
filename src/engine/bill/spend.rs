//! Duty `spend`: compares the cost of a tenant's month with its budgets. It sends the alerts that are due. A spent
//! budget with `hard_stop` stops the tenant until the month ends. The duty does this for all tenants, and a change of a
//! budget for its tenant. Either runs in one transaction that has locked the tenant and that records each alert
//! together with its event, so an alert is sent once. Nodes learn of a stop by the version of quotas, like a change of
//! a quota.

use api::budget::{BudgetEvent, Percent};
use api::event::EventKind;
use api::limits::ALERTS_DAYS;
use api::{Decimal, Month};
use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;

use crate::engine::bill::month;
use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::engine::error::Error;
use crate::engine::events::{self, Event};
use crate::store::budget::BudgetRow;
use crate::store::budget_alert::AlertRow;
use crate::store::{self, Session, Store, TenantId};

/// Tenants read by one statement.
const TENANTS: i64 = 1_000;
/// Old alerts deleted per run.
const ALERTS: i64 = 10_000;
/// Percentage at which a budget is spent.
const SPENT: u64 = 100;

/// The cost of a tenant's month so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Spent {
    /// The month.
    pub(in crate::engine) month: Month,
    /// Time of the database when this was read.
    pub(in crate::engine) at: OffsetDateTime,
    /// Cost of all usage so far, and its currency; `None` without a price plan.
    pub(in crate::engine) cost: Option<(Decimal, String)>,
}

impl Spent {
    /// Share of a budget that is spent, in whole percent, rounded down. `None` without a price plan.
    pub(in crate::engine) fn percent_of(&self, amount: Decimal) -> Option<u64> {
        let (cost, _) = self.cost.as_ref()?;
        let percent = cost.trillionths().saturating_mul(100) / amount.trillionths().max(1);
        Some(u64::try_from(percent).unwrap_or(u64::MAX))
    }
}

/// The actions that the budgets of a tenant require.
#[derive(Debug, Default, PartialEq, Eq)]
struct DueActions {
    /// Alerts that are not sent yet.
    alerts: Vec<DueAlert>,
    /// End of the stop; `None`: the tenant is not to be stopped.
    stop_until: Option<OffsetDateTime>,
}

/// An alert that is not sent yet.
#[derive(Debug, PartialEq, Eq)]
struct DueAlert {
    budget: BudgetRow,
    /// Percentage that was reached.
    percent: i16,
}

/// The duty.
#[derive(Debug)]
pub struct Spend;

impl Duty for Spend {
    const NAME: &'static str = "spend";
    const BUSY: std::time::Duration = std::time::Duration::from_secs(10);
    const IDLE: std::time::Duration = std::time::Duration::from_secs(10);
    // Each run adds up the cost of a month for every tenant that has a budget.
    const PAUSE_FACTOR: u32 = 9;

    /// Compares all tenants that have budgets; counts alerts. Can stop between two tenants.
    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let Context { store, clock } = context;
        let mut done = Done::default();
        let mut after = TenantId::BEFORE_ALL;
        let mut session = store.session().await?;
        loop {
            let tenants = store::budget::tenants(&mut session, after, TENANTS).await?;
            let Some(last) = tenants.last() else { break };
            after = *last;
            for tenant in tenants {
                if stop.is_cancelled() {
                    return Ok(done);
                }
                done.count += compare_one(store, &mut session, tenant, clock.now()).await?;
            }
        }
        let at = store::usage::status(&mut session, clock.now()).await?.at;
        let before = (at - Duration::days(i64::from(ALERTS_DAYS))).date();
        store::budget_alert::delete(&mut session, before, ALERTS).await?;
        Ok(done)
    }
}

/// Compares a tenant with its budgets. It locks the tenant only if an action is required.
async fn compare_one(
    store: &Store,
    session: &mut Session,
    tenant: TenantId,
    now: Option<OffsetDateTime>,
) -> Result<u64, Error> {
    let spent = spent(session, tenant, now).await?;
    let due = due_actions(session, tenant, &spent).await?;
    if due.alerts.is_empty() && due.stop_until == stopped_until(session, tenant).await? {
        return Ok(0);
    }
    let mut tx = store.tx("compare_budgets").await?;
    store::quota::lock_tenant_id(&mut tx, tenant).await?;
    let alerts = compare(&mut tx, tenant, &spent, now).await?;
    tx.commit().await?;
    Ok(alerts)
}

/// The cost of a tenant's current month so far.
pub(in crate::engine) async fn spent(
    session: &mut Session,
    tenant: TenantId,
    now: Option<OffsetDateTime>,
) -> Result<Spent, Error> {
    let at = store::usage::status(session, now).await?.at;
    let month = Month::of(at);
    let cost = month::cost_of(session, tenant, month).await?;
    Ok(Spent { month, at, cost })
}

/// Sends the alerts of a tenant that are due, and stops or resumes the tenant. Returns the number of alerts. The
/// caller's transaction has locked the tenant.
pub(in crate::engine) async fn compare(
    tx: &mut Session,
    tenant: TenantId,
    spent: &Spent,
    now: Option<OffsetDateTime>,
) -> Result<u64, Error> {
    let due = due_actions(tx, tenant, spent).await?;
    let mut sent = 0;
    for alert in &due.alerts {
        sent += u64::from(send(tx, tenant, alert, spent).await?);
    }
    if due.stop_until != stopped_until(tx, tenant).await? {
        let version = store::installation::bump_quota(tx).await?;
        store::quota::stop(tx, tenant, due.stop_until, version, now).await?;
    }
    Ok(sent)
}

/// Records an alert and its event for the tenant's sinks. Returns `false` if it was sent before.
async fn send(
    tx: &mut Session,
    tenant: TenantId,
    due: &DueAlert,
    spent: &Spent,
) -> Result<bool, Error> {
    let DueAlert { budget, percent } = due;
    let (cost, currency) = spent.cost.clone().unwrap_or_default();
    let alert = AlertRow {
        budget_id: budget.budget_id,
        percent: *percent,
        cost: cost.to_string(),
        at: spent.at,
    };
    if !store::budget_alert::insert(tx, spent.month.start().date(), &alert).await? {
        return Ok(false);
    }
    let amount = amount(budget)?;
    let data = BudgetEvent {
        budget: budget.name.clone(),
        period: spent.month,
        percent: Percent(percent.unsigned_abs()),
        amount,
        cost,
        currency,
        stopped: stops(budget, spent.percent_of(amount)),
    };
    let event = Event {
        kind: EventKind::Budget,
        // With its id, events of a deleted budget differ from those of a new budget with the same name.
        identity: &[
            &budget.budget_id.to_string(),
            &spent.month.to_string(),
            &percent.to_string(),
            &budget.amount,
        ],
        at: spent.at,
        data: serde_json::to_value(data).map_err(|_| Error::Internal)?,
    };
    events::emit(tx, tenant, &event).await?;
    Ok(true)
}

/// Reads the budgets of a tenant and returns the actions that they require.
async fn due_actions(
    session: &mut Session,
    tenant: TenantId,
    spent: &Spent,
) -> Result<DueActions, Error> {
    let budgets = store::budget::of_tenant(session, tenant).await?;
    let sent = store::budget_alert::of_tenant(session, tenant, spent.month.start().date()).await?;
    unsent_actions(budgets, &sent, spent)
}

/// End of the stop that applies to a tenant now.
async fn stopped_until(
    session: &mut Session,
    tenant: TenantId,
) -> Result<Option<OffsetDateTime>, Error> {
    let quota = store::quota::get(session, tenant).await?;
    Ok(quota.and_then(|quota| quota.stopped_until))
}

/// The actions that these budgets require, without the alerts that were sent.
fn unsent_actions(
    budgets: Vec<BudgetRow>,
    sent: &[AlertRow],
    spent: &Spent,
) -> Result<DueActions, Error> {
    let mut due = DueActions::default();
    for budget in budgets {
        let Some(percent) = spent.percent_of(amount(&budget)?) else {
            continue;
        };
        if stops(&budget, Some(percent)) {
            due.stop_until = Some(spent.month.end());
        }
        let was_sent = |at: i16| {
            sent.iter()
                .any(|alert| (alert.budget_id, alert.percent) == (budget.budget_id, at))
        };
        let alerts = budget
            .alert_percents
            .iter()
            .copied()
            .filter(|at| u64::from(at.unsigned_abs()) <= percent && !was_sent(*at))
            .map(|percent| DueAlert {
                budget: budget.clone(),
                percent,
            });
        due.alerts.extend(alerts);
    }
    Ok(due)
}

/// The amount of a budget.
pub(in crate::engine) fn amount(budget: &BudgetRow) -> Result<Decimal, Error> {
    let corrupt = |_| store::Error::Corrupt {
        table: "budget",
        column: "amount",
        row: budget.budget_id.to_string(),
    };
    Ok(budget.amount.parse().map_err(corrupt)?)
}

/// Whether a budget stops its tenant when this percentage of its amount is spent.
pub(in crate::engine) fn stops(budget: &BudgetRow, percent: Option<u64>) -> bool {
    budget.hard_stop && percent.is_some_and(|percent| percent >= SPENT)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn budget(id: i64, amount: &str, hard_stop: bool) -> BudgetRow {
        BudgetRow {
            budget_id: id,
            name: id.to_string(),
            amount: amount.to_owned(),
            alert_percents: vec![50, 100, 120],
            hard_stop,
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn spent(cost: Option<&str>) -> Spent {
        Spent {
            month: "2030-01".parse().unwrap(),
            at: datetime!(2030-01-31 23:59 UTC),
            cost: cost.map(|cost| (cost.parse().unwrap(), "EUR".to_owned())),
        }
    }

    #[test]
    fn each_percent_that_was_reached_is_due_once() {
        let sent = [AlertRow {
            budget_id: 1,
            percent: 50,
            cost: "5".to_owned(),
            at: OffsetDateTime::UNIX_EPOCH,
        }];
        let due = |cost| {
            let budgets = vec![budget(1, "10", false), budget(2, "20", true)];
            let due = unsent_actions(budgets, &sent, &spent(cost)).unwrap();
            let alerts: Vec<_> = due
                .alerts
                .iter()
                .map(|due| (due.budget.budget_id, due.percent))
                .collect();
            (alerts, due.stop_until)
        };
        let stop = Some(datetime!(2030-02-01 0:00 UTC));
        for (cost, alerts, until) in [
            (None, &[][..], None),
            (Some("9.999999999999"), &[], None),
            (Some("10"), &[(1, 100), (2, 50)], None),
            (Some("19.99"), &[(1, 100), (1, 120), (2, 50)], None),
            (Some("20"), &[(1, 100), (1, 120), (2, 50), (2, 100)], stop),
        ] {
            assert_eq!(due(cost), (alerts.to_vec(), until), "{cost:?}");
        }
    }

    #[test]
    fn the_largest_cost_is_still_a_percent_of_the_smallest_budget() {
        let most = "999999999999999999";
        let percent = spent(Some(most)).percent_of("0.0001".parse().unwrap());
        assert_eq!(percent, Some(u64::MAX), "it is clamped");
        let percent = spent(Some(most)).percent_of(most.parse().unwrap());
        assert_eq!(percent, Some(100));
    }
}

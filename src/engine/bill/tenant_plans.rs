//! The plan of a tenant by day: a list of rows, each of which applies from its day until the next row begins. Called
//! when an operator puts a tenant. The plan of a past day never changes, because that day may have been billed. Only
//! the first plan of a tenant may begin in the past, because nothing had a price before it. A month has one currency,
//! so that its costs add up.

use api::limits::TENANT_PLANS_MAX;
use api::tenant::{PlanChoice, TenantPlan, TenantSettings};
use api::{Day, FieldError, Month, PlanName};
use time::OffsetDateTime;

use crate::engine::access::Tenant;
use crate::engine::bill::plans;
use crate::engine::error::Error;
use crate::store::tenant_plan::TenantPlanRow;
use crate::store::{self, Session};

/// Gives a tenant the plan that its settings name, if they name one. Returns whether that changes anything. The
/// transaction has locked the tenant.
pub(in crate::engine) async fn set(
    tx: &mut Session,
    tenant: Tenant,
    settings: &TenantSettings,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let Some(PlanChoice(plan)) = &settings.plan else {
        return Ok(false);
    };
    let currency = match plan {
        None => None,
        Some(plan) => {
            let currency = store::price_plan::share(tx, plan.as_str()).await?;
            Some(currency.ok_or_else(|| Error::not_found("plan", plan))?)
        }
    };
    let today = plans::today(tx, now).await?;
    let wanted = TenantPlanRow {
        tenant_id: tenant.0,
        valid_from: settings.plan_from.unwrap_or(today).0,
        plan: plan.clone().map(String::from),
        currency,
    };
    let before = store::tenant_plan::of(tx, &[tenant.0]).await?;
    let after = with(&before, wanted);
    if before == after {
        return Ok(false);
    }
    check(&before, &after, today)?;
    for row in before.iter().filter(|row| !after.contains(row)) {
        store::tenant_plan::delete(tx, tenant.0, row.valid_from).await?;
    }
    for row in after.iter().filter(|row| !before.contains(row)) {
        store::tenant_plan::put(tx, row, now).await?;
    }
    store::tenant::touch(tx, tenant.0, now).await?;
    Ok(true)
}

/// The rows of a tenant together with a new one. A row that repeats the plan of the previous row is dropped.
fn with(rows: &[TenantPlanRow], new: TenantPlanRow) -> Vec<TenantPlanRow> {
    let others = rows.iter().filter(|row| row.valid_from != new.valid_from);
    let mut all: Vec<TenantPlanRow> = others.cloned().collect();
    let index = all.partition_point(|row| row.valid_from < new.valid_from);
    all.insert(index, new);
    let mut plan = None;
    all.retain(|row| std::mem::replace(&mut plan, row.plan.clone()) != row.plan);
    all
}

/// Refuses a change of a tenant's rows that breaks the rules above.
fn check(before: &[TenantPlanRow], after: &[TenantPlanRow], today: Day) -> Result<(), Error> {
    let invalid = |detail: String| Error::Invalid(vec![FieldError::new("/plan_from", detail)]);
    if !before.is_empty() && past(before, today) != past(after, today) {
        let detail = format!(
            "must not be before {today}: the tenant has had plans, and what may have been billed by them does not change"
        );
        return Err(invalid(detail));
    }
    if after.len() > TENANT_PLANS_MAX as usize {
        let detail = format!("the tenant has changed its plan {TENANT_PLANS_MAX} times already");
        return Err(Error::Conflict(detail));
    }
    if let Some([one, other]) = two_currencies(after) {
        let [was, is] = [one, other].map(|row| row.currency.as_deref().unwrap_or(""));
        let detail = format!(
            "must be the first day of a month: until {} prices are in {was}, then in {is}, and a month has one currency",
            Day(other.valid_from)
        );
        return Err(invalid(detail));
    }
    Ok(())
}

/// The rows that begin before today.
fn past(rows: &[TenantPlanRow], today: Day) -> &[TenantPlanRow] {
    &rows[..rows.partition_point(|row| row.valid_from < today.0)]
}

/// Two rows of different currencies that apply in the same month, if there are any.
fn two_currencies(rows: &[TenantPlanRow]) -> Option<[&TenantPlanRow; 2]> {
    let ends = rows.iter().skip(1).map(|row| Some(row.valid_from));
    let spans = rows.iter().zip(ends.chain([None]));
    let priced: Vec<_> = spans.filter(|(row, _)| row.plan.is_some()).collect();
    let mut pairs = priced.windows(2).filter_map(|pair| match pair {
        [(one, end), (other, _)] => Some((*one, *end, *other)),
        _ => None,
    });
    let meet = |(one, end, other): (&TenantPlanRow, Option<time::Date>, &TenantPlanRow)| {
        let first = Month::of(Day(other.valid_from).start()).start();
        one.currency != other.currency && end.is_some_and(|end| Day(end).start() > first)
    };
    let found = pairs.find(|pair| meet(*pair));
    found.map(|(one, _, other)| [one, other])
}

/// The row that applies on a day.
fn on(rows: &[TenantPlanRow], day: Day) -> Option<&TenantPlanRow> {
    rows.iter().rev().find(|row| row.valid_from <= day.0)
}

/// The rows of one tenant as API objects: the plan of today, and all rows.
pub(in crate::engine) fn shown(
    rows: &[TenantPlanRow],
    today: Day,
) -> Result<(Option<PlanName>, Vec<TenantPlan>), Error> {
    let plan = |row: &TenantPlanRow| {
        let corrupt = |_| store::Error::Corrupt {
            table: "tenant_plan",
            column: "plan",
            row: row.tenant_id.to_string(),
        };
        row.plan
            .clone()
            .map(PlanName::try_from)
            .transpose()
            .map_err(corrupt)
    };
    let current = on(rows, today).map(plan).transpose()?.flatten();
    let all = rows.iter().map(|row| {
        Ok(TenantPlan {
            valid_from: Day(row.valid_from),
            plan: plan(row)?,
        })
    });
    Ok((current, all.collect::<Result<_, Error>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::TenantId;

    /// Rows from texts like `2030-01-01 a EUR`, or `2030-01-01` for no plan.
    fn rows(texts: &[&str]) -> Vec<TenantPlanRow> {
        let row = |text: &&str| {
            let mut words = text.split(' ');
            TenantPlanRow {
                tenant_id: TenantId::new(1),
                valid_from: words.next().unwrap().parse::<Day>().unwrap().0,
                plan: words.next().map(str::to_owned),
                currency: words.next().map(str::to_owned),
            }
        };
        texts.iter().map(row).collect()
    }

    fn put(before: &[&str], new: &str) -> Vec<TenantPlanRow> {
        with(&rows(before), rows(&[new]).remove(0))
    }

    #[test]
    fn a_row_that_changes_nothing_is_dropped() {
        let before = ["2030-01-01 a EUR", "2030-03-01 b EUR"];
        for (new, after) in [
            (
                "2030-02-01 b EUR",
                &["2030-01-01 a EUR", "2030-02-01 b EUR"][..],
            ),
            ("2030-02-01 a EUR", &before),
            ("2030-03-01 a EUR", &["2030-01-01 a EUR"]),
            ("2029-01-01", &before),
            ("2030-01-01", &["2030-03-01 b EUR"]),
            (
                "2030-02-01",
                &["2030-01-01 a EUR", "2030-02-01", "2030-03-01 b EUR"],
            ),
            (
                "2029-12-01 a EUR",
                &["2029-12-01 a EUR", "2030-03-01 b EUR"],
            ),
        ] {
            assert_eq!(put(&before, new), rows(after), "{new}");
        }
    }

    #[test]
    fn what_is_past_does_not_change_and_a_month_has_one_currency() {
        let before = ["2030-01-01 a EUR", "2030-03-01 b EUR"];
        let refused = |before: &[&str], new: &str| {
            let today = "2030-02-10".parse().unwrap();
            match check(&rows(before), &put(before, new), today) {
                Ok(()) => false,
                Err(Error::Invalid(errors)) => errors[0].pointer == "/plan_from",
                Err(other) => panic!("{other}"),
            }
        };
        for new in [
            "2030-02-09 b EUR",
            "2029-12-01 b EUR",
            "2030-01-01",
            "2030-02-10 c USD",
            "2030-03-02 c USD",
        ] {
            assert!(refused(&before, new), "{new}");
        }
        for new in ["2030-02-10 b EUR", "2030-03-01 c USD", "2030-04-01 c USD"] {
            assert!(!refused(&before, new), "{new}");
        }
        assert!(!refused(&[], "2020-05-05 a EUR"), "the first one");
        // A gap without a plan does not allow two currencies in a month.
        let gap = ["2030-01-01 a EUR", "2030-03-05"];
        assert!(refused(&gap, "2030-03-09 c USD"));
        assert!(!refused(&gap, "2030-04-09 c USD"));
    }
}

//! Price plans: put, read, list and delete their versions, and the plan of a tenant. Who may do this decides what all
//! tenants pay, so it takes the scope `admin` for all of them. Prices that may have been billed never change: a version
//! begins today or later, but for the first of a plan.

use api::limits::{PLAN_VERSIONS_MAX, PLANS_MAX};
use api::list::Page;
use api::price::{
    Plan as ShownPlan, PlanVersion, PlanVersionSettings, Price, PriceItem, Prices, Tier, Whole,
};
use api::{Day, Permission, PlanName};
use time::OffsetDateTime;

use crate::store::price::{PriceRow, VersionRow};
use crate::store::{self, Session};

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::access::audit::{self, Change, Nothing};
use crate::engine::bill::schedule::{Ladder, Schedule, Version};
use crate::engine::error::Error;

impl Engine {
    /// Creates a version of a plan, and the plan with its first version; or changes one that has not begun. True when it
    /// is new.
    ///
    /// # Errors
    /// When its currency is not that of the plan, it began before today and is not the first, there are too many, or the
    /// database does not answer.
    pub async fn put_plan_version(
        &self,
        by: &Access,
        (plan, day): (&PlanName, Day),
        settings: &PlanVersionSettings,
    ) -> Result<(PlanVersion, bool), Error> {
        by.check_all(Permission::Admin)?;
        let now = self.clock().now();
        let mut tx = self.store().tx("put_plan_version").await?;
        store::price::insert_plan(&mut tx, plan.as_str(), &settings.currency, now).await?;
        let currency = store::price::lock_plan(&mut tx, plan.as_str()).await?;
        if let Some(currency) = currency.filter(|currency| *currency != settings.currency) {
            let detail = format!("the currency of plan {plan} is {currency}, which never changes");
            return Err(Error::Conflict(detail));
        }
        let versions = versions(&mut tx, plan).await?;
        let wanted = rows((plan, day), &settings.prices);
        if let Some(version) = versions.iter().find(|version| version.valid_from == day)
            && rows((plan, day), &version.settings.prices) == wanted
        {
            return Ok((version.clone(), false));
        }
        self.check_put(&mut tx, &versions, (plan, day)).await?;
        let created = store::price::put_version(&mut tx, plan.as_str(), day.0, now).await?;
        store::price::clear(&mut tx, plan.as_str(), day.0).await?;
        store::price::insert(&mut tx, &wanted).await?;
        self.plan_changed(&mut tx, by, ("plan.put", plan, day), settings)
            .await?;
        let shown = version(&mut tx, plan, day).await?;
        tx.commit().await?;
        Ok((shown, created))
    }

    /// Whether a version may be put beside these.
    async fn check_put(
        &self,
        tx: &mut Session,
        versions: &[PlanVersion],
        (plan, day): (&PlanName, Day),
    ) -> Result<(), Error> {
        if !versions.is_empty() && day < today(tx, self.clock().now()).await? {
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
        if versions.is_empty() && store::price::plans(tx).await?.len() > PLANS_MAX as usize {
            let detail = format!("there are {PLANS_MAX} price plans already");
            return Err(Error::Conflict(detail));
        }
        Ok(())
    }

    /// Deletes a version of a plan, and the plan with its last one.
    ///
    /// # Errors
    /// When there is none, tenants have or had the plan and the version has begun or is the last, or the database does not
    /// answer.
    pub async fn delete_plan_version(
        &self,
        by: &Access,
        plan: &PlanName,
        day: Day,
    ) -> Result<(), Error> {
        by.check_all(Permission::Admin)?;
        let mut tx = self.store().tx("delete_plan_version").await?;
        store::price::lock_plan(&mut tx, plan.as_str()).await?;
        let versions = store::price::versions(&mut tx, &[plan.as_str()]).await?;
        if store::price::has_tenants(&mut tx, plan.as_str()).await? {
            let has_begun = day <= today(&mut tx, self.clock().now()).await?;
            if has_begun || versions.len() == 1 {
                let detail = format!(
                    "tenants have plan {plan}, or had it, and what they used has its prices"
                );
                return Err(Error::Conflict(detail));
            }
        }
        if !store::price::delete_version(&mut tx, plan.as_str(), day.0).await? {
            return Err(no_version(plan, day));
        }
        store::price::delete_empty(&mut tx, plan.as_str()).await?;
        self.plan_changed(&mut tx, by, ("plan.delete", plan, day), &Nothing {})
            .await?;
        Ok(tx.commit().await?)
    }

    /// A version of a plan.
    ///
    /// # Errors
    /// When there is none, or the database does not answer.
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
    /// When the database does not answer.
    pub async fn plans(&self, by: &Access) -> Result<Page<ShownPlan>, Error> {
        by.check_all(Permission::Admin)?;
        let mut session = self.store().session().await?;
        let rows = store::price::plans(&mut session).await?.into_iter();
        let shown = rows.map(|row| {
            Ok(ShownPlan {
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

    /// Writes a change of a plan down, in its transaction.
    async fn plan_changed<T: serde::Serialize>(
        &self,
        tx: &mut Session,
        by: &Access,
        (action, plan, day): (&'static str, &PlanName, Day),
        detail: &T,
    ) -> Result<(), Error> {
        let change = Change {
            tenant: None,
            action,
            target: &format!("{plan}/{day}"),
            detail,
        };
        audit::record(tx, by, change, self.clock().now()).await
    }
}

/// The day (UTC) of the database.
pub(in crate::engine) async fn today(
    session: &mut Session,
    now: Option<OffsetDateTime>,
) -> Result<Day, Error> {
    Ok(Day(store::usage::status(session, now).await?.at.date()))
}

/// The prices of a tenant over time, ready to be applied.
pub(in crate::engine) async fn of_tenant(
    session: &mut Session,
    tenant: i64,
) -> Result<Schedule, Error> {
    let spans = store::tenant_plan::of(session, &[tenant]).await?;
    let mut plans: Vec<&str> = spans.iter().filter_map(|row| row.plan.as_deref()).collect();
    plans.sort_unstable();
    plans.dedup();
    if plans.is_empty() {
        return Ok(Schedule::default());
    }
    let rows = store::price::versions(session, &plans).await?;
    let prices = store::price::of_plans(session, &plans).await?;
    let versions = rows.into_iter().map(|row| applied(row, &prices));
    let versions = versions.collect::<Result<Vec<_>, _>>()?;
    let spans = spans
        .iter()
        .map(|row| (Day(row.valid_from), row.plan.as_deref()));
    Ok(Schedule::new(&spans.collect::<Vec<_>>(), &versions))
}

/// A version, ready to be applied.
fn applied(row: VersionRow, prices: &[PriceRow]) -> Result<Version, Error> {
    let PlanVersion {
        plan,
        valid_from,
        settings,
        ..
    } = shown(row, prices)?;
    let ladder = |item: PriceItem| {
        let price = settings.prices.of(item)?;
        Some((item, Ladder::new(price, item.unit())))
    };
    Ok(Version {
        plan,
        valid_from,
        ladders: PriceItem::ALL.into_iter().filter_map(ladder).collect(),
        currency: settings.currency,
    })
}

async fn versions(session: &mut Session, plan: &PlanName) -> Result<Vec<PlanVersion>, Error> {
    let rows = store::price::versions(session, &[plan.as_str()]).await?;
    let prices = store::price::of_plans(session, &[plan.as_str()]).await?;
    rows.into_iter().map(|row| shown(row, &prices)).collect()
}

async fn version(session: &mut Session, plan: &PlanName, day: Day) -> Result<PlanVersion, Error> {
    let versions = versions(session, plan).await?;
    let found = versions
        .into_iter()
        .find(|version| version.valid_from == day);
    found.ok_or_else(|| no_version(plan, day))
}

fn no_version(plan: &PlanName, day: Day) -> Error {
    Error::not_found("version", format!("{day} of plan {plan}"))
}

/// The rows of prices: the last tier of an item has no size.
fn rows((plan, day): (&PlanName, Day), prices: &Prices) -> Vec<PriceRow> {
    let mut rows = Vec::new();
    for item in PriceItem::ALL {
        let Some(price) = prices.of(item) else {
            continue;
        };
        let tiers = price.tiers.iter();
        let sized = tiers.map(|tier| (i64::try_from(tier.size.0).ok(), tier.unit_price));
        for (tier, (size, unit_price)) in (0i16..).zip(sized.chain([(None, price.unit_price)])) {
            rows.push(PriceRow {
                plan: plan.to_string(),
                valid_from: day.0,
                item: item.as_str().to_owned(),
                tier,
                per: price.per.map_or(1, |per| i32::try_from(per.0).unwrap_or(1)),
                size,
                unit_price: unit_price.to_string(),
            });
        }
    }
    rows
}

/// A version from its row and the prices of its plan, which may be among others.
fn shown(row: VersionRow, prices: &[PriceRow]) -> Result<PlanVersion, Error> {
    let mut found = Prices::default();
    for price in prices
        .iter()
        .filter(|price| price.plan == row.plan && price.valid_from == row.valid_from)
    {
        let item = PriceItem::ALL
            .into_iter()
            .find(|item| item.as_str() == price.item);
        let item = item.ok_or_else(|| corrupt("item", &row.plan))?;
        let unit_price = price.unit_price.parse();
        let unit_price = unit_price.map_err(|_| corrupt("unit_price", &row.plan))?;
        let place = found.place(item).get_or_insert(Price {
            per: (price.per > 1).then(|| Whole(u64::from(price.per.unsigned_abs()))),
            tiers: Vec::new(),
            unit_price,
        });
        match price.size {
            Some(size) => place.tiers.push(Tier {
                size: Whole(size.unsigned_abs()),
                unit_price,
            }),
            None => place.unit_price = unit_price,
        }
    }
    Ok(PlanVersion {
        plan: row.plan.parse().map_err(|_| corrupt("plan", &row.plan))?,
        valid_from: Day(row.valid_from),
        settings: PlanVersionSettings {
            currency: row.currency,
            prices: found,
        },
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
    })
}

fn corrupt(column: &'static str, row: &str) -> Error {
    let row = row.to_owned();
    store::Error::Corrupt {
        table: "price",
        column,
        row,
    }
    .into()
}

//! A month in the format of FOCUS 1.2 (FinOps Open Cost and Usage Specification): one line per day, meter, topic,
//! subscription and tier. A day is the finest period that cost tools load by default, and the coarsest that shows
//! trends. A line has one unit price, so each tier has its own line. Amounts are exact to twelve decimal places and add
//! up to the cost of the month; rounding is left to the bill. Usage is read page by page, so the memory of an export is
//! bounded (I9).

mod charge;

use std::sync::Arc;

use api::usage::Granularity;
use api::{Month, Permission};

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::bill::month::invoice_id;
use crate::engine::bill::plans;
use crate::engine::bill::schedule::Schedule;
use crate::engine::bill::usage::item;
use crate::engine::bill::usage_after::UsageAfter;
use crate::engine::error::Error;
use crate::store;
use crate::store::usage_read::UsageSelection;

pub use charge::COLUMNS;

/// Rows of usage per page.
const PAGE_ROWS: u16 = 5_000;

/// A running export.
#[derive(Debug, Clone)]
pub struct Export {
    by: Arc<Access>,
    month: Month,
    prices: Schedule,
    account: String,
    tenant: String,
    /// Id of the invoice; `None` while the month may still change.
    invoice: Option<String>,
    after: Option<UsageAfter>,
    is_done: bool,
}

impl Export {
    /// The exported month.
    #[must_use]
    pub const fn month(&self) -> Month {
        self.month
    }
}

impl Engine {
    /// Starts to export a month (`None`: the current one), restricted to the topics whose usage the caller may read.
    /// Returns the first page.
    ///
    /// # Errors
    /// When the tenant never had a price plan, or the database call fails.
    pub async fn export_usage(
        &self,
        by: Arc<Access>,
        month: Option<Month>,
    ) -> Result<(String, Export), Error> {
        let mut session = self.store().session().await?;
        let status = store::usage::status(&mut session, self.clock().now()).await?;
        let prices = plans::of_tenant(&mut session, by.tenant().0).await?;
        if prices.is_empty() {
            let detail =
                "the tenant never had a price plan, so there is nothing that it is charged for";
            return Err(Error::Conflict(detail.to_owned()));
        }
        let tenant = store::tenant::name(&mut session, by.tenant().0).await?;
        drop(session);
        let month = month.unwrap_or_else(|| Month::of(status.at));
        let mut export = Export {
            by,
            invoice: invoice_id(&tenant, month, status.metered_until),
            month,
            prices,
            account: self.installation().installation_id.to_string(),
            tenant,
            after: None,
            is_done: false,
        };
        let mut text = COLUMNS.join(",") + "\r\n";
        text.push_str(&self.export_page(&mut export).await?.unwrap_or_default());
        Ok((text, export))
    }

    /// The next page of an export; `None` after the last.
    ///
    /// # Errors
    /// When the database call fails.
    pub async fn export_page(&self, export: &mut Export) -> Result<Option<String>, Error> {
        if export.is_done {
            return Ok(None);
        }
        let month = export.month;
        let after = export.after.as_ref().map(UsageAfter::position);
        let selection = UsageSelection {
            tenant: export.by.tenant().0,
            topics: &export.by.like(&[Permission::Usage]),
            since: month.start(),
            from: month.start(),
            to: month.end(),
            granularity: Granularity::Day.as_str(),
            names: 2,
            over_time_only: false,
            after: after.unwrap_or((month.start(), "", "", "")),
            limit: i64::from(PAGE_ROWS),
        };
        let mut session = self.store().session().await?;
        let rows = store::usage_read::list(&mut session, &selection).await?;
        drop(session);
        export.is_done = rows.len() < usize::from(PAGE_ROWS);
        let mut text = String::new();
        for row in rows {
            charge::append(&mut text, export, &row)?;
            export.after = Some(UsageAfter::of(&item(&row, &export.prices)?));
        }
        Ok(Some(text))
    }
}

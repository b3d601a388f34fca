//! Usage of a tenant, for `GET /v1/usage`: the windows of a range, page by page, by minute, hour or day. A page covers
//! a bounded number of windows (I9). The cost of a window depends on the usage before it in its month, which the store
//! adds up.

use api::limits::{PAGE, USAGE_WINDOWS_MAX};
use api::price::PriceUnit;
use api::usage::{Granularity, UsageBy, UsageItem, UsagePage};
use api::{FieldError, Permission, Timestamp};
use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::bill::schedule::Schedule;
use crate::engine::bill::usage_after::UsageAfter;
use crate::engine::bill::{plans, portion};
use crate::engine::error::Error;
use crate::engine::meter::roll_up;
use crate::store;
use crate::store::usage_read::{UsageRow, UsageSelection};

/// A request for usage.
#[derive(Debug, Clone, Default)]
pub struct UsageRequest {
    /// A time in the first window; `None`: the list covers one day.
    pub from: Option<Timestamp>,
    /// The last window ends at or after this time; `None`: now.
    pub to: Option<Timestamp>,
    /// Length of a window.
    pub granularity: Granularity,
    /// Grouping in addition to window and meter.
    pub by: UsageBy,
    /// Position of the last item of the previous page.
    pub after: Option<UsageAfter>,
    /// Most items of a page.
    pub limit: u32,
}

impl Engine {
    /// A page of usage, restricted to the topics whose usage the caller may read.
    ///
    /// # Errors
    /// When the range is empty, too long, or too old for its granularity, or the database call fails.
    pub async fn usage(&self, by: &Access, request: UsageRequest) -> Result<UsagePage, Error> {
        let limit = request.limit.clamp(*PAGE.start(), *PAGE.end());
        let mut session = self.store().session().await?;
        let status = store::usage::status(&mut session, self.clock().now()).await?;
        let (from, to) = range(&request, status.at).map_err(|error| Error::Invalid(vec![error]))?;
        let prices = plans::of_tenant(&mut session, by.tenant().0).await?;
        let after = match &request.after {
            Some(after) => after.position(),
            None => (from, "", "", ""),
        };
        let first = from.max(after.0);
        let selection = UsageSelection {
            tenant: by.tenant().0,
            topics: &by.like(&[Permission::Usage]),
            since: prices.totals_since(first),
            from,
            to,
            granularity: request.granularity.as_str(),
            names: match request.by {
                UsageBy::Meter => 0,
                UsageBy::Topic => 1,
                UsageBy::Subscription => 2,
            },
            over_time_only: false,
            after,
            limit: i64::from(limit) + 1,
        };
        let rows = store::usage_read::list(&mut session, &selection).await?;
        let items: Vec<UsageItem> = rows
            .iter()
            .map(|row| item(row, &prices))
            .collect::<Result<_, _>>()?;
        let page = crate::engine::page::page(items, limit, |item| UsageAfter::of(item).to_string());
        Ok(UsagePage {
            items: page.items,
            next: page.next,
            metered_until: status.metered_until.map(Into::into),
        })
    }
}

/// Start of the first window and end of the last.
fn range(
    request: &UsageRequest,
    at: OffsetDateTime,
) -> Result<(OffsetDateTime, OffsetDateTime), FieldError> {
    let window = i64::from(request.granularity.seconds());
    let name = request.granularity.as_str();
    let (kept_since, windows_max) = match request.granularity {
        Granularity::Minute => (roll_up::first_minute(at), USAGE_WINDOWS_MAX[0]),
        Granularity::Hour => (roll_up::first_hour(at), USAGE_WINDOWS_MAX[1]),
        Granularity::Day => (OffsetDateTime::UNIX_EPOCH, USAGE_WINDOWS_MAX[2]),
    };
    // The current time counts as inside the last window, even at the first moment of that window.
    let end = request.to.map_or(at.unix_timestamp() + 1, |to| {
        let to = OffsetDateTime::from(to);
        to.unix_timestamp() + i64::from(to.nanosecond() > 0)
    });
    let last_window = (end - 1).div_euclid(window);
    let first_window = request
        .from
        .map_or(last_window + 1 - 86_400 / window, |from| {
            OffsetDateTime::from(from)
                .unix_timestamp()
                .div_euclid(window)
        });
    let is_empty = request
        .from
        .zip(request.to)
        .is_some_and(|(from, to)| from >= to);
    if is_empty || first_window > last_window {
        return Err(FieldError::of_parameter("to", "must be after from"));
    }
    if last_window - first_window >= i64::from(windows_max) {
        let detail = format!("must be at most {windows_max} windows of a {name} after from");
        return Err(FieldError::of_parameter("to", detail));
    }
    if first_window * window < kept_since.unix_timestamp() {
        let since = Timestamp::from(kept_since);
        let detail = format!("must not be before {since}: usage by the {name} is kept since then");
        return Err(FieldError::of_parameter("from", detail));
    }
    let time = |window_number: i64| {
        let seconds = window_number * window;
        OffsetDateTime::from_unix_timestamp(seconds)
            .map_err(|_| FieldError::of_parameter("to", "is out of range"))
    };
    Ok((time(first_window)?, time(last_window + 1)?))
}

/// A row as an API object, with its cost if a plan applies at its time.
pub(in crate::engine) fn item(row: &UsageRow, prices: &Schedule) -> Result<UsageItem, Error> {
    let meter = portion::meter(row)?;
    let unit = meter.over_time();
    let amount_in = |of: PriceUnit| row.amount.clone().filter(|_| unit == Some(of));
    let version = prices.at(row.start);
    let cost = prices.cost(row.start, &portion::of_row(row)?);
    let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    let units = row.units.unsigned_abs();
    let elastic_units = row.elastic_units.unsigned_abs();
    Ok(UsageItem {
        start: row.start.into(),
        meter,
        topic: named(&row.topic),
        subscription: named(&row.subscription),
        units,
        guaranteed_units: units.saturating_sub(elastic_units),
        elastic_units,
        messages: row.messages.unsigned_abs(),
        bytes: row.bytes.unsigned_abs(),
        gib_hours: amount_in(PriceUnit::GibHours),
        capacity_hours: amount_in(PriceUnit::CapacityHours),
        currency: version.map(|version| version.currency.clone()),
        cost,
    })
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2030-01-10 12:34:56.789 UTC);

    fn request(granularity: Granularity, from: OffsetDateTime, to: OffsetDateTime) -> UsageRequest {
        UsageRequest {
            from: Some(from.into()),
            to: Some(to.into()),
            granularity,
            ..UsageRequest::default()
        }
    }

    #[test]
    fn a_range_has_every_window_that_it_touches() {
        let whole = datetime!(2030-01-10 10:00 UTC);
        let cases = [
            (Granularity::Hour, whole, whole + Duration::HOUR, 1),
            (Granularity::Hour, whole, whole + Duration::MICROSECOND, 1),
            (
                Granularity::Hour,
                whole - Duration::SECOND,
                whole + Duration::HOUR,
                2,
            ),
            (Granularity::Minute, whole, whole + Duration::DAY, 1_440),
            (Granularity::Day, whole, whole + Duration::DAY, 2),
        ];
        for (granularity, from, to, windows) in cases {
            let (first, end) = range(&request(granularity, from, to), NOW).unwrap();
            let seconds = (end - first).whole_seconds();
            assert_eq!(seconds / i64::from(granularity.seconds()), windows);
            assert!(first <= from && to <= end);
        }
        for now in [NOW, datetime!(2030-01-10 12:00 UTC)] {
            let (from, to) = range(&UsageRequest::default(), now).unwrap();
            assert_eq!(from, datetime!(2030-01-09 13:00 UTC));
            assert_eq!(to, datetime!(2030-01-10 13:00 UTC));
        }
    }

    #[test]
    fn a_range_that_cannot_be_answered_is_refused_by_its_field() {
        let whole = datetime!(2030-01-10 10:00 UTC);
        let long = |granularity, windows| {
            let window = Duration::seconds(i64::from(Granularity::seconds(granularity)));
            request(granularity, whole, whole + window * windows)
        };
        let old = |granularity, days| {
            let from = NOW - Duration::days(days);
            request(granularity, from, from + Duration::MINUTE)
        };
        for (request, pointer) in [
            (request(Granularity::Day, whole, whole), "parameter:to"),
            (long(Granularity::Minute, 1_441), "parameter:to"),
            (long(Granularity::Hour, 745), "parameter:to"),
            (long(Granularity::Day, 400), "parameter:to"),
            (old(Granularity::Minute, 9), "parameter:from"),
            (old(Granularity::Hour, 401), "parameter:from"),
        ] {
            assert_eq!(
                range(&request, NOW).unwrap_err().pointer,
                pointer,
                "{request:?}"
            );
        }
        assert!(range(&old(Granularity::Minute, 8), NOW).is_ok());
        assert!(range(&old(Granularity::Day, 4_000), NOW).is_ok());
    }
}

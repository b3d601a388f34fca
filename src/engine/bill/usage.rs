//! Reading usage: windows of a range, a page at a time, whatever of it is still in minutes or rolled up. A page costs a
//! bounded number of windows, so that nobody's bill slows the service down. What a window costs depends on what was used
//! before it in its month, which the store adds up; `price` knows the rest.

use std::fmt;
use std::str::FromStr;

use api::limits::{PAGE, USAGE_WINDOWS_MAX};
use api::usage::{Granularity, Meter, UsageBy, UsageItem, UsagePage};
use api::{FieldError, Permission, Timestamp};
use time::OffsetDateTime;

use crate::store;
use crate::store::usage_list::{UsageRow, Wanted};

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::bill::plans;
use crate::engine::bill::schedule::{self, Measured, Part, Schedule};
use crate::engine::error::Error;
use crate::engine::meter::roll_up;

/// Which usage.
#[derive(Debug, Clone, Default)]
pub struct UsageAsk {
    /// A time in the first window; `None`: a day of windows.
    pub from: Option<Timestamp>,
    /// The last window ends with or after it; now when `None`.
    pub to: Option<Timestamp>,
    /// Length of a window.
    pub granularity: Granularity,
    /// What to add up by beside windows and meters.
    pub by: UsageBy,
    /// Where the page before ended.
    pub after: Option<UsageAfter>,
    /// Most items.
    pub limit: u32,
}

/// Where a page of usage ended; as text it is the `next` of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageAfter {
    /// Start of the window, in minutes since the Unix epoch.
    minute: i64,
    meter: Meter,
    topic: String,
    subscription: String,
}

impl Engine {
    /// A page of usage, of the topics whose usage the caller may read.
    ///
    /// # Errors
    /// When the range is empty, too long, or so old that its windows are not kept; or the database does not answer.
    pub async fn usage(&self, by: &Access, ask: UsageAsk) -> Result<UsagePage, Error> {
        let limit = ask.limit.clamp(*PAGE.start(), *PAGE.end());
        let mut session = self.store().session().await?;
        let status = store::usage::status(&mut session, self.clock().now()).await?;
        let (from, to) = range(&ask, status.at).map_err(|error| Error::Invalid(vec![error]))?;
        let prices = plans::of_tenant(&mut session, by.tenant().0).await?;
        let after = ask.after.as_ref();
        let after = after.map_or((from, "", "", ""), UsageAfter::place);
        let first = from.max(after.0);
        let wanted = Wanted {
            tenant: by.tenant().0,
            topics: &by.like(&[Permission::Usage]),
            since: prices.totals_since(first),
            from,
            to,
            granularity: ask.granularity.as_str(),
            names: match ask.by {
                UsageBy::Meter => 0,
                UsageBy::Topic => 1,
                UsageBy::Subscription => 2,
            },
            after,
            limit: i64::from(limit) + 1,
        };
        let rows = store::usage_list::list(&mut session, &wanted).await?;
        let items = rows.into_iter().map(|row| item(row, &prices));
        let items = items.collect::<Result<Vec<_>, _>>()?;
        let page = crate::engine::page(items, limit, |item| UsageAfter::of(item).to_string());
        Ok(UsagePage {
            items: page.items,
            next: page.next,
            metered_until: status.metered_until.map(Into::into),
        })
    }
}

/// Start of the first window and end of the last.
fn range(
    ask: &UsageAsk,
    at: OffsetDateTime,
) -> Result<(OffsetDateTime, OffsetDateTime), FieldError> {
    let window = i64::from(ask.granularity.seconds());
    let name = ask.granularity.as_str();
    let (kept_since, windows_max) = match ask.granularity {
        Granularity::Minute => (roll_up::first_minute(at), USAGE_WINDOWS_MAX[0]),
        Granularity::Hour => (roll_up::first_hour(at), USAGE_WINDOWS_MAX[1]),
        Granularity::Day => (OffsetDateTime::UNIX_EPOCH, USAGE_WINDOWS_MAX[2]),
    };
    // Now is in the last window, also when that has just begun.
    let end = ask.to.map_or(at.unix_timestamp() + 1, |to| {
        let to = OffsetDateTime::from(to);
        to.unix_timestamp() + i64::from(to.nanosecond() > 0)
    });
    let last_window = (end - 1).div_euclid(window);
    let first_window = ask.from.map_or(last_window + 1 - 86_400 / window, |from| {
        OffsetDateTime::from(from)
            .unix_timestamp()
            .div_euclid(window)
    });
    let is_empty = ask.from.zip(ask.to).is_some_and(|(from, to)| from >= to);
    if is_empty || first_window > last_window {
        return Err(FieldError::new("query:to", "must be after from"));
    }
    if last_window - first_window >= i64::from(windows_max) {
        let detail = format!("must be at most {windows_max} windows of a {name} after from");
        return Err(FieldError::new("query:to", detail));
    }
    if first_window * window < kept_since.unix_timestamp() {
        let since = Timestamp::from(kept_since);
        let detail = format!("must not be before {since}: usage by the {name} is kept since then");
        return Err(FieldError::new("query:from", detail));
    }
    let time = |window_number: i64| {
        let seconds = window_number * window;
        OffsetDateTime::from_unix_timestamp(seconds)
            .map_err(|_| FieldError::new("query:to", "is out of range"))
    };
    Ok((time(first_window)?, time(last_window + 1)?))
}

/// A row as it is shown, with its cost when a plan has a price for its time.
pub(in crate::engine) fn item(row: UsageRow, prices: &Schedule) -> Result<UsageItem, Error> {
    let parts = parts(&row)?;
    let version = prices.at(row.start);
    let cost = prices.cost(row.start, &parts);
    let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    let units = row.units.unsigned_abs();
    let elastic_units = row.elastic_units.unsigned_abs();
    Ok(UsageItem {
        start: row.start.into(),
        meter: meter(&row)?,
        topic: named(&row.topic),
        subscription: named(&row.subscription),
        units,
        guaranteed_units: units.saturating_sub(elastic_units),
        elastic_units,
        messages: row.messages.unsigned_abs(),
        bytes: row.bytes.unsigned_abs(),
        gib_hours: row.gib_hours,
        capacity_hours: row.capacity_hours,
        currency: version.map(|version| version.currency.clone()),
        cost,
    })
}

/// The meter of a row.
pub(in crate::engine) fn meter(row: &UsageRow) -> Result<Meter, Error> {
    Meter::of(&row.meter).ok_or_else(|| corrupt("meter", row))
}

/// What of a row has a price, at its place in the month.
pub(in crate::engine) fn parts(row: &UsageRow) -> Result<Vec<Part>, Error> {
    let whole = |text: &str| {
        text.parse::<u128>()
            .map_err(|_| corrupt("byte_seconds", row))
    };
    let number = |number: i64| u128::from(number.unsigned_abs());
    let before = Measured {
        units: number(row.units_before),
        elastic_units: number(row.elastic_before),
        bytes: number(row.bytes_before),
        over_time: whole(&row.over_time_before)?,
    };
    let used = Measured {
        units: number(row.units),
        elastic_units: number(row.elastic_units),
        bytes: number(row.bytes),
        over_time: whole(&row.over_time_after)?.saturating_sub(before.over_time),
    };
    Ok(schedule::parts(meter(row)?, used, before))
}

fn corrupt(column: &'static str, row: &UsageRow) -> Error {
    store::Error::Corrupt {
        table: "usage",
        column,
        row: row.meter.clone(),
    }
    .into()
}

impl UsageAfter {
    pub(in crate::engine) fn of(item: &UsageItem) -> Self {
        Self {
            minute: item.start.0.div_euclid(60_000_000),
            meter: item.meter,
            topic: item.topic.clone().unwrap_or_default(),
            subscription: item.subscription.clone().unwrap_or_default(),
        }
    }

    pub(in crate::engine) fn place(&self) -> (OffsetDateTime, &str, &str, &str) {
        let start = OffsetDateTime::from_unix_timestamp(self.minute.saturating_mul(60));
        (
            start.unwrap_or(OffsetDateTime::UNIX_EPOCH),
            self.meter.as_str(),
            &self.topic,
            &self.subscription,
        )
    }
}

/// No name has a `~`.
impl fmt::Display for UsageAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            minute,
            meter,
            topic,
            subscription,
        } = self;
        write!(f, "{minute}~{}~{topic}~{subscription}", meter.as_str())
    }
}

impl FromStr for UsageAfter {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('~');
        let mut part = || parts.next().ok_or(());
        let after = Self {
            minute: part()?.parse().map_err(drop)?,
            meter: Meter::of(part()?).ok_or(())?,
            topic: part()?.to_owned(),
            subscription: part()?.to_owned(),
        };
        parts.next().is_none().then_some(after).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2030-01-10 12:34:56.789 UTC);

    fn asked(granularity: Granularity, from: OffsetDateTime, to: OffsetDateTime) -> UsageAsk {
        UsageAsk {
            from: Some(from.into()),
            to: Some(to.into()),
            granularity,
            ..UsageAsk::default()
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
            let (first, end) = range(&asked(granularity, from, to), NOW).unwrap();
            let seconds = (end - first).whole_seconds();
            assert_eq!(seconds / i64::from(granularity.seconds()), windows);
            assert!(first <= from && to <= end);
        }
        for now in [NOW, datetime!(2030-01-10 12:00 UTC)] {
            let (from, to) = range(&UsageAsk::default(), now).unwrap();
            assert_eq!(from, datetime!(2030-01-09 13:00 UTC));
            assert_eq!(to, datetime!(2030-01-10 13:00 UTC));
        }
    }

    #[test]
    fn a_range_that_cannot_be_answered_is_refused_by_its_field() {
        let whole = datetime!(2030-01-10 10:00 UTC);
        let long = |granularity, windows| {
            let window = Duration::seconds(i64::from(Granularity::seconds(granularity)));
            asked(granularity, whole, whole + window * windows)
        };
        let old = |granularity, days| {
            let from = NOW - Duration::days(days);
            asked(granularity, from, from + Duration::MINUTE)
        };
        for (ask, pointer) in [
            (asked(Granularity::Day, whole, whole), "query:to"),
            (long(Granularity::Minute, 1_441), "query:to"),
            (long(Granularity::Hour, 745), "query:to"),
            (long(Granularity::Day, 400), "query:to"),
            (old(Granularity::Minute, 9), "query:from"),
            (old(Granularity::Hour, 401), "query:from"),
        ] {
            assert_eq!(range(&ask, NOW).unwrap_err().pointer, pointer, "{ask:?}");
        }
        assert!(range(&old(Granularity::Minute, 8), NOW).is_ok());
        assert!(range(&old(Granularity::Day, 4_000), NOW).is_ok());
    }

    #[test]
    fn the_cursor_of_a_page_is_read_back() {
        for text in [
            "30000~publish~orders~",
            "0~deliver_pull~a.b-c_d~s",
            "-1~publish~~",
        ] {
            assert_eq!(text.parse::<UsageAfter>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "1~publish~t",
            "1~publish~t~s~",
            "x~publish~t~s",
            "1~buy~t~s",
        ] {
            assert_eq!(text.parse::<UsageAfter>(), Err(()), "{text}");
        }
    }
}

//! Calendar days and months on the wire: `2026-11-30` and `2026-11`, always in UTC.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime, Time};
use utoipa::ToSchema;

use crate::text::as_text;

/// The text is not a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a day: 2026-11-30")]
pub struct InvalidDay;

/// The text is not a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a month from 2000-01 on: 2026-11")]
pub struct InvalidMonth;

/// A calendar day (UTC).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, format = Date, example = "2026-11-01")]
pub struct Day(pub Date);

/// A calendar month (UTC).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^2[0-9]{3}-(0[1-9]|1[0-2])$", example = "2026-11")]
pub struct Month(Date);

impl Day {
    /// Start of the day, inclusive.
    #[must_use]
    pub const fn start(self) -> OffsetDateTime {
        OffsetDateTime::new_utc(self.0, Time::MIDNIGHT)
    }
}

impl Month {
    /// The month that contains `at`.
    #[must_use]
    pub fn of(at: OffsetDateTime) -> Self {
        let date = at.date();
        Self(date.replace_day(1).unwrap_or(date))
    }

    /// Start of the month, inclusive.
    #[must_use]
    pub const fn start(self) -> OffsetDateTime {
        Day(self.0).start()
    }

    /// End of the month, exclusive.
    #[must_use]
    pub fn end(self) -> OffsetDateTime {
        let days = self.0.month().length(self.0.year());
        self.start() + time::Duration::days(i64::from(days))
    }
}

fn parse(text: &str) -> Option<Date> {
    let is_plain = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u16>().ok();
    let month = time::Month::try_from(u8::try_from(number(5, 7)?).ok()?).ok()?;
    let day = u8::try_from(number(8, 10)?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(0, 4)?), month, day).ok()?;
    // Postgres has no year 0.
    (is_plain && date.year() > 0).then_some(date)
}

impl FromStr for Day {
    type Err = InvalidDay;

    fn from_str(text: &str) -> Result<Self, InvalidDay> {
        parse(text).map(Self).ok_or(InvalidDay)
    }
}

impl FromStr for Month {
    type Err = InvalidMonth;

    fn from_str(text: &str) -> Result<Self, InvalidMonth> {
        let date =
            parse(&format!("{text}-01")).filter(|date| (2_000..3_000).contains(&date.year()));
        date.map(Self).ok_or(InvalidMonth)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.0.to_calendar_date();
        write!(f, "{year:04}-{:02}-{day:02}", u8::from(month))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.year(), u8::from(self.0.month()))
    }
}

as_text! {
    Day, InvalidDay;
    Month, InvalidMonth;
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn days_and_months_are_of_the_calendar() {
        for text in ["2026-11-30", "2028-02-29", "0001-01-01"] {
            assert_eq!(text.parse::<Day>().unwrap().to_string(), text);
        }
        for text in [
            "2026-02-29",
            "2026-1-01",
            "0000-01-01",
            "2026-13-01",
            "today",
            "2026-11-301",
            "+026-11-30",
        ] {
            assert_eq!(text.parse::<Day>(), Err(InvalidDay), "{text}");
        }
        for text in ["1999-12", "2026", "2026-00", "2026-11-01"] {
            assert_eq!(text.parse::<Month>(), Err(InvalidMonth), "{text}");
        }
        let month: Month = "2028-02".parse().unwrap();
        assert_eq!(month.start(), datetime!(2028-02-01 0:00 UTC));
        assert_eq!(month.end(), datetime!(2028-03-01 0:00 UTC));
        assert_eq!(Month::of(datetime!(2028-02-29 23:59 UTC)), month);
    }
}

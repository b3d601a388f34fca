//! Windows of usage events. Pure; called by `usage_events`. A sink advances window by window, each of which begins
//! where the previous one ended, so each quantity is in one event (I8). Windows have the length of the sink's setting.
//! If a sink falls so far behind that usage is no longer kept at this granularity, it gets longer windows, beginning at
//! the next full hour or day. While a sink is inside a longer window, the roll-up does not change the usage of that
//! window (`store::usage`).

use api::event::EventGranularity;
use time::{Duration, OffsetDateTime};

use crate::engine::meter::{blocks, roll_up};
use crate::store::usage_read::FirstUse;

/// A window of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Window {
    /// Its start.
    pub(in crate::engine) start: OffsetDateTime,
    /// Its length: a minute, an hour or a day.
    pub(in crate::engine) length: Duration,
}

impl Window {
    /// The window that begins at `start`. `begun` is its length if a part of it was already turned into events. Windows
    /// get longer an hour or a day before shorter ones are rolled up, to stay clear of a running roll-up.
    pub(in crate::engine) fn next(
        start: OffsetDateTime,
        begun: Option<Duration>,
        granularity: EventGranularity,
        at: OffsetDateTime,
    ) -> Self {
        let has_minutes = start >= roll_up::first_minute(at) + Duration::HOUR;
        let has_hours = start >= roll_up::first_hour(at) + Duration::DAY;
        let wants_minutes = granularity == EventGranularity::Minute;
        let length = begun.unwrap_or_else(|| {
            if !begins(start, Duration::HOUR) || (wants_minutes && has_minutes) {
                Duration::MINUTE
            } else if !begins(start, Duration::DAY) || has_hours {
                Duration::HOUR
            } else {
                Duration::DAY
            }
        });
        Self { start, length }
    }

    /// Its end, which is the start of the next window.
    pub(in crate::engine) fn end(self) -> OffsetDateTime {
        self.start + self.length
    }

    /// Whether it is a minute. Amounts over time, such as storage, are not kept by the minute.
    pub(in crate::engine) fn is_minute(self) -> bool {
        self.length == Duration::MINUTE
    }

    /// Its length, as named in statements of the store.
    pub(in crate::engine) fn granularity(self) -> &'static str {
        if self.is_minute() {
            "minute"
        } else if self.length == Duration::HOUR {
            "hour"
        } else {
            "day"
        }
    }

    /// Its length in whole seconds.
    pub(in crate::engine) fn seconds(self) -> i64 {
        self.length.whole_seconds()
    }

    /// The hour that ends with this minute, whose amounts over time are reported with it.
    pub(in crate::engine) fn hour_of_storage(self) -> Option<Self> {
        let ends = self.is_minute() && begins(self.end(), Duration::HOUR);
        ends.then(|| Self {
            start: self.end() - Duration::HOUR,
            length: Duration::HOUR,
        })
    }

    /// Whether its usage can no longer change.
    pub(in crate::engine) fn is_final(self, metered_until: OffsetDateTime) -> bool {
        let has_storage = !self.is_minute() || self.hour_of_storage().is_some();
        blocks::is_final(self.end(), has_storage, metered_until)
    }

    /// Whether it ends before any usage.
    fn is_before(self, first: FirstUse) -> bool {
        // Usage that is kept by the hour is reported with the last minute of the hour.
        let reported_after = if self.is_minute() {
            Duration::minutes(59)
        } else {
            Duration::ZERO
        };
        let hour = first.hour.map(|hour| hour + reported_after);
        self.length < Duration::DAY
            && [first.minute, hour]
                .into_iter()
                .flatten()
                .all(|use_at| self.end() <= use_at)
    }
}

/// How far metering has come.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Metering {
    /// The database's time.
    pub(in crate::engine) at: OffsetDateTime,
    /// All messages published before this time are counted.
    pub(in crate::engine) until: OffsetDateTime,
}

/// Start of the first window from `start` on that has usage or may still get some.
pub(in crate::engine) fn skip(
    mut start: OffsetDateTime,
    granularity: EventGranularity,
    metering: Metering,
    first: FirstUse,
) -> OffsetDateTime {
    loop {
        let window = Window::next(start, None, granularity, metering.at);
        if !window.is_final(metering.until) || !window.is_before(first) {
            return start;
        }
        start = window.end();
    }
}

/// Whether `at` is the start of a window of this length.
fn begins(at: OffsetDateTime, length: Duration) -> bool {
    at.unix_timestamp().rem_euclid(length.whole_seconds()) == 0
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2030-01-10 12:34:56 UTC);

    fn next(start: OffsetDateTime, granularity: EventGranularity) -> Duration {
        Window::next(start, None, granularity, NOW).length
    }

    #[test]
    fn windows_are_as_long_as_wanted_or_as_usage_is_kept() {
        use EventGranularity::{Hour, Minute};
        let recent = datetime!(2030-01-10 10:00 UTC);
        assert_eq!(next(recent, Minute), Duration::MINUTE);
        assert_eq!(next(recent, Hour), Duration::HOUR);
        // A sink that was changed from minutes to hours finishes the current hour by the minute.
        assert_eq!(next(recent + Duration::MINUTE, Hour), Duration::MINUTE);
        // Minutes are kept since 2030-01-02 12:00.
        let (old, kept) = (
            datetime!(2030-01-02 12:00 UTC),
            datetime!(2030-01-02 13:00 UTC),
        );
        assert_eq!(next(old, Minute), Duration::HOUR);
        assert_eq!(next(old + Duration::MINUTE, Minute), Duration::MINUTE);
        assert_eq!(next(kept, Minute), Duration::MINUTE);
        // Hours are kept since 2028-12-06.
        let (old, kept) = (
            datetime!(2028-12-06 00:00 UTC),
            datetime!(2028-12-07 00:00 UTC),
        );
        assert_eq!(next(old, Hour), Duration::DAY);
        assert_eq!(next(old + Duration::HOUR, Hour), Duration::HOUR);
        assert_eq!(next(kept, Hour), Duration::HOUR);
        let begun = Window::next(old, Some(Duration::HOUR), Hour, NOW);
        assert_eq!(begun.length, Duration::HOUR, "it goes on as it began");
    }

    #[test]
    fn the_last_minute_of_an_hour_waits_for_its_storage() {
        let minute = |start| Window {
            start,
            length: Duration::MINUTE,
        };
        let last = minute(datetime!(2030-01-10 10:59 UTC));
        let hour = last.hour_of_storage().unwrap();
        assert_eq!(
            (hour.start, hour.end()),
            (datetime!(2030-01-10 10:00 UTC), last.end())
        );
        let before = minute(datetime!(2030-01-10 10:58 UTC));
        assert_eq!(before.hour_of_storage(), None);
        assert!(before.is_final(before.end()));
        assert!(!before.is_final(before.end() - Duration::SECOND));
        assert!(!last.is_final(last.end()) && !hour.is_final(last.end()));
        assert!(last.is_final(last.end() + Duration::HOUR));
    }

    #[test]
    fn windows_without_usage_are_passed_over_as_far_as_they_are_final() {
        use EventGranularity::{Hour, Minute};
        let start = datetime!(2030-01-10 08:00 UTC);
        let metered = datetime!(2030-01-10 12:30 UTC);
        let skip = |granularity, minute, hour| {
            let first = FirstUse { minute, hour };
            let metering = Metering {
                at: NOW,
                until: metered,
            };
            skip(start, granularity, metering, first)
        };
        assert_eq!(skip(Hour, None, None), datetime!(2030-01-10 12:00 UTC));
        assert_eq!(skip(Minute, None, None), metered);
        let at = datetime!(2030-01-10 09:17 UTC);
        assert_eq!(skip(Hour, Some(at), None), datetime!(2030-01-10 09:00 UTC));
        assert_eq!(skip(Minute, Some(at), None), at);
        let hour = datetime!(2030-01-10 08:00 UTC);
        assert_eq!(skip(Hour, Some(at), Some(hour)), hour);
        let its_last = datetime!(2030-01-10 08:59 UTC);
        assert_eq!(skip(Minute, Some(at), Some(hour)), its_last);
        assert_eq!(skip(Minute, Some(start), Some(hour)), start);
    }
}

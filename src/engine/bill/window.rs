//! Windows of usage events. Pure. A sink goes through time window by window, never back: each begins where the one before
//! ended, so every quantity is in one event. They are as long as the sink wants; a sink that falls so far behind that usage
//! is no longer kept in such windows gets coarser ones, at a place where one begins. While it is inside of a coarser one
//! the roll-up leaves its usage as it is (`store::usage`).

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
    /// The window that comes next at `start`; `begun` is its length if some of it is done. Coarser ones begin an hour or a
    /// day before the finer ones are rolled up: a roll-up that goes on meanwhile is not met.
    pub(in crate::engine) fn next(
        (start, begun): (OffsetDateTime, Option<Duration>),
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

    pub(in crate::engine) fn end(self) -> OffsetDateTime {
        self.start + self.length
    }

    /// Whether it is a minute, which knows no storage and no guaranteed capacity.
    pub(in crate::engine) fn is_minute(self) -> bool {
        self.length == Duration::MINUTE
    }

    /// As it stands in statements.
    pub(in crate::engine) fn granularity(self) -> &'static str {
        if self.is_minute() {
            "minute"
        } else if self.length == Duration::HOUR {
            "hour"
        } else {
            "day"
        }
    }

    /// Whole seconds.
    pub(in crate::engine) fn seconds(self) -> i64 {
        self.length.whole_seconds()
    }

    /// The hour that a minute ends: with it go storage and guaranteed capacity of that hour, which have no minutes.
    pub(in crate::engine) fn hour_of_storage(self) -> Option<Self> {
        let ends = self.is_minute() && begins(self.end(), Duration::HOUR);
        ends.then(|| Self {
            start: self.end() - Duration::HOUR,
            length: Duration::HOUR,
        })
    }

    /// Whether nothing of it can change any more.
    pub(in crate::engine) fn is_final(self, metered_until: OffsetDateTime) -> bool {
        let has_storage = !self.is_minute() || self.hour_of_storage().is_some();
        blocks::is_final(self.end(), has_storage, metered_until)
    }

    /// Whether all of it is before the first usage there is.
    fn is_before(self, first: FirstUse) -> bool {
        // What is known by the hour is, for minutes, the storage that goes with the last of them.
        let hour = match self.is_minute() {
            true => first.hour.map(|hour| hour + Duration::minutes(59)),
            false => first.hour,
        };
        self.length < Duration::DAY
            && [first.minute, hour]
                .into_iter()
                .flatten()
                .all(|use_at| self.end() <= use_at)
    }
}

/// Where the first window begins that has usage, or can still get some.
pub(in crate::engine) fn skip(
    mut start: OffsetDateTime,
    granularity: EventGranularity,
    (at, metered_until): (OffsetDateTime, OffsetDateTime),
    first: FirstUse,
) -> OffsetDateTime {
    loop {
        let window = Window::next((start, None), granularity, at);
        if !window.is_final(metered_until) || !window.is_before(first) {
            return start;
        }
        start = window.end();
    }
}

/// Whether a window of this length begins there.
fn begins(at: OffsetDateTime, length: Duration) -> bool {
    at.unix_timestamp().rem_euclid(length.whole_seconds()) == 0
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2030-01-10 12:34:56 UTC);

    fn next(start: OffsetDateTime, granularity: EventGranularity) -> Duration {
        Window::next((start, None), granularity, NOW).length
    }

    #[test]
    fn windows_are_as_long_as_wanted_or_as_usage_is_kept() {
        use EventGranularity::{Hour, Minute};
        let recent = datetime!(2030-01-10 10:00 UTC);
        assert_eq!(next(recent, Minute), Duration::MINUTE);
        assert_eq!(next(recent, Hour), Duration::HOUR);
        // A sink that wants hours now is inside of one.
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
        let begun = Window::next((old, Some(Duration::HOUR)), Hour, NOW);
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
            skip(start, granularity, (NOW, metered), first)
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

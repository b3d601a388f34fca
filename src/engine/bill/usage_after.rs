//! A position in a list of usage: window, meter, topic and subscription of the last item of a page. API callers pass it
//! back as text to get the next page; exports and sinks keep it between two reads.

use std::fmt;
use std::str::FromStr;

use api::usage::{Meter, UsageItem};
use time::OffsetDateTime;

/// The position of the last item of a page. As text it is the `next` of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageAfter {
    /// Start of the window, in minutes since the Unix epoch.
    minute: i64,
    meter: Meter,
    topic: String,
    subscription: String,
}

impl UsageAfter {
    /// The position of an item.
    pub(in crate::engine) fn of(item: &UsageItem) -> Self {
        Self {
            minute: item.start.0.div_euclid(60_000_000),
            meter: item.meter,
            topic: item.topic.clone().unwrap_or_default(),
            subscription: item.subscription.clone().unwrap_or_default(),
        }
    }

    /// The position as parameters of a statement.
    pub(in crate::engine) fn position(&self) -> (OffsetDateTime, &str, &str, &str) {
        let start = OffsetDateTime::from_unix_timestamp(self.minute.saturating_mul(60));
        (
            start.unwrap_or(OffsetDateTime::UNIX_EPOCH),
            self.meter.as_str(),
            &self.topic,
            &self.subscription,
        )
    }
}

/// The parts are joined with `~`, which no name contains.
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
    use super::*;

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

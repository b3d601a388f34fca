//! Amounts of money and quantities on the wire: decimal strings, never floats. In memory a value is a whole number of
//! 10^-12, so sums are exact. Rounding is half to even and is documented where it happens.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::text::as_text;

/// Decimal places.
const PLACES: u32 = 12;
const ONE: u128 = 10u128.pow(PLACES);

/// The text is not a decimal number in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a decimal number with at most 18 digits before the point and 12 after it")]
pub struct InvalidDecimal;

/// A decimal number as a string: not negative, with at most twelve decimal places.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = r"^(0|[1-9][0-9]*)(\.[0-9]{1,12})?$", example = "0.40")]
pub struct Decimal(u128);

impl Decimal {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// Makes a decimal from a whole number of 10^-12.
    #[must_use]
    pub const fn from_trillionths(value: u128) -> Self {
        Self(value)
    }

    /// The value as a whole number of 10^-12.
    #[must_use]
    pub const fn trillionths(self) -> u128 {
        self.0
    }

    /// `numerator / denominator`, rounded half to even to twelve places.
    #[must_use]
    pub fn ratio(numerator: u128, denominator: u128) -> Self {
        let whole = numerator / denominator;
        let rest = (numerator % denominator).saturating_mul(ONE);
        Self(
            whole
                .saturating_mul(ONE)
                .saturating_add(half_even(rest, denominator)),
        )
    }

    /// The value rounded half to even to `places` decimal places.
    #[must_use]
    pub fn round(self, places: u32) -> Self {
        let step = 10u128.pow(PLACES.saturating_sub(places));
        Self(half_even(self.0, step) * step)
    }

    /// The sum; saturates.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; zero when `other` is larger.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Text with at least `places` decimal places.
    #[must_use]
    pub fn with_places(self, places: usize) -> String {
        let text = self.to_string();
        let after = text.split_once('.').map_or(0, |(_, after)| after.len());
        if after >= places {
            return text;
        }
        let point = if after == 0 { "." } else { "" };
        format!("{text}{point}{}", "0".repeat(places - after))
    }
}

/// `numerator / denominator`, rounded half to even.
#[must_use]
pub fn half_even(numerator: u128, denominator: u128) -> u128 {
    let (whole, rest) = (numerator / denominator, numerator % denominator);
    let up = match rest.cmp(&(denominator - rest)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => whole % 2 == 1,
        std::cmp::Ordering::Greater => true,
    };
    whole + u128::from(up)
}

impl std::iter::Sum for Decimal {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Self::plus)
    }
}

impl FromStr for Decimal {
    type Err = InvalidDecimal;

    fn from_str(text: &str) -> Result<Self, InvalidDecimal> {
        let (whole, places) = match text.split_once('.') {
            Some((_, "")) => return Err(InvalidDecimal),
            Some(parts) => parts,
            None => (text, ""),
        };
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = whole == "0" || !whole.starts_with('0');
        let fits = (1..=18).contains(&whole.len()) && places.len() <= PLACES as usize;
        if !is_plain || !fits || !is_number(whole) || !is_number(places) {
            return Err(InvalidDecimal);
        }
        let digits = format!("{whole}{places:0<12}");
        digits.parse().map(Self).map_err(|_| InvalidDecimal)
    }
}

as_text! {
    Decimal, InvalidDecimal;
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, places) = (self.0 / ONE, self.0 % ONE);
        if places == 0 {
            return write!(f, "{whole}");
        }
        let places = format!("{places:012}");
        write!(f, "{whole}.{}", places.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_read_and_shown_without_loss() {
        for (text, shown) in [
            ("0", "0"),
            ("0.40", "0.4"),
            ("12.000000000001", "12.000000000001"),
            (
                "999999999999999999.999999999999",
                "999999999999999999.999999999999",
            ),
        ] {
            assert_eq!(text.parse::<Decimal>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            ".5",
            "5.",
            "-1",
            "+1",
            "01",
            "1e3",
            "1,5",
            " 1",
            "0.1234567890123",
        ] {
            assert_eq!(text.parse::<Decimal>(), Err(InvalidDecimal), "{text}");
        }
        assert_eq!(Decimal::ZERO.with_places(2), "0.00");
        assert_eq!("1.5".parse::<Decimal>().unwrap().with_places(2), "1.50");
    }

    #[test]
    fn a_half_goes_to_the_even_neighbour() {
        for (text, rounded) in [
            ("0.005", "0"),
            ("0.015", "0.02"),
            ("0.025", "0.02"),
            ("0.0250001", "0.03"),
            ("0.995", "1"),
        ] {
            let value: Decimal = text.parse().unwrap();
            assert_eq!(value.round(2).to_string(), rounded, "{text}");
        }
        assert_eq!(Decimal::ratio(2, 3).to_string(), "0.666666666667");
        assert_eq!(Decimal::ratio(1, 3).to_string(), "0.333333333333");
    }
}

//! Deserializers of whole numbers. JSON has one kind of number, and to JSON Schema `30.0` is an integer: clients in
//! languages that have only floats send it. A fraction, a negative number and a number out of range are refused, never
//! rounded.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// Above this, neighbouring integers have the same float.
const FLOAT_MAX: f64 = 9_007_199_254_740_992.0;

/// A whole number as an element of a map or list.
pub(crate) struct Whole<T>(pub(crate) T);

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Inside of an enum with a tag, a value is asked for what it is: there, `2.0` is no `u64`.
        deserializer
            .deserialize_any(WholeVisitor(PhantomData))
            .map(Self)
    }
}

struct WholeVisitor<T>(PhantomData<T>);

impl<T: TryFrom<u64>> Visitor<'_> for WholeVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number in range")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        if number.fract() != 0.0 || !(0.0..=FLOAT_MAX).contains(&number) {
            return Err(E::invalid_type(Unexpected::Float(number), &self));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above: whole and in range"
        )]
        let number = number as u64;
        self.visit_u64(number)
    }
}

/// A required whole number.
pub(crate) fn number<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Whole::deserialize(deserializer).map(|Whole(number)| number)
}

/// A whole number that may be absent or null.
pub(crate) fn option<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let number = Option::<Whole<T>>::deserialize(deserializer)?;
    Ok(number.map(|Whole(number)| number))
}

/// A field that is a list of whole numbers.
pub(crate) fn list<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let items: Vec<Whole<T>> = Vec::deserialize(deserializer)?;
    Ok(items.into_iter().map(|Whole(number)| number).collect())
}

#[cfg(test)]
mod tests {
    use crate::message::ReceiveRequest;

    fn wait(number: &str) -> Result<Option<u32>, String> {
        let text = format!(r#"{{"wait_seconds":{number}}}"#);
        let request: Result<ReceiveRequest, _> = serde_json::from_str(&text);
        request
            .map(|request| request.wait_seconds)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_float_without_a_fraction_is_a_whole_number() {
        for (text, number) in [
            ("30", 30),
            ("30.0", 30),
            ("3e1", 30),
            ("0.0", 0),
            ("-0.0", 0),
        ] {
            assert_eq!(wait(text), Ok(Some(number)), "{text}");
        }
        assert_eq!(wait("null"), Ok(None));
    }

    #[test]
    fn a_fraction_a_negative_number_and_one_too_large_are_refused() {
        for text in [
            "0.5",
            "-1",
            "-1.0",
            "4294967296",
            "4294967296.0",
            "1e300",
            "\"30\"",
            "true",
        ] {
            assert!(
                wait(text).unwrap_err().contains("a whole number in range"),
                "{text}"
            );
        }
    }
}

//! Fairness inside a subscription on the wire: the setting that switches it on, and what stats show of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use crate::error::FieldError;
use crate::limits::{FAIRNESS_WEIGHT, FAIRNESS_WEIGHTS_MAX, KEY_CHARS_MAX};
use crate::message::check_text;
use crate::topic::check_range;

/// The attribute of a message that names its customer.
pub const FAIRNESS_KEY: &str = "fairness_key";

/// Customers of a subscription take turns: messages say whose they are by the attribute `fairness_key`, and what one of
/// them publishes at once does not delay the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fairness {
    /// Messages that a customer gets handed out for each one of a customer of weight 1, by `fairness_key`; 1 for those
    /// who are not named. At most 100 names.
    #[serde(default, deserialize_with = "weights")]
    #[schema(schema_with = weights_schema)]
    pub weights: BTreeMap<String, u32>,
}

impl Fairness {
    /// The fields that are out of range, with pointers below `at`.
    #[must_use]
    pub fn validate(&self, at: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (name, weight) in &self.weights {
            let escaped = name.replace('~', "~0").replace('/', "~1");
            let pointer = format!("{at}/weights/{escaped}");
            check_text(&mut errors, || pointer.clone(), name, KEY_CHARS_MAX);
            check_range(&mut errors, &pointer, Some(*weight), &FAIRNESS_WEIGHT);
        }
        errors
    }
}

fn weights_schema() -> Object {
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(KEY_CHARS_MAX))
        .pattern(Some(r"^[^\u0000-\u001F\u007F-\u009F]*$"));
    let weight = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(*FAIRNESS_WEIGHT.start()))
        .maximum(Some(*FAIRNESS_WEIGHT.end()));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some(
            "Messages that a customer gets handed out for each one of a customer of weight 1, by `fairness_key`; 1 for \
             those who are not named",
        ))
        .property_names(Some(name))
        .additional_properties(Some(weight))
        .max_properties(Some(FAIRNESS_WEIGHTS_MAX))
        .build()
}

/// Names with weights, or null for none. Stops at the limit while it is read; a name given twice is an error, because one
/// of the weights would be lost.
fn weights<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u32>, D::Error> {
    Ok(Option::<Weights>::deserialize(deserializer)?.map_or_else(BTreeMap::new, |all| all.0))
}

struct Weights(BTreeMap<String, u32>);

impl<'de> Deserialize<'de> for Weights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WeightsVisitor).map(Self)
    }
}

struct WeightsVisitor;

impl<'de> Visitor<'de> for WeightsVisitor {
    type Value = BTreeMap<String, u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of whole numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut weights = BTreeMap::new();
        while let Some((name, weight)) = map.next_entry::<String, crate::whole::Whole<u32>>()? {
            if weights.len() == FAIRNESS_WEIGHTS_MAX {
                return Err(A::Error::custom(format_args!(
                    "at most {FAIRNESS_WEIGHTS_MAX} weights, has more"
                )));
            }
            if weights.insert(name, weight.0).is_some() {
                return Err(A::Error::custom("a weight is given twice"));
            }
        }
        Ok(weights)
    }
}

/// How the customers of a fair subscription stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FairnessStats {
    /// Customers that wait or were served lately.
    pub keys: u64,
    /// Those with most messages waiting, 20 at most.
    pub items: Vec<FairnessItem>,
}

/// One customer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FairnessItem {
    /// Its `fairness_key`; null: the messages without one.
    pub key: Option<String>,
    /// Whether these are the customers beyond the first 1,000, who share one place, with `key` null.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub others: bool,
    /// Its weight.
    pub weight: u32,
    /// Messages that are looked at already and wait for their turn; more may stand behind them in the topic.
    pub waiting: u64,
    /// Messages handed out and neither settled nor due again.
    pub in_flight: u64,
    /// Messages handed out for the first time since it came to wait.
    pub handed_out: u64,
    /// Messages of others that are handed out before its next one; absent when none waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_in: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Fairness, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn weights_are_whole_numbers_by_name_and_may_be_left_out() {
        for none in ["{}", r#"{"weights":null}"#, r#"{"weights":{}}"#] {
            assert_eq!(read(none), Ok(Fairness::default()), "{none}");
        }
        let two = read(r#"{"weights":{"a":3.0,"b/c":100}}"#).unwrap();
        assert_eq!((two.weights["a"], two.weights["b/c"]), (3, 100));
        assert_eq!(two.validate("/fairness"), []);
        for wrong in [
            r#"{"weights":{"a":0.5}}"#,
            r#"{"weights":{"a":-1}}"#,
            r#"{"weights":{"a":"3"}}"#,
            r#"{"weights":{"a":null}}"#,
            r#"{"weights":[3]}"#,
            r#"{"weights":{"a":1,"a":2}}"#,
            r#"{"weight":{}}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_weight_out_of_range_is_named_by_its_pointer() {
        let fairness = read(r#"{"weights":{"":1,"a":0,"b/c":101,"d":1}}"#).unwrap();
        let errors = fairness.validate("/fairness").into_iter();
        let errors: Vec<_> = errors.map(|error| error.pointer).collect();
        assert_eq!(
            errors,
            [
                "/fairness/weights/",
                "/fairness/weights/a",
                "/fairness/weights/b~1c"
            ]
        );
    }

    #[test]
    fn weights_stop_at_their_limit() {
        let names = |count: usize| {
            let names: Vec<_> = (0..count).map(|n| format!(r#""{n}":1"#)).collect();
            format!(r#"{{"weights":{{{}}}}}"#, names.join(","))
        };
        assert!(read(&names(100)).is_ok());
        assert!(
            read(&names(101))
                .unwrap_err()
                .starts_with("at most 100 weights")
        );
    }
}

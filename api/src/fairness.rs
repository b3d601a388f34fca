//! Fair delivery inside one subscription on the wire: the setting that enables it, and its part of the stats.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use crate::error::FieldError;
use crate::field::pointer_segment;
use crate::limits::{FAIRNESS_WEIGHT, FAIRNESS_WEIGHTS_MAX, KEY_CHARS_MAX};
use crate::message::{check_text, text_schema};
use crate::topic::check_range;

/// Attribute of a message that names its customer.
pub const FAIRNESS_KEY: &str = "fairness_key";

/// Fair delivery: messages are handed out to receivers in weighted turns of customers, so that a burst of one customer
/// does not delay the messages of the others. The attribute `fairness_key` of a message names its customer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fairness {
    /// Weights by `fairness_key`, at most 100. A customer of weight `n` gets `n` messages handed out for each message
    /// of a customer of weight 1. A customer that is not listed has weight 1.
    #[serde(default, deserialize_with = "weights")]
    #[schema(schema_with = weights_schema)]
    pub weights: BTreeMap<String, u32>,
    /// False turns fairness off. True when absent; a response never has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

impl Fairness {
    /// Returns an error for each weight that is out of range; pointers begin with `at`.
    #[must_use]
    pub fn validate(&self, at: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (name, weight) in &self.weights {
            let pointer = format!("{at}/weights/{}", pointer_segment(name));
            check_text(&mut errors, || pointer.clone(), name, KEY_CHARS_MAX);
            check_range(&mut errors, &pointer, Some(*weight), &FAIRNESS_WEIGHT);
        }
        errors
    }
}

fn weights_schema() -> Object {
    let weight = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(*FAIRNESS_WEIGHT.start()))
        .maximum(Some(*FAIRNESS_WEIGHT.end()));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some(
            "Weights by `fairness_key`. A customer of weight `n` gets `n` messages handed out for each message of a \
             customer of weight 1. A customer that is not listed has weight 1.",
        ))
        .property_names(Some(text_schema(KEY_CHARS_MAX)))
        .additional_properties(Some(weight))
        .max_properties(Some(FAIRNESS_WEIGHTS_MAX))
        .build()
}

/// Weights by name, or null for none. The list stops at its limit while it is read. A duplicate name is an error,
/// because one of its weights would be lost.
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

/// State of the customers of a fair subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FairnessStats {
    /// Number of customers that have waiting messages or were recently served.
    pub keys: u64,
    /// The customers with the most waiting messages, at most 20.
    pub items: Vec<FairnessItem>,
}

/// State of one customer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FairnessItem {
    /// The customer's `fairness_key`. Null for the messages without one, and with `others`.
    pub key: Option<String>,
    /// Whether this item stands for all customers beyond the first 1,000, which share one turn. Absent when false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub others: bool,
    /// Weight of the customer.
    pub weight: u32,
    /// Messages that the service has read ahead and that wait for their turn. More may follow in the topic.
    pub waiting: u64,
    /// Messages handed out, not settled, and whose visibility timeout is not over.
    pub in_flight: u64,
    /// Messages handed out for the first time since the customer began to wait.
    pub handed_out: u64,
    /// Messages of other customers that will be handed out before this customer's next one. Absent when none of its
    /// messages waits.
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

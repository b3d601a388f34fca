//! Reads structs from JSON objects only. serde's derive also accepts a list of the fields in their order. That form is
//! undocumented and would break with each new field, so requests read through [`Object`] refuse it. It has no cost at
//! run time: it only selects another method of the deserializer.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

/// A value that, if it is a struct, was read from an object.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(OnlyMaps(deserializer)).map(Self)
    }
}

/// A field that is a struct.
pub(crate) fn value<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|Object(value)| value)
}

/// A field that is a struct, null or absent.
pub(crate) fn option<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value: Option<Object<T>> = Option::deserialize(deserializer)?;
    Ok(value.map(|Object(value)| value))
}

/// A field that is a list of structs; null is an empty list.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let items: Option<Vec<Object<T>>> = Option::deserialize(deserializer)?;
    let items = items.unwrap_or_default().into_iter();
    Ok(items.map(|Object(item)| item).collect())
}

/// Forwards every method, but reads a struct as a map.
struct OnlyMaps<D>(D);

macro_rules! forward {
    ($($method:ident($($name:ident: $type:ty),*))*) => {
        $(fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($name,)* visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for OnlyMaps<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }

    forward! {
        deserialize_any() deserialize_ignored_any() deserialize_identifier() deserialize_option() deserialize_unit()
        deserialize_bool() deserialize_char() deserialize_str() deserialize_string() deserialize_bytes()
        deserialize_byte_buf() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_u8()
        deserialize_u16() deserialize_u32() deserialize_u64() deserialize_f32() deserialize_f64() deserialize_seq()
        deserialize_map() deserialize_unit_struct(name: &'static str) deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize) deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }
}

#[cfg(test)]
mod tests {
    use super::Object;
    use crate::settle::SettleRequest;
    use crate::topic::TopicSettings;

    fn refusal<'a, T: serde::Deserialize<'a>>(text: &'a str) -> String {
        serde_json::from_str::<Object<T>>(text)
            .err()
            .unwrap()
            .to_string()
    }

    #[test]
    fn a_list_is_no_object() {
        assert!(serde_json::from_str::<Object<TopicSettings>>("{}").is_ok());
        assert!(refusal::<TopicSettings>("[null,null,null]").contains("invalid type: sequence"));
        let item = r#"{"receipt":"r","action":"ack"}"#;
        let (good, bad) = (
            format!(r#"{{"items":[{item}]}}"#),
            r#"{"items":[["r","ack"]]}"#,
        );
        let good: Object<SettleRequest> = serde_json::from_str(&good).unwrap();
        assert_eq!(good.0.items[0].receipt, "r");
        assert!(refusal::<SettleRequest>(bad).contains("invalid type: sequence"));
    }
}

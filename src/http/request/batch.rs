//! Batches whose items fail one by one. The fast path parses the whole typed batch, borrowed from the body. If that
//! fails, the slow path splits the list and parses each item by itself, so an invalid item has an error of its own and
//! the others are processed. Only a malformed object around the list refuses the whole request.

use std::borrow::Cow;
use std::fmt;

use api::limits::FIELD_ERRORS_MAX;
use api::message::{PublishBatch, PublishMessage, check_batch};
use api::object::Object;
use api::settle::{AckRequest, SettleItem, SettleRequest, VisibilityChange, VisibilityRequest};
use api::{FieldError, Problem};
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::json;
use crate::engine::Error;
use crate::http::answer::problem::Refusal;

/// A request that consists of one list.
pub(in crate::http) trait Batch<'a>: Deserialize<'a> {
    /// The type of an item.
    type Item: Deserialize<'a>;
    /// The field that holds the list.
    const FIELD: &'static str;
    /// The items of the list.
    fn into_items(self) -> Vec<Self::Item>;
}

macro_rules! batch {
    ($batch:ident, $field:ident, $item:ty) => {
        impl<'a> Batch<'a> for $batch<'a> {
            type Item = $item;
            const FIELD: &'static str = stringify!($field);
            fn into_items(self) -> Vec<Self::Item> {
                self.$field
            }
        }
    };
}

batch!(PublishBatch, messages, PublishMessage<'a>);
batch!(AckRequest, receipts, Cow<'a, str>);
batch!(VisibilityRequest, changes, VisibilityChange<'a>);
batch!(SettleRequest, items, SettleItem<'a>);

/// The items of a batch. An item is parsed, or has an error with the pointer to its invalid field.
pub(in crate::http) fn items<'a, B: Batch<'a>>(
    text: &'a [u8],
) -> Result<Vec<Result<B::Item, FieldError>>, Refusal> {
    let items = match serde_json::from_slice::<Object<B>>(text) {
        Ok(Object(batch)) => batch.into_items().into_iter().map(Ok).collect(),
        Err(_) => items_one_by_one::<B>(text).map_err(|error| Problem::invalid(vec![error]))?,
    };
    match check_batch(&format!("/{}", B::FIELD), items.len()) {
        errors if errors.is_empty() => Ok(items),
        errors => Err(Problem::invalid(errors).into()),
    }
}

type Parsed<T> = Vec<Result<T, FieldError>>;

fn items_one_by_one<'a, B: Batch<'a>>(text: &'a [u8]) -> Result<Parsed<B::Item>, FieldError> {
    let raw = json::parse_seed(text, BatchObject { field: B::FIELD })?;
    let parse = |(index, raw): (usize, &'a RawValue)| {
        json::parse(raw.get().as_bytes()).map_err(|error| within(error, B::FIELD, index))
    };
    Ok(raw.into_iter().enumerate().map(parse).collect())
}

/// Converts the error of an item to an error of the batch: its pointer gets the item's prefix.
pub(in crate::http) fn within(error: FieldError, field: &str, index: usize) -> FieldError {
    FieldError::new(format!("/{field}/{index}{}", error.pointer), error.detail)
}

/// The object around a batch: one field with a list. Its items are not parsed here.
struct BatchObject {
    field: &'static str,
}

#[derive(Deserialize)]
struct RawItems<'a>(#[serde(borrow, deserialize_with = "api::borrow::items")] Vec<&'a RawValue>);

impl<'de> DeserializeSeed<'de> for BatchObject {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for BatchObject {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with a list `{}`", self.field)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut items = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key != self.field {
                return Err(A::Error::custom(format_args!(
                    "unknown field `{key}`, expected `{}`",
                    self.field
                )));
            }
            if items
                .replace(map.next_value::<RawItems<'de>>()?.0)
                .is_some()
            {
                return Err(A::Error::duplicate_field(self.field));
            }
        }
        items.ok_or_else(|| A::Error::missing_field(self.field))
    }
}

/// Refuses a request if none of its items is valid.
pub(in crate::http) fn refuse_all<'e>(
    errors: impl Iterator<Item = Option<&'e Error>>,
) -> Result<(), Refusal> {
    let mut fields = Vec::new();
    let mut other = None;
    for error in errors {
        match error {
            None => return Ok(()),
            // One more than a problem shows, so that the problem can report that there are more.
            Some(Error::Invalid(invalid)) => {
                let room = (FIELD_ERRORS_MAX + 1).saturating_sub(fields.len());
                fields.extend(invalid.iter().take(room).cloned());
            }
            Some(error) => other = other.or(Some(error)),
        }
    }
    Err(other
        .map_or_else(|| Problem::invalid(fields), Problem::from)
        .into())
}

/// The response to a batch: one result per item, in order.
#[derive(Serialize)]
pub(in crate::http) struct Results<T: Serialize> {
    /// The results.
    pub(in crate::http) results: Vec<ItemResult<T>>,
}

/// The result of one item. An error is converted to its problem only during serialisation.
pub(in crate::http) struct ItemResult<T>(Result<T, Error>);

impl<T: Serialize> From<Vec<Result<T, Error>>> for Results<T> {
    fn from(results: Vec<Result<T, Error>>) -> Self {
        let results = results.into_iter().map(ItemResult).collect();
        Self { results }
    }
}

#[derive(Serialize)]
struct Failed {
    error: Problem,
}

impl<T: Serialize> Serialize for ItemResult<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(done) => done.serialize(serializer),
            Err(error) => Failed {
                error: error.into(),
            }
            .serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_item_fails_alone() {
        let text = br#"{"messages":[{"body":"a"},{"body":1},{"bdy":"c"},7,{"json":{"k":[1, 2]}},{"attributes":{"a":1}}]}"#;
        let items = items::<PublishBatch<'_>>(text).unwrap();
        let pointers: Vec<_> = items
            .iter()
            .map(|item| item.as_ref().err().map_or("ok", |e| &e.pointer))
            .collect();
        assert_eq!(
            pointers,
            [
                "ok",
                "/messages/1/body",
                "/messages/2/bdy",
                "/messages/3",
                "ok",
                "/messages/5/attributes/a"
            ]
        );
        let json = items[4].as_ref().unwrap().json.unwrap();
        assert_eq!(json.get(), r#"{"k":[1, 2]}"#);
    }

    #[test]
    fn a_broken_frame_refuses_the_whole() {
        for (text, says) in [
            ("", "is not JSON"),
            (r#"{"messages":[{"body":"a"}"#, "is not JSON"),
            (r#"{"messages":{}}"#, "expected a list"),
            (r#"{"messages":[]}"#, "must have 1 to 100 items, has 0"),
            (r#"{"messages":[{"body":"a"}],"x":1}"#, "unknown field `x`"),
            (r#"{"messages":[1],"messages":[2]}"#, "duplicate field"),
            ("{}", "missing field `messages`"),
            ("[]", "an object with a list `messages`"),
        ] {
            let refusal = items::<PublishBatch<'_>>(text.as_bytes()).unwrap_err();
            assert!(format!("{refusal:?}").contains(says), "{text}: {refusal:?}");
        }
        let many = format!(r#"{{"messages":[{}1]}}"#, "{},".repeat(100));
        let refusal = items::<PublishBatch<'_>>(many.as_bytes()).unwrap_err();
        assert!(format!("{refusal:?}").contains("1 to 100 items"));
    }

    #[test]
    fn receipts_and_settle_items_fail_alone_too() {
        let receipts = items::<AckRequest<'_>>(br#"{"receipts":["a",1]}"#).unwrap();
        assert!(receipts[0].is_ok());
        assert_eq!(receipts[1].as_ref().unwrap_err().pointer, "/receipts/1");
        let text = br#"{"items":[{"receipt":"r","action":"ack"},{"receipt":"r","action":"eat"}]}"#;
        let items = items::<SettleRequest<'_>>(text).unwrap();
        assert!(items[0].is_ok());
        assert_eq!(items[1].as_ref().unwrap_err().pointer, "/items/1/action");
    }
}

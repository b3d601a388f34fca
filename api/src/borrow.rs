//! Deserializers that borrow from the request body. serde borrows a `Cow<str>` only when it is a whole field. In an
//! `Option`, a list or a map it copies, which would cost the hot path one allocation per body and receipt of a batch.
//! These deserializers also stop a list at its limit while it is read, so that 10 MiB of `{},{},…` cannot become
//! gigabytes of items (I9).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::limits::{ATTRIBUTES_MAX, BATCH_MESSAGES_MAX};
use crate::object::Object;

/// Attributes of a message, borrowed from the request body.
pub(crate) type Attributes<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// A string that is borrowed unless it contains escapes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor).map(Self)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text))
    }
}

/// A string or null.
pub(crate) fn text<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Cow<'a, str>>, D::Error> {
    Ok(Option::<Text<'a>>::deserialize(deserializer)?.map(|text| text.0))
}

/// Any JSON value as its source text; `null` is a value like any other.
pub(crate) fn json<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A list of strings, of at most [`BATCH_MESSAGES_MAX`] items.
pub(crate) fn texts<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Cow<'a, str>>, D::Error> {
    let texts: Vec<Text<'a>> = items(deserializer)?;
    Ok(texts.into_iter().map(|text| text.0).collect())
}

/// Attributes or null. A duplicate name is an error, because one of its values would be lost.
pub(crate) fn attributes<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Attributes<'a>>, D::Error> {
    Ok(Option::<Names<'a>>::deserialize(deserializer)?.map(|names| names.0))
}

struct Names<'a>(Attributes<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Names<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamesVisitor).map(Self)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Attributes<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut attributes = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
            if attributes.len() == ATTRIBUTES_MAX {
                return Err(A::Error::custom(format_args!(
                    "at most {ATTRIBUTES_MAX} attributes, has more"
                )));
            }
            if attributes.insert(name.0, value.0).is_some() {
                return Err(A::Error::custom("an attribute is given twice"));
            }
        }
        Ok(attributes)
    }
}

/// A list of objects, of at most [`BATCH_MESSAGES_MAX`] items.
///
/// # Errors
/// When an item is invalid, or the list has more items.
pub fn items<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(ItemsVisitor(PhantomData))
}

struct ItemsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ItemsVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(Object(item)) = list.next_element()? {
            if items.len() == BATCH_MESSAGES_MAX {
                return Err(A::Error::custom(format_args!(
                    "must have 1 to {BATCH_MESSAGES_MAX} items, has more"
                )));
            }
            items.push(item);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use crate::message::PublishBatch;
    use crate::settle::AckRequest;

    #[test]
    fn plain_texts_are_borrowed_and_escaped_ones_are_read() {
        let json =
            r#"{"messages":[{"body":"plain","tag":"a\nb","attributes":{"n":"v"},"key":null}]}"#;
        let batch: PublishBatch = serde_json::from_str(json).unwrap();
        let message = &batch.messages[0];
        assert!(matches!(message.body, Some(Cow::Borrowed("plain"))));
        assert_eq!(message.tag.as_deref(), Some("a\nb"));
        assert!(message.key.is_none());
        let attributes = message.attributes.as_ref().unwrap();
        assert!(matches!(attributes["n"], Cow::Borrowed("v")));
        let ack: AckRequest = serde_json::from_str(r#"{"receipts":["r"]}"#).unwrap();
        assert!(matches!(ack.receipts[0], Cow::Borrowed("r")));
    }

    #[test]
    fn attributes_stop_at_their_limit() {
        let names = |count: usize| {
            let names: Vec<_> = (0..count).map(|n| format!(r#""{n}":"""#)).collect();
            format!(
                r#"{{"messages":[{{"attributes":{{{}}}}}]}}"#,
                names.join(",")
            )
        };
        assert!(serde_json::from_str::<PublishBatch>(&names(32)).is_ok());
        for count in [33, 1_000] {
            let text = names(count);
            let error = serde_json::from_str::<PublishBatch>(&text).unwrap_err();
            assert!(error.to_string().starts_with("at most 32 attributes"));
        }
    }

    #[test]
    fn a_list_stops_at_its_limit() {
        let json = format!(r#"{{"receipts":[{}"r"]}}"#, r#""r","#.repeat(100));
        let error = serde_json::from_str::<AckRequest>(&json).unwrap_err();
        assert!(error.to_string().starts_with("must have 1 to 100 items"));
    }
}

//! What the document says otherwise than the derive macros would, for the sake of generated clients: no null where a
//! request may leave a field out, names that are no words of a language, and the body of a publish that most clients offer.
//! The wire stays as it is.

use serde_json::Value;
use utoipa::openapi::schema::{Schema, SchemaType};
use utoipa::openapi::{RefOr, Type};

/// Mends a schema of the document.
pub(super) fn mend(name: &str, schema: &mut RefOr<Schema>) {
    if !WITH_NULL.contains(&name) {
        omit_null(schema);
    }
    if name == "StartPosition" {
        name_positions(schema);
    }
}

/// Mends what can only be changed in the text of the document.
pub(super) fn mend_text(text: &str) -> String {
    put_text_first(&name_pages(text))
}

/// Schemas of responses that show an unknown value as null.
const WITH_NULL: [&str; 2] = ["Budget", "FairnessItem"];

/// A request may send null for an absent field. The document does not offer it: generated clients would have to tell
/// null from absent, and would show both to their callers.
fn omit_null(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::Ref(_) => {}
        RefOr::T(Schema::Object(object)) => {
            omit_null_type(&mut object.schema_type);
            if object.default.as_ref().is_some_and(Value::is_null) {
                object.default = None;
            }
            object.properties.values_mut().for_each(omit_null);
        }
        RefOr::T(Schema::Array(array)) => omit_null_type(&mut array.schema_type),
        RefOr::T(Schema::AllOf(all)) => all.items.iter_mut().for_each(omit_null),
        RefOr::T(Schema::OneOf(one)) => {
            one.items.retain(|item| !is_null(item));
            one.items.iter_mut().for_each(omit_null);
            if one.items.len() == 1
                && let Some(only) = one.items.pop()
            {
                *schema = described(only, one.description.take());
            }
        }
        RefOr::T(_) => {}
    }
}

fn omit_null_type(types: &mut SchemaType) {
    if let SchemaType::Array(several) = types {
        several.retain(|kind| *kind != Type::Null);
        if let [one] = several.as_slice() {
            *types = SchemaType::Type(one.clone());
        }
    }
}

fn is_null(schema: &RefOr<Schema>) -> bool {
    matches!(schema, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null))
}

/// The schema with the description of the field, unless it has one.
fn described(mut schema: RefOr<Schema>, description: Option<String>) -> RefOr<Schema> {
    match &mut schema {
        RefOr::Ref(to) if to.description.is_empty() => {
            to.description = description.unwrap_or_default();
        }
        RefOr::T(Schema::Object(object)) if description.is_some() => {
            object.description = description;
        }
        RefOr::Ref(_) | RefOr::T(_) => {}
    }
    schema
}

/// Names for code: `END` is a word of several languages.
fn name_positions(schema: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::Object(object)) = schema {
        let names = serde_json::json!(["LATEST", "EARLIEST"]);
        let extensions = object.extensions.get_or_insert_default();
        extensions.insert("x-enum-varnames".to_owned(), names);
    }
}

/// Renames `Page_Topic` to `TopicPage`, where it is defined and where it is used.
fn name_pages(text: &str) -> String {
    let mut named = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("Page_") {
        let end = after.find('"').unwrap_or(after.len());
        named.push_str(before);
        named.push_str(&after[..end]);
        named.push_str("Page");
        rest = &after[end..];
    }
    named.push_str(rest);
    named
}

/// Puts the text body of a publish before the binary one: many generators offer only the first, and make it the name of
/// a file when it is binary. The maps of the document are sorted, so it is done in the text.
fn put_text_first(text: &str) -> String {
    let indent = " ".repeat(12);
    let (binary, plain) = (
        format!("{indent}\"application/octet-stream\": {{"),
        format!("{indent}\"text/plain\": {{"),
    );
    let end = format!("\n{indent}}}");
    let swapped = || {
        let start = text.find(&binary)?;
        let middle = start + text[start..].find(&plain)?;
        let stop = middle + text[middle..].find(&end)? + end.len();
        let first = text[start..middle].trim_end().trim_end_matches(',');
        let second = &text[middle..stop];
        Some([&text[..start], second, ",\n", first, &text[stop..]].concat())
    };
    swapped().unwrap_or_else(|| text.to_owned())
}

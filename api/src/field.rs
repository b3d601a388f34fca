//! An invalid field of a request, as a problem names it, and the texts of requests that errors repeat.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::limits::ECHO_CHARS_MAX;

/// One invalid field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "FieldErrorJson", into = "FieldErrorJson")]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the request body, or `header:<name>` or `parameter:<name>` (of the path or query).
    pub pointer: String,
    /// What is wrong with the value, with the limit that it violates.
    pub detail: String,
}

/// One invalid field of a request. It has one of `pointer`, `parameter` and `header`, or none if the query as a whole is
/// invalid.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = FieldError)]
struct FieldErrorJson {
    /// JSON pointer (RFC 6901) to the field in the request body; empty for the whole body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "/messages/0/tag")]
    pointer: Option<String>,
    /// Name of the parameter of the path or query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    parameter: Option<String>,
    /// Name of the header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    header: Option<String>,
    /// What is wrong with the value, with the limit that it violates.
    detail: String,
}

const HEADER: &str = "header:";
const PARAMETER: &str = "parameter:";

impl From<FieldError> for FieldErrorJson {
    fn from(error: FieldError) -> Self {
        let (header, parameter) = (error.header(), error.parameter());
        let has_name = header.is_some() || parameter.is_some();
        Self {
            pointer: (!has_name).then(|| error.pointer.clone()),
            parameter: parameter.filter(|name| !name.is_empty()).map(str::to_owned),
            header: header.map(str::to_owned),
            detail: error.detail,
        }
    }
}

impl From<FieldErrorJson> for FieldError {
    fn from(json: FieldErrorJson) -> Self {
        let pointer = match (json.pointer, json.header) {
            (Some(pointer), _) => pointer,
            (None, Some(header)) => format!("{HEADER}{header}"),
            (None, None) => format!("{PARAMETER}{}", json.parameter.unwrap_or_default()),
        };
        Self {
            pointer,
            detail: json.detail,
        }
    }
}

impl PartialSchema for FieldError {
    fn schema() -> RefOr<Schema> {
        FieldErrorJson::schema()
    }
}

impl ToSchema for FieldError {}

impl FieldError {
    /// An error of a header.
    pub fn of_header(name: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(format!("{HEADER}{name}"), detail)
    }

    /// An error of a parameter of the path or query; without a name, of the whole query.
    pub fn of_parameter(name: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(format!("{PARAMETER}{name}"), detail)
    }

    /// The header, if the field is one.
    fn header(&self) -> Option<&str> {
        self.pointer.strip_prefix(HEADER)
    }

    /// The parameter, if the field is one.
    fn parameter(&self) -> Option<&str> {
        self.pointer.strip_prefix(PARAMETER)
    }

    /// The error as a sentence.
    pub(crate) fn sentence(&self) -> String {
        let detail = &self.detail;
        match (self.header(), self.parameter(), &*self.pointer) {
            (Some(name), ..) => format!("header {name}: {detail}"),
            (_, Some(""), _) => format!("the query {detail}"),
            (_, Some(name), _) => format!("parameter {name}: {detail}"),
            (None, None, "") => format!("the request body {detail}"),
            (None, None, pointer) => format!("{pointer}: {detail}"),
        }
    }

    /// Makes a field error. Both parts may repeat text of the request, so both are cut to [`ECHO_CHARS_MAX`].
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: clip(pointer.into(), ECHO_CHARS_MAX),
            detail: clip(detail.into(), ECHO_CHARS_MAX),
        }
    }
}

/// A name as one segment of a JSON pointer (RFC 6901).
pub(crate) fn pointer_segment(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Text of a request as an error may repeat it: cut to [`ECHO_CHARS_MAX`].
#[must_use]
pub fn echo(text: &str) -> String {
    clip(text.to_owned(), ECHO_CHARS_MAX)
}

/// Cuts a text to `chars_max` characters. The cut text is a new allocation, so the memory of the long one is freed.
pub(crate) fn clip(text: String, chars_max: usize) -> String {
    if text.len() <= chars_max {
        return text;
    }
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Problem;

    #[test]
    fn a_field_is_named_by_a_pointer_a_parameter_or_a_header() {
        for (error, json, sentence) in [
            (
                FieldError::new("/a/0", "is b"),
                serde_json::json!({"pointer": "/a/0", "detail": "is b"}),
                "/a/0: is b",
            ),
            (
                FieldError::new("", "is no JSON"),
                serde_json::json!({"pointer": "", "detail": "is no JSON"}),
                "the request body is no JSON",
            ),
            (
                FieldError::of_header("cursus-tag", "is b"),
                serde_json::json!({"header": "cursus-tag", "detail": "is b"}),
                "header cursus-tag: is b",
            ),
            (
                FieldError::of_parameter("limit", "is b"),
                serde_json::json!({"parameter": "limit", "detail": "is b"}),
                "parameter limit: is b",
            ),
            (
                FieldError::of_parameter("", "is b"),
                serde_json::json!({"detail": "is b"}),
                "the query is b",
            ),
        ] {
            assert_eq!(serde_json::to_value(&error).unwrap(), json);
            assert_eq!(serde_json::from_value::<FieldError>(json).unwrap(), error);
            assert_eq!(Problem::invalid(vec![error]).detail, sentence);
        }
    }
}

//! Short names for the parts of answers in JSON that tests compare.

use serde_json::Value;

/// A JSON text as a string.
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a text, not {value}"))
        .to_owned()
}

/// The code of an item's error.
pub(crate) fn code(result: &Value) -> &str {
    result["error"]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("an error, not {result}"))
}

/// One field of many.
pub(crate) fn all<'a>(messages: &'a [Value], field: &str) -> Vec<&'a Value> {
    messages.iter().map(|message| &message[field]).collect()
}

/// The invalid field of an error: its pointer, `header:<name>` or `parameter:<name>`.
fn place(error: &Value) -> Value {
    for kind in ["header", "parameter"] {
        if let Some(name) = error[kind].as_str() {
            return format!("{kind}:{name}").into();
        }
    }
    error["pointer"].clone()
}

/// What was refused: status, code, and the first field that is wrong.
pub(crate) fn refusal((status, problem): (u16, Value)) -> (u16, String, Value) {
    assert_eq!(problem["status"], status, "{problem}");
    (status, text(&problem["code"]), place(&problem["errors"][0]))
}

pub(crate) fn is(status: u16, code: &str, pointer: Value) -> (u16, String, Value) {
    (status, code.to_owned(), pointer)
}

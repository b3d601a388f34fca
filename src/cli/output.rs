//! What a command prints: tables for people, JSON for pipes. Messages about the work go to standard error, so that standard
//! output has nothing but the result.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use super::Failure;

/// A column of a table: its title, and the JSON pointer to its value.
pub(super) type Column = (&'static str, &'static str);

/// Where results go, and in which form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints items: as a table, or as one JSON value a line.
    pub(super) fn list<T: Serialize>(self, items: &[T], columns: &[Column]) -> Result<(), Failure> {
        let values: Result<Vec<Value>, _> = items.iter().map(serde_json::to_value).collect();
        let values = values?;
        if self.json {
            let lines = values.iter().map(|value| format!("{value}\n"));
            return print(&lines.collect::<String>());
        }
        let mut rows = vec![
            columns
                .iter()
                .map(|(title, _)| (*title).to_owned())
                .collect(),
        ];
        let cells = |value: &Value| {
            let cell = |(_, pointer): &Column| cell(value.pointer(pointer));
            columns.iter().map(cell).collect()
        };
        rows.extend(values.iter().map(cells));
        print(&table(&rows))
    }

    /// Prints one thing: as lines of names and values, or as JSON.
    pub(super) fn one<T: Serialize>(self, value: &T) -> Result<(), Failure> {
        let value = serde_json::to_value(value)?;
        if self.json {
            return print(&format!("{value}\n"));
        }
        let mut rows = Vec::new();
        flatten("", &value, &mut rows);
        print(&table(&rows))
    }

    /// Prints a line about something that was done; with --json, the value.
    pub(super) fn done<T: Serialize>(self, value: &T, text: &str) -> Result<(), Failure> {
        if self.json {
            self.one(value)
        } else {
            print(&format!("{text}\n"))
        }
    }
}

/// Writes to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    bytes(text.as_bytes())
}

/// Writes bytes to standard output.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Says something about the work, to people.
pub(super) fn note(text: &str) {
    // There is nowhere else to say it.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => shown(text),
        Some(Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|item| cell(Some(item))).collect();
            items.join(",")
        }
        Some(other) => other.to_string(),
    }
}

/// The fields of a value as rows, those of inner objects with a dot.
fn flatten(name: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let fields = value.as_object().filter(|fields| !fields.is_empty());
    let Some(fields) = fields else {
        return rows.push(vec![name.to_owned(), cell(Some(value))]);
    };
    for (field, value) in fields {
        let dot = if name.is_empty() { "" } else { "." };
        flatten(&format!("{name}{dot}{field}"), value, rows);
    }
}

/// Text of others as a terminal may show it: a control character could rewrite what stands there.
pub(super) fn shown(text: &str) -> String {
    let safe = |c: char| match c {
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(safe).collect()
}

/// Rows with columns below each other. The last column has no padding.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let last = row.len().saturating_sub(1);
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text.push_str(cell);
            if at < last {
                let padding = width + 2 - cell.chars().count();
                text.extend(std::iter::repeat_n(' ', padding));
            }
        }
        text.push('\n');
    }
    text
}

/// A bar of `total` bytes, or a counter when it is not known how many there will be. Nothing where no terminal is.
pub(super) fn progress(total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    let template = match total {
        Some(_) => "{bar:32} {percent:>3} %  {msg}  {eta} left",
        None => "{msg}  {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Whether a person reads standard error.
pub(super) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_lines_end_without_spaces() {
        let rows = [["NAME", "TOPIC"], ["a", "orders"], ["longer", "b"]];
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.map(str::to_owned).to_vec())
            .collect();
        assert_eq!(table(&rows), "NAME    TOPIC\na       orders\nlonger  b\n");
    }

    #[test]
    fn a_value_is_shown_field_by_field_and_cannot_control_the_terminal() {
        let mut rows = Vec::new();
        flatten(
            "",
            &json!({"a": {"b": 1, "c": ["x", "\u{1b}[2J"]}, "d": null}),
            &mut rows,
        );
        assert_eq!(rows, [["a.b", "1"], ["a.c", "x,\\u{1b}[2J"], ["d", "-"]]);
    }

    #[test]
    fn thousands_are_apart() {
        let texts = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }
}

//! The table for people and the JSON for machines, from the same rows.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::args::Args;
use crate::machine;
use crate::row::Row;

/// Additional figures of a row are printed up to this length.
const MORE_CHARS_MAX: usize = 500;

/// All rows of a run.
pub(crate) struct Report {
    rows: Vec<Row>,
    quick: bool,
    command: String,
    pub(crate) postgres: Value,
    /// Problems of the whole run.
    pub(crate) warnings: Vec<String>,
}

impl Report {
    pub(crate) fn new(args: &Args) -> Self {
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        Self {
            rows: Vec::new(),
            quick: args.quick,
            command,
            postgres: Value::Null,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, row: Row) {
        eprintln!("  {}", row.cells()[1..].join("  "));
        row.failures
            .iter()
            .for_each(|why| eprintln!("  FAIL {why}"));
        self.rows.push(row);
    }

    pub(crate) fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.failures.is_empty())
    }

    /// A Markdown table, ready for the README.
    pub(crate) fn table(&self) -> String {
        let head = [
            "scenario",
            "requests/s",
            "messages/s",
            "relative to",
            "ratio",
            "floor",
            "",
            "p50 ms",
            "p99 ms",
            "statements /1000",
            "commits /1000",
            "node µs/msg",
            "Postgres µs/msg",
            "node MiB",
            "PUTs /million",
            "short",
            "errors",
        ];
        let rows: Vec<[String; 17]> = self.rows.iter().map(Row::cells).collect();
        let widths: Vec<usize> = (0..head.len())
            .map(|at| {
                rows.iter()
                    .map(|row| row[at].chars().count())
                    .chain([head[at].chars().count()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = line(&head.map(str::to_owned), &widths);
        text.push_str(&line(
            &widths
                .iter()
                .map(|width| "-".repeat(*width))
                .collect::<Vec<_>>(),
            &widths,
        ));
        rows.iter()
            .for_each(|row| text.push_str(&line(row, &widths)));
        for row in &self.rows {
            row.failures
                .iter()
                .for_each(|why| text.push_str(&format!("\nFAIL {}: {why}\n", row.name)));
        }
        let _ = writeln!(
            text,
            "\n{}\nPostgres: {}",
            machine::describe(),
            self.postgres
        );
        for row in &self.rows {
            let more = row.more.to_string();
            // A series over time is too long for people.
            if !row.more.is_null() && more.len() <= MORE_CHARS_MAX {
                let _ = writeln!(text, "{}: {more}", row.name);
            }
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "WARNING: {warning}");
        }
        text
    }

    pub(crate) fn json(&self) -> crate::Result<String> {
        let report = json!({
            "machine": machine::describe(),
            "postgres": self.postgres,
            "arguments": self.command,
            "quick": self.quick,
            "pass": self.passed(),
            "warnings": self.warnings,
            "scenarios": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
        });
        Ok(serde_json::to_string_pretty(&report)? + "\n")
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let cells = cells
        .iter()
        .zip(widths)
        .map(|(cell, width)| format!("{cell:<width$}"));
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

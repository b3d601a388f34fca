//! What the tree promises: who may use what, and the size and shape of files. Reads the sources as text; what it finds is
//! said with its file and line.

use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a file.
const LINES_MAX: usize = 500;

/// A text that may stand only in some folders or files of `src`.
struct Absence {
    what: &'static str,
    only_in: &'static [&'static str],
}

/// The absences of the architecture.
const ABSENCES: [Absence; 14] = [
    Absence {
        what: "sqlx::query",
        only_in: &["store/"],
    },
    Absence {
        what: "axum::",
        only_in: &["http/", "listen/", "app.rs"],
    },
    Absence {
        what: "aws_config",
        only_in: &["blob/"],
    },
    Absence {
        what: "StatusCode",
        only_in: &["http/", "listen/"],
    },
    Absence {
        what: "aws_sdk",
        only_in: &["blob/"],
    },
    Absence {
        what: "std::env",
        only_in: &["config/"],
    },
    Absence {
        what: "env::var",
        only_in: &["config/"],
    },
    Absence {
        what: "SystemTime::now",
        only_in: &["clock.rs"],
    },
    Absence {
        what: "now_utc",
        only_in: &["clock.rs"],
    },
    Absence {
        what: "crate::worker",
        only_in: &["worker/", "app.rs"],
    },
    Absence {
        what: "crate::http",
        only_in: &["http/", "app.rs"],
    },
    Absence {
        what: "hyper::client",
        only_in: &["outbound/"],
    },
    Absence {
        what: "reqwest",
        only_in: &[],
    },
    Absence {
        what: "cursus_sdk",
        only_in: &["cli/"],
    },
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

/// Every source file below these folders of the repository, with its path there and its text.
pub(super) fn files(folders: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in folders {
        sources(&root.join(folder), &mut found);
    }
    let named = |path: PathBuf| {
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    found.into_iter().map(named).collect()
}

/// The lines that ship: comments and what follows the unit tests are left out.
pub(super) fn shipped(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text
        .lines()
        .enumerate()
        .take_while(|(_, line)| *line != "#[cfg(test)]");
    lines
        .map(|(at, line)| (at + 1, line.trim_start()))
        .filter(|(_, line)| !line.starts_with("//"))
}

#[test]
fn each_layer_keeps_to_itself() {
    let mut wrong = Vec::new();
    for (name, text) in files(&["src"]) {
        let place = name.trim_start_matches("src/");
        if place.ends_with("tests.rs") {
            continue;
        }
        for Absence { what, only_in } in &ABSENCES {
            if only_in.iter().any(|allowed| place.starts_with(allowed)) {
                continue;
            }
            let found = shipped(&text).filter(|(_, line)| line.contains(what));
            wrong.extend(found.map(|(at, line)| format!("{name}:{at} has {what}: {line}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_contract_knows_nothing_of_the_service() {
    let mut wrong = Vec::new();
    for (name, text) in files(&["api/src"]) {
        for what in ["axum", "sqlx", "tokio", "StatusCode"] {
            let found = shipped(&text).filter(|(_, line)| line.contains(what));
            wrong.extend(found.map(|(at, line)| format!("{name}:{at}: {line}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_and_is_short_enough_to_read() {
    let mut wrong = Vec::new();
    for (name, text) in files(&["src", "api/src", "sdk/rust", "tests", "benches"]) {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{name} has {lines} lines, {LINES_MAX} is the most"));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!("{name} does not open with //!"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_switched_off_or_left_for_later_in_silence() {
    let mut wrong = Vec::new();
    // Spelled in two parts, or this file would be found.
    for what in [
        concat!("#[all", "ow("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[igno", "re"),
    ] {
        for (name, text) in files(&["src", "api/src", "sdk/rust", "tests", "benches"]) {
            let found = text
                .lines()
                .enumerate()
                .filter(|(_, line)| line.contains(what));
            wrong.extend(found.map(|(at, line)| format!("{name}:{}: {line}", at + 1)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! The arrows of the tree: which layer of `src` may use which, and the order of the rooms of `src/engine`, of which none uses
//! one above it. Reads the sources as text.

use std::collections::BTreeSet;

use super::tidy::{files, shipped};

/// The layers of `src`, and what of `crate::` each may use apart from itself.
const LAYERS: [(&str, &[&str]); 24] = [
    (
        "app",
        &[
            "blob",
            "causes",
            "clock",
            "config",
            "descriptors",
            "embedded",
            "engine",
            "http",
            "listen",
            "outbound",
            "shutdown",
            "store",
            "telemetry",
            "worker",
        ],
    ),
    ("blob", &["disk", "pace", "turnstile"]),
    ("causes", &[]),
    ("cli", &["config", "hex", "shutdown"]),
    ("clock", &[]),
    ("config", &["blob", "network"]),
    ("descriptors", &[]),
    ("disk", &[]),
    ("embedded", &["disk", "hex"]),
    (
        "engine",
        &[
            "blob",
            "causes",
            "clock",
            "disk",
            "hex",
            "network",
            "outbound",
            "repeat",
            "store",
            "turnstile",
        ],
    ),
    ("hex", &[]),
    ("http", &["engine", "listen", "telemetry"]),
    ("lib", &[]),
    ("listen", &["config", "pace", "shutdown"]),
    ("main", &[]),
    ("network", &[]),
    ("outbound", &["network"]),
    ("pace", &[]),
    ("repeat", &[]),
    ("shutdown", &[]),
    ("store", &["causes", "repeat"]),
    ("telemetry", &["config"]),
    ("turnstile", &[]),
    ("worker", &["engine", "repeat", "store"]),
];

/// The rooms of `src/engine`, top down: a room may use those after it.
const ROOMS: [&str; 18] = [
    "operate",
    "bill",
    "events",
    "fleet",
    "resources",
    "push",
    "publish",
    "receive",
    "order",
    "lease",
    "turn",
    "catalog",
    "subscriber",
    "log",
    "lifecycle",
    "meter",
    "quota",
    "access",
];

/// The verbs and above: only here stands `impl Engine`, and only here is the word known.
const UPPER: [&str; 8] = [
    "operate",
    "bill",
    "events",
    "fleet",
    "resources",
    "push",
    "publish",
    "receive",
];

/// Where the structs of all rooms are put together.
const ROOT: [&str; 3] = ["metrics", "mod", "start"];

/// What every room may use. They use no room.
const LEAVES: [&str; 7] = ["duty", "error", "held", "inbox", "limit", "mask", "page"];

/// The first name below `folder/`, without `.rs`.
fn part<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let inside = path.strip_prefix(folder)?;
    let first = inside.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

/// The code that ships, in one piece: a `use` may go over lines.
fn code(text: &str) -> String {
    let lines: Vec<&str> = shipped(text).map(|(_, line)| line).collect();
    lines.join(" ")
}

/// The names that follow `prefix` in a text, those of a group in braces included.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        text.trim_start().chars().take_while(is_name).collect()
    };
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (at, c) in group.char_indices() {
            if begins {
                found.insert(name(&group[at..]));
                begins = c.is_whitespace();
            }
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                _ => {}
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn a_layer_uses_only_those_below_it() {
    let mut wrong = Vec::new();
    for (path, text) in files(&["src"]) {
        let layer = part(&path, "src/").unwrap();
        let known = LAYERS.iter().find(|(name, _)| *name == layer);
        let Some((_, below)) = known else {
            wrong.push(format!("{path}: layer {layer} is not in the table"));
            continue;
        };
        for used in names_after(&code(&text), "crate::") {
            if used != layer && !below.contains(&used.as_str()) {
                wrong.push(format!("{path}: {layer} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_room_of_the_engine_uses_only_those_below_it() {
    let rank = |name: &str| ROOMS.iter().position(|room| *room == name);
    let mut wrong = Vec::new();
    for (path, text) in files(&["src/engine"]) {
        let room = part(&path, "src/engine/").unwrap();
        if ROOT.contains(&room) {
            continue;
        }
        let is_leaf = LEAVES.contains(&room);
        let own = rank(room);
        if own.is_none() && !is_leaf {
            wrong.push(format!("{path}: room {room} is not in the table"));
        }
        for used in names_after(&code(&text), "crate::engine::") {
            let is_below = match (rank(&used), own) {
                _ if used == room || LEAVES.contains(&used.as_str()) => true,
                // What a room takes from the root would hide where it comes from.
                (None, _) => used == "Engine" && UPPER.contains(&room),
                (Some(_), None) => false,
                (Some(used), Some(own)) => used > own,
            };
            if !is_below {
                wrong.push(format!("{path}: {room} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_verbs_and_above_know_the_engine() {
    let mut wrong = Vec::new();
    for (path, text) in files(&["src/engine"]) {
        let room = part(&path, "src/engine/").unwrap();
        if ROOT.contains(&room) || UPPER.contains(&room) {
            continue;
        }
        let is_word = |word: &str| word == "Engine";
        let words = |line: &str| line.split(|c: char| !c.is_alphanumeric()).any(is_word);
        let found =
            shipped(&text).filter(|(_, line)| words(line) && !line.contains("base64::Engine"));
        wrong.extend(found.map(|(at, line)| format!("{path}:{at}: {line}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_of_a_path_are_found_in_groups_too() {
    let code = "use crate::a::B; use crate::{ b::{self, C}, d, }; crate::e::f()";
    let found = names_after(code, "crate::");
    assert_eq!(Vec::from_iter(found), ["a", "b", "d", "e"]);
}

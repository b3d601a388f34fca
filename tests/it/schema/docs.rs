//! What the pages of infra/operate name exists: metrics, flags, settings, files, and messages in the words of the program.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use cursus::config::Cli;

use super::tidy::files;

/// The pages with their names.
fn pages() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/operate");
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let named = entries.map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).unwrap())
    });
    named.collect()
}

/// What a page has between backticks, outside of blocks of code.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    let text = page.split("```").step_by(2);
    text.flat_map(|text| text.split('`').skip(1).step_by(2))
}

/// The sources as one text in which a literal that goes over several lines is one line.
fn sources() -> String {
    let all = files(&["src"]).into_iter().map(|(_, text)| text);
    let joined = all.collect::<String>().replace("\\\n", " ");
    joined.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn metrics_in_the_pages_exist() {
    let sources = sources();
    let mut found = 0;
    for (name, page) in pages() {
        let words =
            quoted(&page).flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_'));
        for metric in words.filter(|word| word.starts_with("cursus_") && !word.ends_with('_')) {
            let bare = metric.trim_start_matches("cursus_");
            let endings = ["", "_total", "_seconds", "_count", "_seconds_count"];
            let is_there = endings.iter().any(|ending| {
                let registered = bare.strip_suffix(ending);
                registered.is_some_and(|name| sources.contains(&format!("\"{name}\"")))
            });
            assert!(is_there, "{name}: {metric}");
            found += 1;
        }
    }
    assert!(found > 10, "{found} metrics");
}

#[test]
fn flags_and_settings_in_the_pages_exist() {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let known = |flag: &str| {
        command_has(serve, flag) || command.get_subcommands().any(|sub| command_has(sub, flag))
    };
    let mut found = 0;
    for (name, page) in pages() {
        for text in quoted(&page) {
            let first = text.split([' ', '=']).next().unwrap();
            if let Some(flag) = first.strip_prefix("--") {
                assert!(known(flag), "{name}: --{flag}");
                found += 1;
            }
            let is_setting = ["CURSUS_", "S3_", "OBJECT_STORE", "DATABASE_URL"]
                .iter()
                .any(|prefix| text.starts_with(prefix));
            if is_setting && text != "CURSUS_OLD_BIN" {
                let is_there = serve
                    .get_arguments()
                    .any(|arg| arg.get_env().is_some_and(|env| env == text));
                assert!(is_there, "{name}: {text}");
                found += 1;
            }
        }
    }
    assert!(found > 5, "{found} flags and settings");
}

fn command_has(command: &clap::Command, flag: &str) -> bool {
    command
        .get_arguments()
        .any(|arg| arg.get_long() == Some(flag))
}

#[test]
fn messages_in_the_pages_are_those_of_the_program() {
    let sources = sources();
    let mut found = 0;
    for (name, page) in pages() {
        for text in quoted(&page) {
            let is_message = [
                "the database ",
                "there is no ",
                "a pooler ",
                "the role ",
                "the disk ",
            ]
            .iter()
            .any(|start| text.starts_with(start));
            if !is_message {
                continue;
            }
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for part in text.split(['…', ':']).map(str::trim) {
                assert!(sources.contains(part), "{name}: {part}");
            }
            found += 1;
        }
    }
    assert!(found > 8, "{found} messages");
}

#[test]
fn files_in_the_pages_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, page) in pages() {
        let paths = quoted(&page).filter(|text| {
            ["tests/", "infra/", "benches/", ".ci/", "src/"]
                .iter()
                .any(|folder| text.starts_with(folder))
        });
        for path in paths {
            assert!(root.join(path).exists(), "{name}: {path}");
        }
        for link in page.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap();
            let is_there = link.is_empty() || root.join("infra/operate").join(link).exists();
            assert!(is_there, "{name}: {link}");
        }
    }
}

//! The two groups of tables, *home* and *lane* (`store::group`): every statement of `src/store` is read as text, and none
//! names tables of both. The text of the turn is bound to its version, and old versions of it go.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use cursus::store::group::{self, CROSSING, FILES, Group, TABLES};
use cursus::store::{TenantId, TopicId, lane, migrate, topic, turn};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection};

use crate::harness::log::Log;
use crate::harness::postgres::Database;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A statement of a file of the store: its name, its text, and the file without `.rs`.
struct Statement {
    file: String,
    name: String,
    sql: String,
}

/// The string literals of a source without its unit tests, one after the other; comments are left out. What stands between
/// the two parts of `per_slot!` is the name of a table.
fn literals(source: &str) -> String {
    let shipped = source.split("\n#[cfg(test)]").next().unwrap();
    let (mut all, mut code) = (String::new(), String::new());
    let mut rest = shipped.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '/' if rest.peek() == Some(&'/') => {
                rest.by_ref().find(|end| *end == '\n');
            }
            '"' => {
                let is_first_of_slot = code.trim_end().ends_with("per_slot!(");
                code.clear();
                while let Some(inside) = rest.next() {
                    match inside {
                        '"' => break,
                        '\\' => all.push(if rest.next() == Some('n') { '\n' } else { ' ' }),
                        inside => all.push(inside),
                    }
                }
                all.push_str(if is_first_of_slot {
                    "hot_payload_0"
                } else {
                    " "
                });
            }
            next => code.push(next),
        }
    }
    all
}

/// The names after `-- ` at the beginning of statements, with the text up to the next one.
fn statements() -> Vec<Statement> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("src/store")).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "rs") {
            continue;
        }
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = literals(&fs::read_to_string(&path).unwrap());
        for part in text.split("-- ").skip(1) {
            let (first, sql) = part.split_once('\n').unwrap_or((part, ""));
            match first.trim().split_once('.') {
                Some((table, verb)) if is_word(table) && is_word(verb) => found.push(Statement {
                    file: file.clone(),
                    name: first.trim().to_owned(),
                    sql: sql.to_owned(),
                }),
                // A comment inside the statement.
                _ => found.last_mut().unwrap().sql.push_str(sql),
            }
        }
    }
    assert!(found.len() > 200, "{} statements", found.len());
    found
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Words and punctuation of SQL; string literals and comments are left out.
fn tokens(sql: &str) -> Vec<String> {
    let without_comments: Vec<&str> = sql
        .lines()
        .map(|line| line.split("--").next().unwrap())
        .collect();
    let mut tokens: Vec<String> = Vec::new();
    for (at, outside) in without_comments.join("\n").split('\'').enumerate() {
        if at % 2 == 1 {
            tokens.push("''".to_owned());
            continue;
        }
        let mut is_in_word = false;
        for next in outside.chars() {
            let is_of_word = next.is_ascii_alphanumeric() || next == '_' || next == '$';
            match tokens.last_mut() {
                Some(word) if is_of_word && is_in_word => word.push(next),
                _ if next.is_whitespace() => {}
                _ => tokens.push(next.to_string()),
            }
            is_in_word = is_of_word;
        }
    }
    tokens
}

/// The tables that a statement names; what it names in `WITH` is none.
fn tables(sql: &str) -> BTreeSet<String> {
    let tokens = tokens(sql);
    let at = |index: usize| tokens.get(index).map_or("", String::as_str);
    let mut with = BTreeSet::new();
    for index in 0..tokens.len() {
        let is_query = at(index + 1) == "AS"
            && (at(index + 2) == "(" || (at(index + 2) == "MATERIALIZED" && at(index + 3) == "("));
        if is_query && is_word(at(index)) {
            with.insert(at(index).to_owned());
        }
        // search (low, high) AS (
        if at(index) == ")" && at(index + 1) == "AS" && at(index + 2) == "(" {
            let open = (0..index).rev().find(|open| at(*open) == "(");
            with.insert(at(open.unwrap_or(1).saturating_sub(1)).to_owned());
        }
    }
    let mut named = BTreeSet::new();
    for index in 1..tokens.len() {
        let before = at(index - 1);
        let (mut next, mut may_be_function) = (index + 1, true);
        match at(index) {
            "FROM" if before == "DISTINCT" || at(index.saturating_sub(3)) == "extract" => continue,
            "FROM" | "JOIN" | "USING" => {}
            "INTO" if before == "INSERT" => may_be_function = false,
            "UPDATE" if !["FOR", "KEY", "DO"].contains(&before) => may_be_function = false,
            "TABLE" => may_be_function = false,
            _ => continue,
        }
        while ["LATERAL", "ONLY", "IF", "NOT", "EXISTS"].contains(&at(next)) {
            next += 1;
        }
        let name = at(next);
        let is_function = may_be_function && at(next + 1) == "(";
        if is_word(name) && !is_function && !with.contains(name) && !name.starts_with("pg_") {
            let ring = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let is_ring = ["hot_payload_", "dedup_"].contains(&ring);
            let name = if is_ring {
                ring.trim_end_matches('_')
            } else {
                name
            };
            named.insert(name.to_owned());
        }
    }
    named
}

fn group_of(table: &str) -> Option<Group> {
    let known = TABLES.iter().find(|(name, _)| *name == table);
    known.map(|(_, group)| *group)
}

/// What is wrong with the tables of a statement, and their group.
fn judged(name: &str, sql: &str, wrong: &mut String) -> Option<Group> {
    let mut groups = Vec::new();
    let named = tables(sql);
    for table in &named {
        match group_of(table) {
            Some(group) => groups.push(group),
            None => writeln!(
                wrong,
                "{name} names {table}, which is no table of store::group"
            )
            .unwrap(),
        }
    }
    groups.dedup();
    if groups.len() > 1 {
        writeln!(wrong, "{name} names home and lane: {named:?}").unwrap();
    }
    groups.first().copied()
}

#[test]
fn no_statement_names_tables_of_home_and_of_the_lanes() {
    let mut wrong = String::new();
    for Statement { name, sql, .. } in statements() {
        let found = judged(&name, &sql, &mut wrong);
        if found.is_some() && found != group::of(&name) {
            writeln!(
                wrong,
                "{name} is {found:?}, and by its name {:?}",
                group::of(&name)
            )
            .unwrap();
        }
    }
    assert_eq!(
        judged("turn.sql", turn::TEMPLATE, &mut wrong),
        Some(Group::Lane)
    );
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_statement_begins_with_the_name_of_its_file() {
    let mut wrong = String::new();
    for Statement { file, name, .. } in statements() {
        let (prefix, _) = name.split_once('.').unwrap();
        let is_known = group_of(&file).is_some()
            || FILES.iter().any(|(name, _)| *name == file)
            || ["pool", "session", "settings"].contains(&&*file);
        if prefix != file || !is_known {
            writeln!(wrong, "{name} in src/store/{file}.rs").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_reader_of_statements_finds_what_they_name() {
    let named = |sql: &str| tables(sql).into_iter().collect::<Vec<_>>().join(" ");
    let crossing =
        "SELECT b.*, (SELECT o.key FROM object o WHERE o.object_id = b.object_id) FROM block b";
    assert_eq!(named(crossing), "block object");
    let hidden = "WITH lane AS (SELECT 1), gone AS MATERIALIZED (DELETE FROM lease e USING unnest($1) AS c (lane_id))
                  INSERT INTO usage_hour AS u (a) SELECT extract(epoch FROM x) FROM lane JOIN gone USING (a)
                  WHERE a IS DISTINCT FROM b -- FROM topic
                  ON CONFLICT (a) DO UPDATE SET b = 'FROM topic' FOR UPDATE";
    assert_eq!(named(hidden), "lease usage_hour");
    assert_eq!(
        named("WITH RECURSIVE s (low, high) AS (SELECT 1 FROM lane) TABLE s, LATERAL s"),
        "lane"
    );
    assert_eq!(named("TRUNCATE TABLE hot_payload_7"), "hot_payload");
    let mut wrong = String::new();
    judged("block.covering", crossing, &mut wrong);
    judged("block.typo", "SELECT FROM blok", &mut wrong);
    assert_eq!(wrong.lines().count(), 2, "{wrong}");
}

#[tokio::test]
async fn every_table_is_in_a_group() {
    let database = Database::new().await;
    let mut sql = database.connect().await;
    let tables = "SELECT DISTINCT regexp_replace(relname, '^(hot_payload|dedup)_[0-9]$', '\\1') FROM pg_class
                  WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(tables)
        .fetch_all(&mut sql)
        .await
        .unwrap();
    let mut known = TABLES.map(|(name, _)| name);
    known.sort_unstable();
    assert_eq!(tables, known);
    sql.close().await.unwrap();
}

fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, text),
            false => text.push_str(&fs::read_to_string(path).unwrap()),
        }
    }
}

#[test]
fn a_transaction_that_may_cross_exists() {
    let mut text = String::new();
    sources(&root().join("src"), &mut text);
    for (name, why) in CROSSING {
        assert!(text.contains(&format!(".tx(\"{name}\")")), "{name}: {why}");
    }
}

#[tokio::test]
#[should_panic(expected = "is of another group of tables")]
async fn a_transaction_that_is_not_listed_stays_in_one_group() {
    let log = Log::new().await;
    let mut tx = log.store.tx("not listed").await.unwrap();
    topic::by_name(&mut tx, TenantId::new(1), "t")
        .await
        .unwrap();
    let _ = lane::of_topic(&mut tx, TopicId::new(1)).await;
}

#[test]
fn the_text_of_the_turn_is_that_of_its_version() {
    let published = fs::read_to_string(root().join("migrations/TURNS")).unwrap();
    let digest = Sha256::digest(turn::TEMPLATE);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let names = published
        .lines()
        .map(|line| line.split_once("  ").unwrap().1);
    let expected = (1..=turn::VERSION).map(|version| format!("turn_{version}"));
    assert!(
        names.eq(expected),
        "one line a version, the last is turn::VERSION"
    );
    assert_eq!(
        published.lines().last(),
        Some(format!("{hex}  turn_{}", turn::VERSION).as_str()),
        "a change of turn.sql is a new version (see migrations/README.md)"
    );
}

#[tokio::test]
async fn a_turn_is_installed_beside_the_one_before_and_those_older_go() {
    let log = Log::new().await;
    let (store, mut sql) = (log.store, log.sql);
    let (now, next, last) = (turn::VERSION, turn::VERSION + 1, turn::VERSION + 2);
    for (version, expected) in [
        (now, vec![now]),
        (next, vec![now, next]),
        (next, vec![now, next]),
        (last, vec![next, last]),
        // A node of the version before that starts again changes nothing.
        (next, vec![next, last]),
    ] {
        let mut tx = store.tx("migrate").await.unwrap();
        migrate::install_turn(&mut tx, version).await.unwrap();
        tx.commit().await.unwrap();
        let found = "SELECT proname FROM pg_proc WHERE proname ~ '^turn_' ORDER BY 1";
        let found: Vec<String> = sqlx::query_scalar(AssertSqlSafe(found))
            .fetch_all(&mut sql)
            .await
            .unwrap();
        let both = |version: &u32| [format!("turn_{version}"), format!("turn_block_{version}")];
        let mut expected: Vec<String> = expected.iter().flat_map(both).collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "after version {version}");
    }
    store.close().await;
}

//! The texts of the program: every command has an example, and the README has the exit codes.

use std::collections::VecDeque;
use std::fs;

use super::Program;

/// The commands in a text of `--help`.
fn commands(help: &str) -> Vec<String> {
    let rest = help
        .split_once("\nCommands:\n")
        .map_or("", |(_, rest)| rest);
    let lines = rest.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn every_command_has_an_example_a_page_and_completions() {
    let cli = Program::at("");
    let pages = cli.home.path().join("man");
    cli.says(&["man", "--all", pages.to_str().unwrap()]).await;
    let mut todo: VecDeque<Vec<String>> = VecDeque::from([Vec::new()]);
    let mut seen = 0;
    while let Some(path) = todo.pop_front() {
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        args.push("--help");
        let help = cli.says(&args).await;
        let inner = commands(&help);
        if inner.is_empty() {
            seen += 1;
            assert!(help.contains("Example"), "{path:?} has no example");
        }
        let page = pages.join(format!(
            "cursus{}.1",
            path.iter()
                .map(|name| format!("-{name}"))
                .collect::<String>()
        ));
        assert!(page.exists(), "{} does not exist", page.display());
        todo.extend(inner.into_iter().map(|name| [&path[..], &[name]].concat()));
    }
    assert!(seen > 35, "{seen}");
    for shell in ["bash", "zsh", "fish"] {
        let script = cli.says(&["completions", shell]).await;
        assert!(script.contains("dead-letter-topic"), "{shell}");
    }
    assert!(
        cli.says(&["man", "topic", "create"])
            .await
            .contains("cursus topic create orders")
    );
    cli.run(&["man", "topics"])
        .await
        .fails(2, &["has no command topics"]);
}

#[tokio::test]
async fn the_exit_codes_are_those_of_the_readme() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains(cursus::cli::CODES));
    assert!(
        Program::at("")
            .says(&["--help"])
            .await
            .contains(cursus::cli::CODES)
    );
}

//! The FOCUS export in the eyes of the validator of the FinOps Foundation (`.ci/parts` installs it): the export of a
//! month that is open and of one that is closed. It exits with 0 when rules fail, so its output is read.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use reqwest::Method;

use crate::bill::focus::{csv, used};
use crate::harness::scratch::Scratch;
use crate::harness::{Fleet, Node};

/// What the service does, in the validator's words.
const DOES: &str = "ACCOUNT_NAMING_SUPPORTED,USAGE_MEASUREMENT_SUPPORTED,UNIT_PRICING_SUPPORTED,\
    PUBLIC_PRICE_LIST_SUPPORTED,SUB_ACCOUNT_SUPPORTED,RESOURCE_TYPE_ASSIGNMENT_SUPPORTED,TAGGING_SUPPORTED";

/// Beginnings of the rules that fail for no fault of the export.
const NOT_OURS: [&str; 6] = [
    // It reads CommitmentDiscountStatus, a column of providers that sell discounts for commitments.
    "ConsumedQuantity-C-",
    // Three columns of providers that price in a virtual currency: it takes the conditions apart, one column each, and
    // then fails the alternatives.
    "CostAndUsage-D-04",
    "CostAndUsage-D-05",
    "PricingCurrencyContractedUnitPrice-C-",
    "PricingCurrencyEffectiveCost-C-",
    "PricingCurrencyListUnitPrice-C-",
];

fn folder() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap();
    PathBuf::from(home).join(".cache/cursus-test/focus")
}

/// The rules that the export of a month fails.
async fn failed(node: &Node, month: &str) -> Vec<String> {
    let path = format!("/v1/usage/focus?period={month}");
    let response = node.request(Method::GET, &path).send().await.unwrap();
    let text = response.text().await.unwrap();
    let (_, rows) = csv(&text);
    assert!(!rows.is_empty());
    let scratch = Scratch::new("focus");
    let file = scratch.path().join("export.csv");
    std::fs::write(&file, text).unwrap();
    // It finds its list of currencies, and leaves a log, in the working directory.
    let libraries = std::fs::read_dir(folder().join("lib")).expect("run .ci/parts");
    let python = libraries.map(|entry| entry.unwrap().path()).next().unwrap();
    let package = python.join("site-packages/focus_validator");
    symlink(package, scratch.path().join("focus_validator")).unwrap();
    let mut command = Command::new(folder().join("bin/focus-validator"));
    command
        .current_dir(scratch.path())
        .arg("--data-file")
        .arg(file);
    command.args(["--validate-version", "1.2", "--block-download"]);
    command.args(["--applicability-criteria", DOES]);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let total = said.lines().find(|line| line.contains("Total:"));
    let total =
        total.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    let passed = total
        .split("Pass: ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let passed: u32 = passed.unwrap().parse().unwrap();
    assert!(passed > 150, "{total}");
    let failures = said.lines().filter(|line| line.contains(": FAIL "));
    let rule = |line: &str| {
        let words = line.split([' ', ':']);
        words
            .clone()
            .find(|word| word.contains("-C-") || word.contains("-M") || word.contains("-D-"))
            .unwrap()
            .to_owned()
    };
    let rules = failures.map(rule);
    let is_ours = |rule: &String| !NOT_OURS.iter().any(|other| rule.starts_with(other));
    rules.filter(is_ours).collect()
}

#[tokio::test]
async fn the_validator_of_focus_takes_the_export() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    used(&fleet, &node).await;
    // A rule asks for the id where there is an invoice, and another for none where there is none: it cannot know which,
    // and fails one of the two.
    assert_eq!(failed(&node, "2030-01").await, ["InvoiceId-C-005-C"]);
    let (_, month) = node.get("/v1/usage/month?period=2030-01").await;
    assert_eq!(month.get("invoice_id"), None);

    fleet.advance(40 * 86_400);
    fleet.meter().await;
    assert_eq!(failed(&node, "2030-01").await, ["InvoiceId-C-004-C"]);
    let (_, month) = node.get("/v1/usage/month?period=2030-01").await;
    assert_eq!(month["invoice_id"], "default/2030-01");
    let path = "/v1/usage/focus?period=2030-01";
    let response = node.request(Method::GET, path).send().await.unwrap();
    let (_, rows) = csv(&response.text().await.unwrap());
    assert!(rows.iter().all(|row| row["InvoiceId"] == "default/2030-01"));
    fleet.finish([node]).await;
}

//! Tests of .github/workflows, with the linters that they call: they are well formed, and every command in them exists.

use std::path::{Path, PathBuf};
use std::{collections::BTreeSet, fs, process::Command};

use clap::Parser;
use rstest::rstest;
use serde_json::Value;

use crate::cli::{self, Cli};
use crate::{matrix, readme::OF_XTASK};

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn workflow(name: &str) -> PathBuf {
    checkout().join(".github/workflows").join(name)
}

/// Every line of shell of a workflow: lines that a backslash continues are one.
fn commands(name: &str) -> Vec<String> {
    let text = fs::read_to_string(workflow(name)).unwrap();
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    let jobs = read["jobs"].as_object().unwrap();
    let steps = jobs.values().flat_map(|job| job["steps"].as_array().unwrap());
    let scripts: Vec<&str> = steps.filter_map(|step| step["run"].as_str()).collect();
    assert!(!scripts.is_empty(), "{name} runs nothing");
    scripts.join("\n").replace("\\\n", " ").lines().map(|line| line.trim().to_owned()).collect()
}

fn arguments_of_a_cell() -> String {
    let cells = Cli::try_parse_from(["cargo xtask", "matrix", "--shards", "2"]).unwrap();
    let cli::Command::Matrix(options) = cells.command else { panic!("it is a matrix") };
    let cells = matrix::cells(&options, &checkout().join("manifests")).unwrap();
    serde_json::to_value(cells).unwrap()["include"][0]["words"].as_str().unwrap().to_owned()
}

const WORKFLOWS: [&str; 3] = ["pr.yml", "nightly.yml", "release.yml"];
/// The program that an earlier step has built.
const OF_THE_ARCHIVE: &str = "archive/igc-*/igc";
/// Programs of the runner, and words of the shell.
const KNOWN: [&str; 19] = [
    "",
    "cargo",
    "cat",
    "cp",
    "docker",
    "echo",
    "elif",
    "else",
    "fi",
    "find",
    "gh",
    "go",
    "grep",
    "if",
    "mkdir",
    "number=$(gh",
    "rustup",
    "sha256sum",
    OF_THE_ARCHIVE,
];

#[rstest]
#[case("pr.yml", 4)]
#[case("nightly.yml", 5)]
#[case("release.yml", 1)]
fn every_command_exists(#[case] name: &str, #[case] least: usize) {
    let commands = commands(name);
    for command in &commands {
        let program = command.split(' ').next().unwrap_or_default();
        assert!(KNOWN.contains(&program), "{name}: {program} is no program of the runner: {command}");
    }
    let ours: BTreeSet<String> = commands
        .iter()
        .map(|command| command.replace(&format!("{OF_THE_ARCHIVE} "), "cargo xtask "))
        .filter(|command| command.starts_with("cargo xtask "))
        .collect();
    assert!(ours.len() >= least, "{ours:?}");
    for command in ours {
        let plain = command.replace("${{ matrix.words }}", &arguments_of_a_cell()).replace("\"$SHARDS\"", "2");
        let plain = plain.split(" > ").next().unwrap_or_default();
        assert!(!plain.contains(['$', '"', '\'', '|', '&']), "not understood by this test: {plain}");
        let words: Vec<&str> = plain.split_whitespace().skip(1).collect(); // cargo xtask ... is parsed as `xtask ...`
        if OF_XTASK.contains(&words[1]) {
            continue;
        }
        if let Err(error) = Cli::try_parse_from(words) {
            panic!("{name}: {command}: {error}");
        }
    }
}

#[test]
fn actionlint_finds_nothing() {
    let Some(actionlint) = testtools::in_path("actionlint", &["actionlint"]) else { return };
    let mut actionlint = Command::new(actionlint);
    actionlint.args(["-no-color", "-shellcheck=", "-pyflakes="]).args(WORKFLOWS.map(workflow));
    let linted = actionlint.output().unwrap();
    let said = String::from_utf8_lossy(&linted.stdout);
    assert!(linted.status.success(), "{said}");
}

/// Advisories are left out: they change without the project, and a test must not.
#[test]
fn cargo_deny_finds_nothing() {
    let Some(deny) = testtools::in_path("cargo-deny", &["cargo-deny"]) else { return };
    let mut deny = Command::new(deny);
    deny.current_dir(checkout()).args(["--color", "never", "check", "bans", "licenses", "sources"]);
    let checked = deny.output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
}

/// A tag can be moved to other code; a commit cannot.
#[rstest]
#[case("pr.yml")]
#[case("nightly.yml")]
#[case("release.yml")]
fn every_action_is_pinned_to_a_commit(#[case] name: &str) {
    let text = fs::read_to_string(workflow(name)).unwrap();
    let actions: Vec<&str> =
        text.lines().filter_map(|line| line.split_once("uses: ")).map(|(_, action)| action).collect();
    let is_pinned = |action: &&str| {
        let (commit, tag) = action.split_once('@').and_then(|(_, of)| of.split_once(" # v")).unwrap_or_default();
        commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()) && !tag.is_empty()
    };
    assert!(!actions.is_empty() && actions.iter().all(is_pinned), "{name}: {actions:?}");
}

#[test]
fn no_expression_of_an_event_is_put_into_a_script() {
    for name in WORKFLOWS {
        let commands = commands(name);
        let expressions = commands.iter().filter(|c| c.contains("${{") && !c.contains("${{ matrix.words }}"));
        assert_eq!(expressions.collect::<Vec<_>>(), Vec::<&String>::new(), "{name}: use env instead");
    }
}

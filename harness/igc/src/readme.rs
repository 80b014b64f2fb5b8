//! Test of README and CONTRIBUTING: every command in them is one that exists.

use std::{fs, path::Path};

use clap::Parser;

use crate::cli::Cli;

/// Commands that only the front in a checkout has.
pub const OF_XTASK: [&str; 3] = ["ci", "programs", "archive"];

/// The lines of its examples that call this program, as words; a shell's comments and redirections left out.
fn commands() -> Vec<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = ["README.md", "CONTRIBUTING.md"].map(|page| fs::read_to_string(root.join(page)).unwrap()).concat();
    let examples = text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = examples.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ cargo xtask "));
    lines
        .map(|line| arguments(line.split(" # ").next().unwrap_or_default().split(" > ").next().unwrap_or_default()))
        .collect()
}

/// Words as a shell has them, with single quotes.
fn arguments(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.last_mut().unwrap().push_str(part);
            continue;
        }
        for (at, piece) in part.split(' ').enumerate() {
            if at > 0 {
                words.push(String::new());
            }
            words.last_mut().unwrap().push_str(piece);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_command_exists() {
    let commands = commands();
    assert!(commands.len() > 20, "{commands:?}");
    for words in commands.into_iter().filter(|words| !OF_XTASK.contains(&words[0].as_str())) {
        if let Err(error) = Cli::try_parse_from([vec!["cargo xtask".to_owned()], words.clone()].concat()) {
            panic!("cargo xtask {}: {error}", words.join(" "));
        }
    }
}

//! cargo xtask: the front of `igc` in a checkout. It builds, hands the words over as they were typed, and has what only a
//! checkout can do; what `igc` can do it neither knows nor parses.

mod ci;
mod program;
mod run;

use std::{ffi::OsString, path::Path, process::ExitCode};

use anyhow::Result;

use crate::run::Interrupts;

/// What can be done here and not by `igc`: a command, and what it does.
const OWN: [(&str, &str); 2] = [
    ("ci", "Everything that a commit must pass: format, clippy, tidy, each mutant once, tests"),
    (
        "programs",
        "Build the programs of a run into a folder, for an image; where IGC_PROGRAMS names it, nothing is built",
    ),
];

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let typed: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let done = match typed.as_slice() {
        ["ci"] => ci::ci(),
        ["programs", folder] if !folder.starts_with('-') => program::programs(Path::new(folder)),
        ["ci", ..] => Ok(usage("cargo xtask ci")),
        ["programs", ..] => Ok(usage("cargo xtask programs FOLDER")),
        _ => hand_over(&words),
    };
    done.map_or_else(
        |error| {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        },
        ExitCode::from,
    )
}

fn usage(form: &str) -> u8 {
    eprintln!("usage: {form}");
    2
}

fn hand_over(words: &[OsString]) -> Result<u8> {
    let interrupts = Interrupts::listen()?;
    match program::igc(words) {
        Ok(mut igc) => interrupts.run(igc.args(words)),
        Err(_) if interrupts.said() => Ok(130),
        Err(error) => Err(error),
    }
}

//! cargo xtask: the front of `igc` in a checkout. It builds, hands the words over as they were typed, and has what only a
//! checkout can do; what `igc` can do it neither knows nor parses.

mod archive;
mod ci;
mod program;
mod run;

use std::{ffi::OsString, path::Path, process::ExitCode};

use anyhow::Result;

use crate::run::Interrupts;

/// What can be done here and not by `igc`: a command, and what it does.
const OWN: [(&str, &str); 3] = [
    ("ci", "Run everything that a commit must pass: format, clippy, tidy, each mutant once, tests"),
    ("programs", "Build the programs of a run into a folder; IGC_PROGRAMS=FOLDER uses them in place of a build"),
    ("archive", "Build the release archive into a folder: static programs, checksum, bill of materials"),
];

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let typed: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let done = match typed.as_slice() {
        ["ci"] => ci::ci(),
        ["programs", folder] if !folder.starts_with('-') => program::programs(Path::new(folder)),
        ["archive", folder] if !folder.starts_with('-') => archive::archive(Path::new(folder)),
        ["ci", ..] => Ok(usage("cargo xtask ci")),
        [command @ ("programs" | "archive"), ..] => Ok(usage(&format!("cargo xtask {command} FOLDER"))),
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

//! What a commit must pass, in the order in which it fails fastest.

use anyhow::{Result, bail};

use crate::{
    e2e, program,
    run::{Ended, Interrupts},
    tidy,
};

/// The steps: what it is called, and cargo's words.
const STEPS: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    ("clippy", &["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]),
];

/// The last step, so that its closing lines are the last of the output.
const TESTS: &[&str] = &["test", "--workspace", "--lib", "--bins", "--tests", "--locked", "--no-fail-fast"];

/// `cargo xtask ci`.
pub fn ci() -> Result<u8> {
    let interrupts = Interrupts::listen()?;
    let step = |name: &str, words: &[&str]| -> Result<()> {
        eprintln!("==> {name}: cargo {}", words.join(" "));
        match interrupts.run(program::cargo().args(words))? {
            Ended::Code(0) => Ok(()),
            Ended::Code(code) => bail!("{name} failed with {code}"),
            Ended::Interrupted => bail!("{name} was interrupted"),
        }
    };
    let checked = STEPS.iter().try_for_each(|(name, words)| step(name, words)).and_then(|()| {
        eprintln!("==> tidy");
        match tidy::tidy()? {
            0 => Ok(()),
            _ => bail!("tidy found something"),
        }
    });
    let tried = checked.and_then(|()| {
        eprintln!("==> mutants: cargo xtask mutants --once");
        match e2e::mutants(&options::Mutants::each_once())? {
            0 => Ok(()),
            code => bail!("mutants ended with {code}"),
        }
    });
    match tried.and_then(|()| step("tests", TESTS)) {
        Ok(()) => Ok(0),
        Err(error) => {
            eprintln!("error: {error:#}");
            Ok(1)
        }
    }
}

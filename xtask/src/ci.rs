//! What a commit must pass, in the order in which it fails fastest; and how long each step took.

use std::ffi::OsString;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::{program, run::Interrupts};

#[derive(Clone, Copy)]
enum Calls {
    Cargo(&'static [&'static str]),
    Igc(&'static [&'static str]),
}

/// Tells the tests when their step began, in seconds since 1970: the last of them says how long it took, because nothing is
/// printed behind the closing lines of the test runner.
const BEGUN: &str = "IGC_STEP_BEGUN";

/// The steps. The tests are the last one, so that their closing lines are the last of the output.
const STEPS: [(&str, Calls); 6] = [
    ("format", Calls::Cargo(&["fmt", "--all", "--check"])),
    ("clippy", Calls::Cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"])),
    ("tidy", Calls::Igc(&["tidy"])),
    // Of everything at once: only then is a declared change one that nothing uses.
    ("rehearsal", Calls::Igc(&["e2e", "--on", "rehearsal", "--quiet"])),
    ("mutants", Calls::Igc(&["mutants", "--once"])),
    ("tests", Calls::Cargo(&["test", "--workspace", "--lib", "--bins", "--tests", "--locked", "--no-fail-fast"])),
];

pub fn ci() -> Result<u8> {
    let interrupts = Interrupts::listen()?;
    for (name, calls) in STEPS {
        let begun = Instant::now();
        let code = match calls {
            Calls::Cargo(words) => {
                eprintln!("==> {name}: cargo {}", words.join(" "));
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                interrupts.run(program::cargo().args(words).env(BEGUN, now.to_string()))?
            }
            Calls::Igc(words) => {
                eprintln!("==> {name}: cargo xtask {}", words.join(" "));
                let words: Vec<OsString> = words.iter().map(OsString::from).collect();
                interrupts.run(program::igc(&words)?.args(&words))?
            }
        };
        let seconds = begun.elapsed().as_secs();
        if code != 0 {
            eprintln!("error: {name} ended with {code} after {seconds} s");
            return Ok(if code == 130 { 130 } else { 1 });
        }
        if name != "tests" {
            eprintln!("==> {name}: {seconds} s");
        }
    }
    Ok(0)
}

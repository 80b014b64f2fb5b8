//! The programs of a run, built: `igc`, and the test binary of the suites.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, ffi::OsString};

use anyhow::{Context, Result, bail};

use crate::OWN;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// A program without what the outer `cargo run` says of xtask's own package: build scripts that look at it (ring's does)
/// would build everything above them again, each time that a build is not started by xtask. Its jobserver is left out as well,
/// whose files are not passed on: rustc would warn of it.
fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_MAKEFLAGS"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
}

pub fn cargo() -> Command {
    let mut command = clean(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// What people wait for is built with the features that the whole workspace asks for, so that dependencies are compiled
/// once for this, for the tests and for `cargo build --workspace --all-targets`.
const OURS: [&str; 6] = ["build", "--workspace", "--bin", "igc", "--test", "suites"];

/// Names a folder with `igc` and `suites` as `cargo xtask programs` leaves it: nothing is built then, for places without
/// cargo.
const PROGRAMS: &str = "IGC_PROGRAMS";

const NAMES: [&str; 2] = ["igc", "suites"];

fn given_or_built(words: &[&str]) -> Result<[PathBuf; 2]> {
    match env::var_os(PROGRAMS).filter(|folder| !folder.is_empty()) {
        Some(folder) => Ok(NAMES.map(|name| Path::new(&folder).join(name))),
        None => built(&mut cargo(), words),
    }
}

/// `igc` and the suites' test binary in this order, built with these words more; cargo's progress goes to the terminal.
pub fn built(command: &mut Command, words: &[&str]) -> Result<[PathBuf; 2]> {
    command.args(OURS).args(words).args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let output = command.output().context("failed to start cargo")?;
    if !output.status.success() {
        bail!("cargo {} failed", OURS.join(" "));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let named = |name| executable(&said, name).with_context(|| format!("cargo {} made no {name}", OURS.join(" ")));
    Ok([named("igc")?, named("suites")?])
}

/// The executable of a target with this name, in what cargo says of it: one JSON object a line.
fn executable(said: &str, target: &str) -> Option<PathBuf> {
    let of_target = |line: &&str| value_of(line, "name") == Some(target);
    said.lines().filter(of_target).find_map(|line| value_of(line, "executable")).map(PathBuf::from)
}

/// The first text with this key in a line of JSON; a text with an escape in it is none. xtask reads nothing else, and waits
/// for no parser to be compiled.
fn value_of<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    let (_, rest) = line.split_once(&format!("\"{key}\":\""))?;
    let (value, _) = rest.split_once('"')?;
    (!value.contains('\\')).then_some(value)
}

/// `igc`, built, and told where it is and by whom it is called. Where these words ask `igc` to be quiet, cargo is too.
pub fn igc(words: &[OsString]) -> Result<Command> {
    let quiet = words.iter().any(|word| word == "--quiet" || word == "-q").then_some("--quiet");
    let [igc, suites] = given_or_built(quiet.as_slice())?;
    let own = OWN.iter().map(|(name, what)| format!("\n{name}\t{what}"));
    let front: String = ["cargo xtask".to_owned()].into_iter().chain(own).collect();
    let mut command = clean(igc);
    command.env("IGC_ROOT", root()).env("IGC_SUITES", suites).env("IGC_FRONT", front);
    Ok(command)
}

pub fn programs(folder: &Path) -> Result<u8> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    copy(&given_or_built(&[])?, folder)?;
    Ok(0)
}

pub fn copy(programs: &[PathBuf; 2], folder: &Path) -> Result<()> {
    for (program, name) in programs.iter().zip(NAMES) {
        let to = folder.join(name);
        std::fs::copy(program, &to)
            .with_context(|| format!("failed to copy {} to {}", program.display(), to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as cargo 1.95 writes them, shortened.
    const SAID: &str = r#"{"reason":"compiler-artifact","package_id":"path+file:///c/suites#0.1.0","manifest_path":"/c/suites/Cargo.toml","target":{"kind":["lib"],"crate_types":["lib"],"name":"suites","src_path":"/c/suites/src/lib.rs"},"filenames":["/c/target/debug/libsuites.rlib"],"executable":null,"fresh":true}
{"reason":"compiler-artifact","package_id":"path+file:///c/suites#0.1.0","manifest_path":"/c/suites/Cargo.toml","target":{"kind":["test"],"crate_types":["bin"],"name":"suites","src_path":"/c/suites/tests/main.rs"},"filenames":["/c/target/debug/deps/suites-1"],"executable":"/c/target/debug/deps/suites-1","fresh":true}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"igc"},"executable":"/odd \"c\"/igc"}
{"reason":"build-finished","success":true}"#;

    #[test]
    fn executables_are_read_from_what_cargo_says() {
        assert_eq!(executable(SAID, "suites"), Some(PathBuf::from("/c/target/debug/deps/suites-1")));
        assert_eq!(executable(SAID, "igc"), None, "a path that is written with escapes is refused");
        assert_eq!(executable(SAID, "xtask"), None);
    }
}

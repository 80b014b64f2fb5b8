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
/// would build everything above them again, each time that a build is not started by xtask.
fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| text.starts_with(prefix)) {
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

/// `igc` and the suites' test binary, as cargo reports them; its progress goes to the terminal.
fn built(quiet: bool) -> Result<[PathBuf; 2]> {
    if let Some(folder) = env::var_os(PROGRAMS).filter(|folder| !folder.is_empty()) {
        return Ok(["igc", "suites"].map(|name| Path::new(&folder).join(name)));
    }
    let mut command = cargo();
    command.args(OURS).args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let output = command.args(quiet.then_some("--quiet")).output().context("failed to start cargo")?;
    if !output.status.success() {
        bail!("cargo {} failed", OURS.join(" "));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let made: Vec<serde_json::Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let executable = |name: &str| {
        let mut ours = made.iter().filter(|message| message["target"]["name"] == name);
        let path = ours.find_map(|message| message["executable"].as_str().map(PathBuf::from));
        path.with_context(|| format!("cargo {} made no executable called {name}", OURS.join(" ")))
    };
    Ok([executable("igc")?, executable("suites")?])
}

/// `igc`, built, and told where it is and by whom it is called. Where these words ask `igc` to be quiet, cargo is too.
pub fn igc(words: &[OsString]) -> Result<Command> {
    let [igc, suites] = built(words.iter().any(|word| word == "--quiet" || word == "-q"))?;
    let own = OWN.iter().map(|(name, what)| format!("\n{name}\t{what}"));
    let front: String = ["cargo xtask".to_owned()].into_iter().chain(own).collect();
    let mut command = clean(igc);
    command.env("IGC_ROOT", root()).env("IGC_SUITES", suites).env("IGC_FRONT", front);
    Ok(command)
}

pub fn programs(folder: &Path) -> Result<u8> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    for (program, name) in built(false)?.iter().zip(["igc", "suites"]) {
        let to = folder.join(name);
        std::fs::copy(program, &to)
            .with_context(|| format!("failed to copy {} to {}", program.display(), to.display()))?;
    }
    Ok(0)
}

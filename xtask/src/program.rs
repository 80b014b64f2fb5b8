//! The programs that xtask calls: cargo, `igc`, and the suites' test binary.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::run::{Ended, Interrupts};

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// cargo, in the checkout. What the outer `cargo run` says of xtask's own package is taken away: build scripts that look at
/// it (ring's does) would build everything above them again, each time that a build is not started by xtask.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text.starts_with("CARGO_BIN_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Whether cargo tells how a build goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// On standard error.
    Told,
    /// Only what goes wrong.
    Quiet,
}

/// Builds targets and returns their executables, as cargo reports them. Progress goes to the terminal.
fn built<const N: usize>(build: Build, what: &[&str], names: [&str; N], flags: Option<&str>) -> Result<[PathBuf; N]> {
    let mut command = cargo();
    if build == Build::Quiet {
        command.arg("--quiet");
    }
    command.arg("build").args(what).args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    if let Some(flags) = flags {
        command.env("RUSTFLAGS", flags);
    }
    let output = command.output().context("failed to start cargo")?;
    if !output.status.success() {
        bail!("cargo build {} failed", what.join(" "));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let made: Vec<serde_json::Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut executables = [const { PathBuf::new() }; N];
    for (executable, name) in executables.iter_mut().zip(names) {
        *executable = made
            .iter()
            .filter(|message| message["target"]["name"] == name)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .with_context(|| format!("cargo build {} made no executable called {name}", what.join(" ")))?;
    }
    Ok(executables)
}

/// What people wait for is built with the features that the whole workspace asks for, so that dependencies are compiled
/// once for this, for the tests and for `cargo build --workspace --all-targets`.
const OURS: [&str; 5] = ["--workspace", "--bin", "igc", "--test", "suites"];

/// Names a folder with `igc` and `suites` as `cargo xtask programs` leaves it: nothing is built then, for places without
/// cargo.
const PROGRAMS: &str = "IGC_PROGRAMS";

/// A program that was built elsewhere, if the environment says so.
fn found(name: &str) -> Option<PathBuf> {
    std::env::var_os(PROGRAMS).filter(|folder| !folder.is_empty()).map(|folder| Path::new(&folder).join(name))
}

/// `cargo xtask programs DIR`: what a run needs of this checkout's programs, in a folder.
pub fn programs(folder: &Path) -> Result<u8> {
    let [igc, suites] = igc_and_suites(Build::Told)?;
    let own = std::env::current_exe().context("failed to find this program")?;
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    for (program, name) in [(igc, "igc"), (suites, "suites"), (own, "xtask")] {
        let to = folder.join(name);
        std::fs::copy(&program, &to)
            .with_context(|| format!("failed to copy {} to {}", program.display(), to.display()))?;
    }
    Ok(0)
}

/// `igc`, built.
pub fn igc(build: Build) -> Result<PathBuf> {
    if let Some(igc) = found("igc") {
        return Ok(igc);
    }
    built(build, &OURS, ["igc"], None).map(|[igc]| igc)
}

/// `igc` and the suites' test binary, built.
pub fn igc_and_suites(build: Build) -> Result<[PathBuf; 2]> {
    if let (Some(igc), Some(suites)) = (found("igc"), found("suites")) {
        return Ok([igc, suites]);
    }
    built(build, &OURS, ["igc", "suites"], None)
}

/// `igc` as one static file, for an image without anything else.
pub fn image(build: Build) -> Result<PathBuf> {
    let what = ["--package", "igc", "--bin", "igc", "--profile", "image", "--target", "x86_64-unknown-linux-gnu"];
    built(build, &what, ["igc"], Some("-C target-feature=+crt-static")).map(|[igc]| igc)
}

/// Calls `igc COMMAND` with the words that follow xtask's own name of it; both understand them by the same options.
pub fn forward(command: &str) -> Result<u8> {
    let interrupts = Interrupts::listen()?;
    let igc = igc(Build::Told)?;
    let ended = interrupts.run(Command::new(igc).arg(command).args(std::env::args_os().skip(2)).current_dir(root()))?;
    Ok(match ended {
        Ended::Code(code) => code,
        Ended::Interrupted => 130,
    })
}

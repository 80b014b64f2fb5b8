//! The programs that xtask calls: cargo, `igc`, and the suites' test binary.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::run::{Ended, Interrupts};

/// Words that go to `igc` as they are; `igc` explains them (`--help`).
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Forward {
    /// Options and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    words: Vec<String>,
}

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

/// Builds a target and returns the executable, as cargo reports it. Progress goes to the terminal.
fn built(what: &[&str], name: &str, flags: Option<&str>) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(what).args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    if let Some(flags) = flags {
        command.env("RUSTFLAGS", flags);
    }
    let output = command.output().context("failed to start cargo")?;
    if !output.status.success() {
        bail!("cargo {} failed", what.join(" "));
    }
    let executable = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.with_context(|| format!("cargo {} made no executable called {name}", what.join(" ")))
}

/// `igc`, built.
pub fn igc() -> Result<PathBuf> {
    built(&["build", "--package", "igc", "--bin", "igc"], "igc", None)
}

/// `igc` as one static file, for an image without anything else.
pub fn image() -> Result<PathBuf> {
    let what =
        ["build", "--package", "igc", "--bin", "igc", "--profile", "image", "--target", "x86_64-unknown-linux-gnu"];
    built(&what, "igc", Some("-C target-feature=+crt-static"))
}

/// The suites' test binary, built.
pub fn suites() -> Result<PathBuf> {
    built(&["test", "--package", "suites", "--test", "main", "--no-run"], "main", None)
}

/// Calls `igc COMMAND WORDS...`.
pub fn forward(command: &str, words: &Forward) -> Result<u8> {
    let interrupts = Interrupts::listen()?;
    let igc = igc()?;
    let ended = interrupts.run(Command::new(igc).arg(command).args(&words.words).current_dir(root()))?;
    Ok(match ended {
        Ended::Code(code) => code,
        Ended::Interrupted => 130,
    })
}

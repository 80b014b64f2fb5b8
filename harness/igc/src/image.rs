//! The program that the image of our own model and picker is made of: igc as one static file.

use std::{path::PathBuf, process::Stdio};

use serde_json::Value;
use shipped::Root;
use tokio::process::Command;

use crate::{failure::Failure, log::Log};

const BUILD: &str = "build --package igc --bin igc --profile image --target x86_64-unknown-linux-gnu \
                     --message-format=json-render-diagnostics";

/// Built by cargo where the root is a checkout; else this program's own file, which is static where it was released.
pub async fn program(root: &Root, log: &Log) -> Result<PathBuf, Failure> {
    if !root.is_checkout() {
        return Ok(std::env::current_exe()?);
    }
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(BUILD.split(' ')).args(log.is_file().then_some("--quiet")).current_dir(root.absolute());
    command.env("RUSTFLAGS", "-C target-feature=+crt-static").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.stdio()?);
    let failed = |why: String| Failure::Environment(format!("failed to build the static igc of the image: {why}"));
    let output = command.spawn().map_err(|e| failed(format!("cargo: {e}")))?.wait_with_output().await?;
    if !output.status.success() {
        return Err(failed(format!("cargo ended with {}", output.status)));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let mut messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let built =
        messages.find_map(|m| Some(PathBuf::from((m["target"]["name"] == "igc").then(|| m["executable"].as_str())??)));
    built.ok_or_else(|| failed("cargo named no executable".to_owned()))
}

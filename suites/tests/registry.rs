//! The registry of checks: what this binary says of itself to `igc`, before anything is planned.

use std::{env, fs};

/// Writes the registry to the file that `IGC_REGISTRY` names. Without one it is only looked at.
#[test]
fn registry() {
    let requirements = suites::requirements().expect("requirements that do not contradict themselves");
    let registry = requirements.to_registry().expect("JSON");
    if let Some(file) = env::var_os("IGC_REGISTRY") {
        fs::write(&file, registry).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

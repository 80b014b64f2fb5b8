//! The last test of `cargo test --workspace`, because of its name and that of its package: it says what was not tested for
//! lack of a tool, just before the closing lines of the test runner.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[test]
fn what_was_not_tested_is_said() {
    let mut out = io::stderr(); // past the capture of the test runner
    for line in testtools::told() {
        writeln!(out, "{line}").unwrap();
    }
    let begun = std::env::var("IGC_STEP_BEGUN").ok().and_then(|seconds| seconds.parse().ok());
    if let Some(begun) = begun {
        let took = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(begun)).unwrap_or_default();
        writeln!(out, "==> tests: {} s", took.as_secs()).unwrap();
    }
}

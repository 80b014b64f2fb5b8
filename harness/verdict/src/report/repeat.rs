//! The command that runs one check alone, under the circumstances of the run.

use crate::curl::quoted;
use crate::plan::{Place, PlannedCheck, RunInfo};

/// `cargo xtask e2e ... --check suite/name@case`, to be pasted into a shell.
pub fn repeat_command(run: &RunInfo, check: &PlannedCheck) -> String {
    let mut words: Vec<String> = ["cargo", "xtask", "e2e", "--on", run.place.word()].map(str::to_owned).into();
    let mut option = |name: &str, value: &str| words.extend([name.to_owned(), quoted(value)]);
    if let (Place::Context, Some(context)) = (run.place, &run.context) {
        option("--context", context);
    }
    option("--gateway", &check.gateway);
    option("--profile", &run.profile);
    for (component, version) in &run.set {
        option("--set", &format!("{component}={version}"));
    }
    option("--model", run.model.word());
    option("--check", &check.title());
    words.join(" ")
}

//! The command that runs one check alone, under the circumstances of the run.

use crate::plan::{PlaceName, PlannedCheck, RunInfo, USUAL_MODEL};
use crate::{curl::quoted, front};

/// `igc e2e ... --check suite/name@case`, by the front that the run was started with, to be pasted into a shell.
pub fn repeat_command(run: &RunInfo, check: &PlannedCheck) -> String {
    let mut command = format!("{} e2e --on {}", front::of(&run.command), run.place.word());
    let mut option = |name: &str, value: &str| command += &format!(" {name} {}", quoted(value));
    if let (PlaceName::Context, Some(context)) = (run.place, &run.context) {
        option("--context", context);
    }
    option("--gateway", &check.gateway);
    option("--profile", &run.profile);
    for (component, version) in &run.set {
        option("--set", &format!("{component}={version}"));
    }
    // Given by hand it serves checks that have a usual one of their own. Plans of before do not say whether it was.
    if run.model_by_hand || run.model.word() != USUAL_MODEL {
        option("--model", run.model.word());
    }
    if let Some(file) = &run.declare {
        option("--declare", file);
    }
    option("--check", &check.title());
    command
}

//! Runner mutants: runners that are wrong on purpose. Each breaks what it hands on at one seam, and is not believed: the
//! report of a run that is not good stays one. That nothing written is overwritten, and that a golden of another version does
//! not count, the tests of folder and golden show.

use rstest::rstest;

use super::tests::World;
use crate::plan::{Disposition, Level};
use crate::record::{GoldenState, Verdict};

/// What a runner that is wrong at one seam does to the plan, the records and the baselines of a run.
type Seam = fn(&mut World);

fn failed(world: &mut World) {
    world.records.records.clear();
    world.attempt("routing/host", 1, Verdict::Fail);
}

#[rstest]
#[case::loses_a_failing_record(|w: &mut World| w.records.records.clear(), 3, 0)]
#[case::reports_before_the_last_check_ends(|w: &mut World| { w.check("routing/path", Level::Must); }, 3, 1)]
#[case::counts_a_skip_as_a_pass(|w: &mut World| {
    let left_out = Disposition::NotRun { reason: "not on kind".into(), filtered: false };
    w.check("routing/path", Level::Must).disposition = left_out;
    w.attempt("routing/path", 1, Verdict::Pass);
}, 3, 1)]
#[case::lets_a_retry_hide_a_failure(|w: &mut World| { failed(w); w.attempt("routing/host", 2, Verdict::Pass); }, 1, 0)]
#[case::keeps_the_last_attempt_alone(|w: &mut World| w.records.records[0].key.attempt = 2, 3, 0)]
#[case::accepts_a_changed_golden(|w: &mut World| w.records.records[0].golden = GoldenState::Changed, 1, 1)]
#[case::ignores_the_expiry_of_a_baseline_entry(|w: &mut World| { failed(w); w.known("expires: 2026-11-20"); }, 1, 0)]
#[case::judges_an_empty_history_as_pass(|w: &mut World| w.records.records[0].clauses.clear(), 1, 0)]
#[case::calls_a_false_clause_a_pass(|w: &mut World| { failed(w); w.records.records[0].verdict = Verdict::Pass; }, 1, 0)]
fn a_wrong_runner_is_not_believed(#[case] wrong: Seam, #[case] exit: u8, #[case] passes: u64) {
    let mut world = World::new();
    assert_eq!(world.report().run.exit, 0, "right, the run is good");
    wrong(&mut world);
    let report = world.report();
    assert_eq!((report.run.exit, report.totals.pass), (exit, passes), "{:?}", report.breaks);
    assert!(!report.breaks.is_empty());
}

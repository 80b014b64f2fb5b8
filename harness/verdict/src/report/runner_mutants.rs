//! Runner mutants: runners that are wrong on purpose. Each breaks what it hands on at one seam, and is not believed: the
//! report of a run that is not good stays one, and what is on the disk stays as it was written.

use rstest::rstest;
use serde_json::json;

use super::tests::{World, key};
use crate::golden::{self, Accepted, Golden, Recording};
use crate::plan::{Disposition, Level};
use crate::record::{GoldenState, Verdict};
use crate::{folder::RunFolder, history::History, record::tests_support::record};

/// A seam at which a runner is wrong: what it does to the plan, the records and the baselines of a run.
type Seam = fn(&mut World);

fn failed(world: &mut World) {
    world.records.records.clear();
    world.attempt("routing/host", 1, Verdict::Fail);
}

fn loses_a_failing_record(world: &mut World) {
    failed(world);
    world.records.records.retain(|record| record.verdict != Verdict::Fail);
}

fn reports_before_the_last_check_ends(world: &mut World) {
    world.check("routing/path", Level::Must);
}

fn counts_a_skip_as_a_pass(world: &mut World) {
    let left_out = Disposition::NotRun { reason: "not on kind".into(), filtered: false };
    world.check("routing/path", Level::Must).disposition = left_out;
    world.attempt("routing/path", 1, Verdict::Pass);
}

fn lets_a_retry_hide_a_failure(world: &mut World) {
    failed(world);
    world.attempt("routing/host", 2, Verdict::Pass);
}

fn keeps_the_last_attempt_alone(world: &mut World) {
    lets_a_retry_hide_a_failure(world);
    world.records.records.remove(0);
}

fn accepts_a_changed_golden(world: &mut World) {
    world.records.records[0].golden = GoldenState::Changed;
}

fn ignores_the_expiry_of_a_baseline_entry(world: &mut World) {
    failed(world);
    world.known("expires: 2026-11-20");
}

fn judges_an_empty_history_as_pass(world: &mut World) {
    world.records.records[0].clauses.clear();
}

fn calls_a_false_clause_a_pass(world: &mut World) {
    failed(world);
    world.records.records[0].verdict = Verdict::Pass;
}

#[rstest]
#[case(loses_a_failing_record as Seam, 3, 0)]
#[case(reports_before_the_last_check_ends as Seam, 3, 1)]
#[case(counts_a_skip_as_a_pass as Seam, 3, 1)]
#[case(lets_a_retry_hide_a_failure as Seam, 1, 0)]
#[case(keeps_the_last_attempt_alone as Seam, 3, 0)]
#[case(accepts_a_changed_golden as Seam, 1, 1)]
#[case(ignores_the_expiry_of_a_baseline_entry as Seam, 1, 0)]
#[case(judges_an_empty_history_as_pass as Seam, 1, 0)]
#[case(calls_a_false_clause_a_pass as Seam, 1, 0)]
fn a_wrong_runner_is_not_believed(#[case] wrong: Seam, #[case] exit: u8, #[case] passes: u64) {
    let mut world = World::new();
    assert_eq!(world.report().run.exit, 0, "right, the run is good");
    wrong(&mut world);
    let report = world.report();
    assert_eq!((report.run.exit, report.totals.pass), (exit, passes), "{:?}", report.breaks);
    assert!(!report.breaks.is_empty());
}

#[test]
fn an_earlier_attempt_is_never_overwritten() {
    let parent = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(parent.path(), "run-1").unwrap();
    let history = History::new(key("routing/host", 1), "igc-a1", "h.igc.test");
    folder.write_record(&record(history.key.clone(), Verdict::Fail)).unwrap();
    folder.write_history(&history).unwrap();
    assert!(folder.write_record(&record(history.key.clone(), Verdict::Pass)).unwrap_err().is_existing());
    assert!(folder.write_history(&history).unwrap_err().is_existing());
    assert_eq!(folder.read_records().unwrap().records[0].verdict, Verdict::Fail);
}

#[test]
fn a_golden_of_another_version_is_not_accepted() {
    let world = World::new();
    let (run, gateway) = (&world.plan.run, &world.plan.gateways[0]);
    let recording = Recording::of(run, gateway, &world.plan.checks[0]);
    let mut newer = gateway.clone();
    newer.versions.insert(newer.version_of.clone(), "v99.0.0".into());
    let of_the_newer = Recording::of(run, &newer, &world.plan.checks[0]);
    let recordings = vec![("r".to_owned(), recording.clone())];
    let golden = Golden { observations: vec![Accepted { recordings, observation: json!({"status": 200}) }] };
    let compared = |recording, observation| golden::compare(&golden, &observation, recording).record().0;
    assert_eq!(compared(&of_the_newer, json!({"status": 200})), GoldenState::NotCompared);
    assert_eq!(compared(&recording, json!({"status": 500})), GoldenState::Changed);
    assert_eq!(compared(&recording, json!({"status": 200})), GoldenState::Same);
}

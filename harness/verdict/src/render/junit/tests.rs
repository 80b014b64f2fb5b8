//! Tests of JUnit: red where the run breaks, and always well-formed.

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::render::tests_support::{everything, hostile};
use crate::report::tests::World;
use crate::report::{Ending, KnownFailure};

#[test]
fn everything_is_there() {
    insta::assert_snapshot!(junit(&everything().report()).unwrap());
}

#[rstest]
#[case::good(World::new(), 0, 0)]
#[case::failing({ let mut w = World::new(); w.records.records[0] = record("routing/host", Verdict::Fail); w }, 1, 0)]
#[case::no_record({ let mut w = World::new(); w.records.records.clear(); w }, 0, 2)]
#[case::nothing_executed({ let mut w = World::new(); w.records.records.clear(); w.plan.checks[0].disposition = crate::plan::Disposition::Unsupported { reason: "r".into() }; w }, 0, 1)]
#[case::interrupted({ let mut w = World::new(); w.ending = Ending::Interrupted; w }, 0, 1)]
#[case::broken({ let mut w = World::new(); w.ending = Ending::Broken("x".into()); w }, 0, 1)]
#[case::known({ let mut w = World::new(); w.records.records[0] = record("routing/host", Verdict::Fail); w.known(""); w }, 0, 0)]
#[case::stale({ let mut w = World::new(); w.known(""); w }, 1, 0)]
#[case::changed({ let mut w = World::new(); w.records.records[0].golden = GoldenState::Changed; w }, 1, 0)]
fn red_where_the_run_breaks(#[case] world: World, #[case] failures: usize, #[case] errors: usize) {
    let report = world.report();
    let document = Document::deserialize_from_str(&junit(&report).unwrap()).unwrap();
    assert_eq!((document.failures, document.errors), (failures, errors));
    assert_eq!(report.run.exit == 0, failures + errors == 0);
}

fn record(check: &str, verdict: Verdict) -> crate::record::Record {
    crate::record::tests_support::record(crate::report::tests::key(check, 1), verdict)
}

#[test]
fn flaky_is_a_flaky_failure() {
    let mut world = World::new();
    world.records.records.insert(0, record("routing/host", Verdict::Fail));
    world.records.records[1].key.attempt = 2;
    let xml = junit(&world.report()).unwrap();
    assert!(xml.contains("<flakyFailure") && !xml.contains("<failure"), "{xml}");
}

#[test]
fn further_failures_of_a_failure_are_reruns() {
    let mut world = World::new();
    world.records.records = vec![record("routing/host", Verdict::Fail), record("routing/host", Verdict::Fail)];
    world.records.records[1].key.attempt = 2;
    let xml = junit(&world.report()).unwrap();
    assert_eq!((xml.matches("<failure").count(), xml.matches("<rerunFailure").count()), (1, 1), "{xml}");
}

#[test]
fn a_golden_that_changed_in_a_flaky_check_is_red() {
    let mut world = World::new();
    world.records.records.insert(0, record("routing/host", Verdict::Fail));
    world.records.records[1].key.attempt = 2;
    world.records.records[1].golden = GoldenState::Changed;
    assert!(junit(&world.report()).unwrap().contains("<failure"));
}

#[test]
fn impossible_times_are_nothing() {
    let mut report = World::new().report();
    for seconds in [f64::NAN, -1.0, f64::INFINITY] {
        report.checks[0].seconds = seconds;
        report.run.seconds = seconds;
        assert!(junit(&report).is_ok());
    }
}

#[test]
fn hostile_text_is_legal_xml() {
    let xml = junit(&hostile().report()).unwrap();
    assert!(Document::deserialize_from_str(&xml).is_ok());
    assert!(xml.len() < 200_000, "{} bytes", xml.len());
    assert!(!xml.chars().any(|c| c.is_control() && c != '\n'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_legal_xml(text in any::<String>()) {
        let mut report = everything().report();
        for check in &mut report.checks {
            check.reason.clone_from(&text);
            check.sentence.clone_from(&text);
            check.finding = Some(text.clone());
            check.baseline = Some(KnownFailure { reason: text.clone(), link: text.clone(), expires: text.clone(), ..KnownFailure::default() });
            check.tries.iter_mut().for_each(|t| t.reason.clone_from(&text));
        }
        report.problems.push(text.clone());
        report.run.statement = text;
        let xml = junit(&report).unwrap();
        prop_assert!(Document::deserialize_from_str(&xml).is_ok(), "{}", xml);
        let illegal = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{fffe}' | '\u{ffff}');
        prop_assert!(!xml.chars().any(illegal), "{}", xml);
    }
}

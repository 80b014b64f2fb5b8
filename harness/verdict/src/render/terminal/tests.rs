//! Tests of the terminal's text: what it says in full, and that nothing from a gateway acts on the terminal.

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::render::tests_support::{everything, hostile};
use crate::report::{Ending, tests::World, tests::own_reply};

#[test]
fn everything_is_shown() {
    insta::assert_snapshot!(terminal(&everything().report(), "target/igc/r", Colour::Plain, Known::Counted));
}

#[test]
fn known_failures_are_listed_when_asked_for() {
    let [counted, listed] =
        [Known::Counted, Known::Listed].map(|known| terminal(&everything().report(), "f", Colour::Plain, known));
    let ours =
        |text: &str| text.lines().filter(|line| line.starts_with("known ")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(ours(&counted).len(), 1, "{counted}");
    insta::assert_snapshot!(ours(&counted)[0]);
    let at = listed.find("known fail  routing/known on gw\n    why:       ").unwrap_or_else(|| panic!("{listed}"));
    assert!(listed[at..].lines().nth(2).unwrap().starts_with("    known:     "), "{listed}");
}

#[test]
fn a_good_run_is_short() {
    insta::assert_snapshot!(terminal(&World::new().report(), "target/igc/r", Colour::Plain, Known::Counted));
}

/// One fault that two checks show: its row in full, one line for each of them.
#[test]
fn an_invariant_is_one_line_for_each_subject() {
    let mut world = World::new();
    world.check("tokens/exact", Level::Should);
    world.attempt("tokens/exact", 1, Verdict::Pass);
    for record in &mut world.records.records {
        own_reply(record, 9, Some("header x-a"));
    }
    insta::assert_snapshot!(terminal(&world.report(), "target/igc/r", Colour::Plain, Known::Counted));
}

#[test]
fn a_rehearsal_says_so() {
    let mut world = World::new();
    world.plan.run.place = crate::plan::PlaceName::Rehearsal;
    insta::assert_snapshot!(terminal(&world.report(), "target/igc/r", Colour::Plain, Known::Counted));
}

#[rstest]
#[case::kind(crate::plan::PlaceName::Kind, false)]
#[case::rehearsal(crate::plan::PlaceName::Rehearsal, true)]
fn only_a_rehearsal_says_that_no_gateway_was_tested(#[case] place: crate::plan::PlaceName, #[case] said: bool) {
    let mut world = everything();
    world.plan.run.place = place;
    let text = terminal(&world.report(), "f", Colour::Plain, Known::Counted);
    assert_eq!(text.contains("no gateway was tested"), said, "{text}");
}

#[test]
fn one_reason_of_many_errors_is_said_once() {
    let mut world = everything();
    world.records.records.clear();
    world.ending = Ending::Broken("kserve was not installed".into());
    let text = terminal(&world.report(), "f", Colour::Plain, Known::Counted);
    assert_eq!(text.matches("no record: kserve was not installed").count(), 1, "{text}");
    assert!(
        text.contains("routing/host on gw, routing/path on gw, routing/known on gw")
            && text.contains("breaks: kserve was"),
        "{text}"
    );
}

#[test]
fn what_breaks_the_run_is_the_last_that_is_shown_in_full() {
    let report = everything().report();
    let text = terminal(&report, "f", Colour::Plain, Known::Counted);
    let place =
        |title: &str| text.find(&format!("  {title}  (")).unwrap_or_else(|| panic!("{title} is missing: {text}"));
    let (mild, loud): (Vec<_>, Vec<_>) =
        report.checks.iter().filter(|c| is_shown(c) && c.baseline.is_none() && c.attempts > 0).partition(|c| !c.breaks);
    assert!(!mild.is_empty() && loud.len() > 2);
    for (mild, loud) in mild.iter().flat_map(|m| loud.iter().map(move |l| (m, l))) {
        assert!(place(&mild.title()) < place(&loud.title()), "{} stands before {}", loud.title(), mild.title());
    }
}

#[test]
fn an_interrupted_run_says_so() {
    let mut world = World::new();
    world.ending = Ending::Interrupted;
    let text = terminal(&world.report(), "f", Colour::Plain, Known::Counted);
    assert!(text.contains("breaks: interrupted") && text.contains("exit 130"), "{text}");
}

#[test]
fn colours_change_nothing_but_colours() {
    let report = everything().report();
    let ansi = terminal(&report, "f", Colour::Ansi, Known::Counted);
    assert!(ansi.contains("\u{1b}[31mfail\u{1b}[0m"), "{ansi}");
    let mut plain = ansi;
    for code in ["32", "31", "33", "2", "1", "0"] {
        plain = plain.replace(&format!("\u{1b}[{code}m"), "");
    }
    let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert_eq!(trimmed(&plain), trimmed(&terminal(&report, "f", Colour::Plain, Known::Counted)));
}

#[test]
fn what_a_gateway_sends_is_inert_and_bounded() {
    let text = terminal(&hostile().report(), "f", Colour::Plain, Known::Counted);
    assert!(!text.chars().any(|c| c != '\n' && c.is_control()), "{text}");
    assert!(text.len() < 40_000, "{} bytes", text.len());
    assert!(text.contains("\\u{1b}[2J") && text.contains("more characters"), "{text}");
    assert!(!text.contains("\nrouting/forged"), "a line of the report cannot be forged");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_acts_on_the_terminal(text in any::<String>()) {
        let mut world = everything();
        for record in &mut world.records.records {
            record.reason.clone_from(&text);
            record.golden_note = Some(text.clone());
            for clause in &mut record.clauses {
                clause.got.clone_from(&text);
            }
        }
        for check in &mut world.plan.checks {
            check.sentence.clone_from(&text);
        }
        let shown = terminal(&world.report(), "f", Colour::Plain, Known::Counted);
        prop_assert!(!shown.chars().any(|c| c != '\n' && c.is_control()));
    }
}

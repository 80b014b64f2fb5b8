//! JUnit: one suite per gateway and suite of checks, red exactly where the run breaks.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, Report as Document, TestCase, TestCaseStatus, TestRerun, TestSuite};

use super::{Lines, inert};
use crate::judge::Holds;
use crate::record::{GoldenState, Verdict};
use crate::report::{CheckReport, KnownState, Report, Try};

const MESSAGE: usize = 1_000;
const TEXT: usize = 20_000;

#[derive(Debug, thiserror::Error)]
#[error("failed to write the report as JUnit: {0}")]
pub struct JunitError(#[from] quick_junit::SerializeError);

/// The report as JUnit XML.
///
/// A failure that does not break the run (known, or a SHOULD) is skipped with its reason. A flaky check is a success
/// with `flakyFailure`s, as readers of JUnit expect; the run's exit code still is 1.
pub fn junit(report: &Report) -> Result<String, JunitError> {
    let run = &report.run;
    let mut document = Document::new(format!("igc {}", run.id));
    document.set_time(duration(run.seconds));
    let mut suites: Vec<(String, TestSuite)> = Vec::new();
    for check in &report.checks {
        let name = format!("{}.{}", check.gateway, check.suite());
        let known = suites.iter().position(|(known, _)| *known == name);
        let at = known.unwrap_or_else(|| {
            suites.push((name.clone(), suite_of(report, &name)));
            suites.len() - 1
        });
        suites[at].1.add_test_case(case_of(check, &name));
    }
    suites.push(("igc.run".to_owned(), run_suite(report)));
    for (_, mut suite) in suites {
        let time = suite.test_cases.iter().filter_map(|c| c.time).sum();
        suite.set_time(time);
        document.add_test_suite(suite);
    }
    Ok(document.to_string()?)
}

fn suite_of(report: &Report, name: &str) -> TestSuite {
    let run = &report.run;
    let mut suite = TestSuite::new(line(name));
    for (name, value) in [
        ("run", run.id.as_str()),
        ("word", run.word.word()),
        ("statement", &run.statement),
        ("place", run.place.word()),
        ("profile", &run.profile),
        ("started", &run.started),
    ] {
        suite.add_property(Property::new(name, line(value)));
    }
    suite
}

/// What belongs to no check: stale entries, records that do not fit, an error of the run.
fn run_suite(report: &Report) -> TestSuite {
    let mut suite = suite_of(report, "igc.run");
    let stale = report.baseline.iter().filter_map(|entry| match entry.state {
        KnownState::Stale => Some((entry, "the check passed; remove the entry")),
        KnownState::Expired => Some((entry, "the entry has expired; look again")),
        _ => None,
    });
    for (entry, what) in stale {
        let name = format!("baseline of {} line {}: {}", entry.gateway, entry.line, entry.check);
        suite.add_test_case(non_success(&name, NonSuccessKind::Failure, "baseline", what));
    }
    for problem in report.problems.iter().chain(&report.run.error) {
        suite.add_test_case(non_success(problem, NonSuccessKind::Error, "error", problem));
    }
    if report.run.interrupted {
        suite.add_test_case(non_success("the run as a whole", NonSuccessKind::Error, "interrupted", "interrupted"));
    }
    if report.run.exit == 3 && !report.checks.iter().any(|c| c.attempts > 0) {
        let why = report.breaks.join("; ");
        suite.add_test_case(non_success("the run as a whole", NonSuccessKind::Error, "nothing-executed", &why));
    }
    if suite.test_cases.is_empty() {
        suite.add_test_case(TestCase::new("the run as a whole", TestCaseStatus::success()));
    }
    suite
}

fn non_success(name: &str, kind: NonSuccessKind, of: &str, message: &str) -> TestCase {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(of).set_message(line(message));
    let mut case = TestCase::new(line(name), status);
    case.set_classname("igc.run");
    case
}

fn case_of(check: &CheckReport, class: &str) -> TestCase {
    let mut case = TestCase::new(line(&check.title()), status_of(check));
    case.set_classname(line(class));
    case.set_time(duration(check.seconds));
    case.add_property(Property::new("level", check.level.word()));
    case.add_property(Property::new("verdict", check.verdict.word()));
    if let Some(finding) = &check.finding {
        case.add_property(Property::new("finding", line(finding)));
    }
    case
}

fn status_of(check: &CheckReport) -> TestCaseStatus {
    let golden = check.golden.as_ref().map(|g| g.state);
    let mut status = match check.verdict {
        Verdict::Pass if !check.breaks => return TestCaseStatus::success(),
        Verdict::Flaky if check.breaks && golden != Some(GoldenState::Changed) => return flaky(check),
        Verdict::Error => TestCaseStatus::non_success(NonSuccessKind::Error),
        _ if check.breaks => TestCaseStatus::non_success(NonSuccessKind::Failure),
        _ => TestCaseStatus::skipped(),
    };
    let kind = match (check.verdict, golden) {
        (Verdict::Pass, Some(GoldenState::Missing)) => "golden-missing",
        (Verdict::Pass, _) => "golden-changed",
        (verdict, _) if check.baseline.is_some() && !check.breaks => {
            return known(status, check, verdict);
        }
        (verdict, _) => verdict.word(),
    };
    let message = match kind {
        "golden-changed" => "it holds, but it is not what was accepted",
        "golden-missing" => "it holds, but nothing was accepted yet",
        _ => &check.reason,
    };
    status.set_type(kind).set_message(line(message));
    if check.breaks {
        status.set_description(inert(&text(check), TEXT, Lines::Kept));
        // Attempts after the first are reruns of it; a success among them was read above.
        for attempt in check.tries.iter().skip(1).filter(|t| t.verdict != Verdict::Pass) {
            status.add_rerun(rerun(attempt));
        }
    }
    status
}

fn rerun(attempt: &Try) -> TestRerun {
    let kind = if attempt.verdict == Verdict::Error { NonSuccessKind::Error } else { NonSuccessKind::Failure };
    let mut run = TestRerun::new(kind);
    run.set_type(attempt.verdict.word()).set_message(line(&attempt.reason)).set_time(duration(attempt.seconds));
    run
}

fn known(mut status: TestCaseStatus, check: &CheckReport, verdict: Verdict) -> TestCaseStatus {
    let (reason, link) = check.baseline.as_ref().map_or(("", ""), |k| (k.reason.as_str(), k.link.as_str()));
    status
        .set_type(format!("known-{}", verdict.word()))
        .set_message(line(&format!("known: {reason} ({link}); {}", check.reason)));
    status
}

fn flaky(check: &CheckReport) -> TestCaseStatus {
    let mut status = TestCaseStatus::success();
    for attempt in check.tries.iter().filter(|t| t.verdict != Verdict::Pass) {
        let mut run = rerun(attempt);
        run.set_description(inert(&text(check), TEXT, Lines::Kept));
        status.add_rerun(run);
    }
    status
}

fn text(check: &CheckReport) -> String {
    let mut text = format!("must hold: {}\nsource: {}\n", check.sentence, check.source);
    for clause in check.clauses.iter().filter(|c| c.holds != Holds::Yes) {
        text += &format!("{}: expected {}, got {}\n", clause.name, clause.expected, clause.got);
        for exchange in &clause.exchanges {
            text += &format!("  {} -> {}\n  {}\n", exchange.label, exchange.outcome, exchange.curl);
        }
    }
    if let Some(golden) = &check.golden
        && let (GoldenState::Changed, Some(note)) = (golden.state, &golden.note)
    {
        text += &format!("{note}\n");
    }
    if let Some(evidence) = &check.evidence {
        text += &format!("evidence: {evidence}\n");
    }
    text + &format!("repeat: {}\n", check.repeat)
}

fn line(text: &str) -> String {
    inert(text, MESSAGE, Lines::Joined)
}

/// Records are files from outside: a time that is none counts as nothing.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests;

//! Ending: the word, the reasons why a run is not good, and the exit code.

use crate::baseline::Expect;
use crate::plan::{Level, Plan};
use crate::record::{By, GoldenState, Verdict};
use crate::report::{CheckReport, Ending, KnownFailure, KnownReport, KnownState, Word};

/// The word for one gateway's checks: whether it was real, whether all that was planned was tried, what came of it.
pub(super) fn word_of<'c>(real: bool, finished: bool, checks: impl Iterator<Item = &'c CheckReport> + Clone) -> Word {
    if !real {
        return Word::Rehearsed;
    }
    let mut musts = checks.clone().filter(|c| c.level == Level::Must);
    let judged = |c: &CheckReport| matches!(c.verdict, Verdict::Pass | Verdict::Fail | Verdict::Flaky);
    let left_out = checks.clone().any(|c| c.filtered) || musts.clone().any(|c| c.verdict == Verdict::NotRun);
    if !finished || left_out || !checks.clone().any(judged) {
        return Word::Partial;
    }
    if musts.clone().any(|c| matches!(c.verdict, Verdict::Fail | Verdict::Flaky)) {
        return Word::Nonconformant;
    }
    if musts.any(|c| matches!(c.verdict, Verdict::Error | Verdict::Unproven)) {
        return Word::Partial;
    }
    Word::Conformant
}

/// The word for a run: nobody may read more into it than holds for each of its gateways.
pub(super) fn word_of_all(words: impl Iterator<Item = Word>) -> Word {
    words.max().unwrap_or(Word::Partial)
}

/// The word as a sentence. It claims nothing about checks that were not executed.
pub(super) fn statement(word: Word, checks: &[CheckReport]) -> String {
    let judged = checks.iter().filter(|c| matches!(c.verdict, Verdict::Pass | Verdict::Fail | Verdict::Flaky)).count();
    match word {
        Word::Rehearsed => {
            "no gateway was tested: API server, gateway, model and endpoint picker were stand-ins".to_owned()
        }
        Word::Partial => format!("{judged} of {} checks were judged", checks.len()),
        Word::Conformant => {
            let unsupported = checks.iter().filter(|c| c.verdict == Verdict::Unsupported).count();
            let but = if unsupported == 0 { String::new() } else { format!("; {unsupported} checks are unsupported") };
            format!("{judged} of {} checks were judged, and every MUST among them holds{but}", checks.len())
        }
        Word::Nonconformant => {
            let broken = checks
                .iter()
                .filter(|c| c.by.is_none() && c.level == Level::Must)
                .filter(|c| matches!(c.verdict, Verdict::Fail | Verdict::Flaky))
                .count();
            format!("{broken} of {judged} judged checks are MUST and do not hold")
        }
    }
}

pub(super) fn verdict_breaks(plan: &Plan, level: Level, verdict: Verdict, known: Option<&KnownFailure>) -> bool {
    match verdict {
        Verdict::Pass | Verdict::Unsupported | Verdict::NotRun => false,
        Verdict::Error => true,
        Verdict::Unproven => known.is_none(),
        Verdict::Fail | Verdict::Flaky => known.is_none() && (level != Level::Should || plan.run.strict),
    }
}

/// Whether the comparison alone breaks the run. What was not judged has nothing to compare, and what is known to fail now
/// and then leaves another observation each time.
pub(super) fn golden_breaks(
    plan: &Plan,
    verdict: Verdict,
    golden: Option<GoldenState>,
    known: Option<&KnownFailure>,
) -> bool {
    matches!(verdict, Verdict::Pass | Verdict::Fail | Verdict::Flaky)
        && known.is_none_or(|known| known.expect != Expect::Sometimes)
        && match golden {
            Some(GoldenState::Changed) => true,
            Some(GoldenState::Missing) => plan.run.ci,
            _ => false,
        }
}

/// The level that counts: what an invariant forbids it forbids whatever the check is about.
pub(super) fn weight(level: Level, by: Option<By>) -> Level {
    if by.is_some() { Level::Must } else { level }
}

pub(super) fn exit(
    plan: &Plan,
    ending: &Ending,
    checks: &[CheckReport],
    known: &[KnownReport],
    problems: usize,
) -> (Vec<String>, u8) {
    let verdict = |wanted: Verdict| {
        checks
            .iter()
            // What fails by an invariant alone is counted in the invariant's row.
            .filter(|c| c.by.is_none() || c.verdict != Verdict::Fail)
            .filter(|c| {
                c.verdict == wanted && verdict_breaks(plan, weight(c.level, c.by), c.verdict, c.baseline.as_ref())
            })
            .count()
    };
    let golden = |wanted: GoldenState| {
        let state = |c: &CheckReport| c.golden.as_ref().map(|g| g.state);
        checks
            .iter()
            .filter(|c| state(c) == Some(wanted) && golden_breaks(plan, c.verdict, state(c), c.baseline.as_ref()))
            .count()
    };
    let entries = |wanted: KnownState| known.iter().filter(|k| k.state == wanted).count();
    let failures = [
        (verdict(Verdict::Fail), "failed"),
        (verdict(Verdict::Flaky), "flaky: false, then true on a retry"),
        (verdict(Verdict::Unproven), "unproven: the evidence to judge is missing"),
        (golden(GoldenState::Changed), "changed since the golden file was accepted"),
        (golden(GoldenState::Missing), "without a golden file, which CI demands"),
        (entries(KnownState::Stale), "stale: the baseline expects a failure, but the check passed"),
        (entries(KnownState::Expired), "expired in the baseline"),
    ];
    let errors = [
        (
            verdict(Verdict::Error),
            "error, not judged: the harness, the cluster or the install failed, or no record exists",
        ),
        (problems, "records or files that do not fit the plan"),
    ];
    let executed = checks.iter().any(|c| c.attempts > 0);
    // Nothing was to be run, and that was accepted beforehand.
    let nothing_asked = plan.run.allow_empty && !plan.checks.iter().any(crate::plan::PlannedCheck::runs);

    let mut breaks: Vec<String> =
        failures.iter().chain(&errors).filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    match ending {
        Ending::Interrupted => breaks.insert(0, "interrupted".to_owned()),
        Ending::Broken(error) => breaks.push(error.clone()),
        Ending::Finished if !executed && !nothing_asked => breaks.push("no check was executed".to_owned()),
        Ending::Finished => {}
    }
    let code = if *ending == Ending::Interrupted {
        130
    } else if failures.iter().any(|(n, _)| *n > 0) {
        1
    } else if breaks.is_empty() {
        0
    } else {
        3
    };
    (breaks, code)
}

//! `replay`: runs that were kept, judged again by the judges of today, and what would change.

use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, process::Stdio};

use shipped::Root;
use tokio_util::sync::CancellationToken;
use verdict::invariant::{Invariant, Tally};
use verdict::judge::{Clause, Holds};
use verdict::record::{Record, Verdict};
use verdict::{folder::RunFolder, history::Key, plan::Filter};

use crate::suites::{Ended, Suites};
use crate::{failure::Failure, options, plan::runs};

/// Judges the runs again. The exit code is 1 where a verdict or a clause is not as it was recorded, or a history was not
/// judged.
pub async fn replay(root: &Root, options: &options::Replay, cancel: &CancellationToken) -> Result<u8, Failure> {
    let wanted = Filter::checks("--check", &options.checks).map_err(Failure::usage)?;
    let suites = Suites::find(root)?;
    let mut changes = 0;
    let last = [runs(root).join("latest")];
    let paths = if options.runs.is_empty() { &last[..] } else { &options.runs };
    for path in paths.iter().map(|path| runs_of(path)).collect::<Result<Vec<_>, _>>()?.concat() {
        let run = RunFolder::open(&path).map_err(Failure::usage)?;
        let parent = tempfile::tempdir()?;
        let into = RunFolder::create(parent.path(), run.id())?;
        if !judge(&suites, &run, &into, cancel).await? {
            return Ok(130);
        }
        let selected = |key: &Key| wanted.selects(&key.check, &key.case);
        let by_key = |folder: &RunFolder| -> Result<BTreeMap<Key, Record>, Failure> {
            let records = folder.read_records()?.records.into_iter();
            Ok(records.filter(|r| selected(&r.key)).map(|r| (r.key.clone(), r)).collect())
        };
        let (before, now) = (by_key(&run)?, by_key(&into)?);
        let mut kept = run.history_keys()?;
        kept.retain(selected);
        if kept.is_empty() {
            return Err(Failure::Usage(format!("{} has no history of such a check", path.display())));
        }
        let lines = summary(run.id(), &kept, &before, &now);
        lines.iter().for_each(|line| print!("{line}"));
        changes += lines.len() - 1;
    }
    Ok(u8::from(changes > 0))
}

/// What is said of a run: a heading, then each history that is judged otherwise than recorded, or not at all.
fn summary(run: &str, kept: &[Key], before: &BTreeMap<Key, Record>, now: &BTreeMap<Key, Record>) -> Vec<String> {
    let changed: Vec<String> =
        now.values().filter_map(|now| change(before.get(&now.key), now).map(|words| line(now, &words))).collect();
    let unjudged: Vec<&Key> = kept.iter().filter(|key| !now.contains_key(key)).collect();
    let mut heading = format!("{run}: {} histories judged again, {} otherwise than recorded", now.len(), changed.len());
    if !unjudged.is_empty() {
        heading += &format!(", {} not judged", unjudged.len());
    }
    let unjudged = unjudged.into_iter().map(|key| {
        format!(
            "  {} on {}, attempt {}: not judged: the suites have no such check\n",
            key.title(),
            key.gateway,
            key.attempt
        )
    });
    let heading = heading + "\n" + &invariants(now);
    [heading].into_iter().chain(changed).chain(unjudged).collect()
}

/// How many exchanges each invariant was judged for, and how many histories lack what invariants need.
fn invariants(now: &BTreeMap<Key, Record>) -> String {
    if now.values().all(|record| record.invariants.is_empty()) {
        return String::new();
    }
    let tallies = Invariant::ALL.map(|invariant| {
        let mut tally = Tally::default();
        now.values().filter_map(|record| record.invariants.get(&invariant)).for_each(|of| tally.add(*of));
        format!("{} {} of {}", invariant.name(), tally.judged, tally.of)
    });
    // Framing is judged by what the client saw alone, in every history that says enough.
    let framing = |record: &&Record| record.invariants.get(&Invariant::TrueFraming).copied().unwrap_or_default();
    let without = now.values().filter(|r| framing(r).of > 0 && framing(r).judged == 0).count();
    let without = if without > 0 {
        format!("; {without} histories are of version 1 and have not what invariants need")
    } else {
        String::new()
    };
    format!("  exchanges judged by invariants: {}{without}\n", tallies.join(", "))
}

fn runs_of(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path.join("history").is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let inside =
        std::fs::read_dir(path).map_err(|e| Failure::Usage(format!("failed to open {}: {e}", path.display())))?;
    let mut runs: Vec<PathBuf> =
        inside.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
    runs.retain(|run| run.join("history").is_dir());
    runs.sort();
    if runs.is_empty() {
        return Err(Failure::Usage(format!(
            "{} is neither a run with histories nor a folder of such runs",
            path.display()
        )));
    }
    Ok(runs)
}

/// Has the suites' test binary judge. `false`: it was interrupted.
async fn judge(
    suites: &Suites,
    run: &RunFolder,
    into: &RunFolder,
    cancel: &CancellationToken,
) -> Result<bool, Failure> {
    let mut command = suites.checks();
    command.env("IGC_REPLAY", run.path()).env("IGC_REPLAY_INTO", into.path()).stdout(Stdio::null());
    match suites.run(&mut command, into.path(), cancel).await? {
        Ended::Interrupted => Ok(false),
        Ended::Exited(status) if status.success() => Ok(true),
        Ended::Exited(_) => Err(Failure::Environment("the suites' test binary failed; its output is above".to_owned())),
    }
}

/// What is otherwise than it was recorded. A drive that ended in an error was never judged, and is not now.
fn change(before: Option<&Record>, now: &Record) -> Option<String> {
    let word = |record: &Record| format!("{}: {}", record.verdict.word(), record.reason);
    match before {
        None => Some(format!("no record -> {}", word(now))),
        Some(before) if before.verdict == Verdict::Error && before.clauses.is_empty() => None,
        Some(before) if before.verdict != now.verdict => Some(format!("{} -> {}", word(before), word(now))),
        Some(before) => {
            // In which order they were judged says nothing.
            let of = |clauses: &[Clause]| -> Vec<(String, Holds)> {
                let mut all: Vec<_> = clauses.iter().map(|c| (c.name.clone(), c.holds)).collect();
                all.sort_by(|one, other| one.0.cmp(&other.0));
                all
            };
            (of(&before.clauses) != of(&now.clauses)).then(|| format!("still {}, by other clauses", now.verdict.word()))
        }
    }
}

fn line(now: &Record, words: &str) -> String {
    let mut text = format!("  {} on {}, attempt {}: {words}\n", now.key.title(), now.key.gateway, now.key.attempt);
    for clause in now.clauses.iter().filter(|c| c.holds != Holds::Yes) {
        text += &format!("      {}: expected {}, got {}\n", clause.name, clause.expected, clause.got);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn record(verdict: &str, clauses: &[(&str, &str)]) -> Record {
        let clauses: Vec<_> = clauses
            .iter()
            .map(|(name, holds)| json!({"name": name, "holds": holds, "expected": "a", "got": "b", "exchanges": []}))
            .collect();
        serde_json::from_value(json!({
            "schema": "igc.record/v1", "key": {"gateway": "g", "check": "a/b", "case": "-", "attempt": 1},
            "verdict": verdict, "reason": "because", "clauses": clauses, "golden": "same", "golden_note": null,
            "started": "", "seconds": 0.0, "settle_seconds": 0.0, "address": null,
        }))
        .expect("a record")
    }

    #[rstest]
    #[case::the_same(Some(record("pass", &[("x", "yes")])), record("pass", &[("x", "yes")]), None)]
    #[case::worse(Some(record("pass", &[("x", "yes")])), record("fail", &[("x", "no")]), Some("pass: because -> fail: because"))]
    #[case::another_order(Some(record("pass", &[("x", "yes"), ("y", "yes")])), record("pass", &[("y", "yes"), ("x", "yes")]), None)]
    #[case::the_other_way_round(Some(record("fail", &[("x", "yes"), ("y", "no")])), record("fail", &[("x", "no"), ("y", "yes")]), Some("still fail, by other clauses"))]
    #[case::another_clause(Some(record("pass", &[("x", "yes")])), record("pass", &[("y", "yes")]), Some("still pass, by other clauses"))]
    #[case::never_judged(Some(record("error", &[])), record("fail", &[("x", "no")]), None)]
    #[case::a_killed_run(None, record("pass", &[("x", "yes")]), Some("no record -> pass: because"))]
    fn what_changed(#[case] before: Option<Record>, #[case] now: Record, #[case] expected: Option<&str>) {
        assert_eq!(change(before.as_ref(), &now).as_deref(), expected);
    }

    #[rstest]
    #[case::of_today(9, "own-reply 3 of 9, request-untouched 0 of 9, reached-once 0 of 9, true-framing 9 of 9")]
    #[case::of_version_1(0, "1 histories are of version 1 and have not what invariants need")]
    fn what_invariants_could_judge_is_counted(#[case] framing: u64, #[case] said: &str) {
        let mut was = record("pass", &[("x", "yes")]);
        was.invariants = Invariant::ALL.map(|invariant| (invariant, Tally { judged: 0, of: 9 })).into();
        was.invariants.insert(Invariant::TrueFraming, Tally { judged: framing, of: 9 });
        was.invariants.insert(Invariant::OwnReply, Tally { judged: framing / 3, of: 9 });
        let all = BTreeMap::from([(was.key.clone(), was.clone())]);
        let heading = &summary("r", std::slice::from_ref(&was.key), &all, &all)[0];
        assert!(heading.contains(said), "{heading}");
    }

    #[test]
    fn a_history_that_nobody_judges_is_named_and_counts() {
        let was = record("pass", &[("x", "yes")]);
        let all = BTreeMap::from([(was.key.clone(), was.clone())]);
        let gone = Key { check: "a/gone".into(), ..was.key.clone() };
        assert_eq!(
            summary("r", std::slice::from_ref(&was.key), &all, &all),
            ["r: 1 histories judged again, 0 otherwise than recorded\n"]
        );
        assert_eq!(
            summary("r", &[was.key.clone(), gone], &all, &all),
            [
                "r: 1 histories judged again, 0 otherwise than recorded, 1 not judged\n",
                "  a/gone on g, attempt 1: not judged: the suites have no such check\n",
            ]
        );
    }
}

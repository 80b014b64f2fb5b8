//! Attempts: one verdict from all records of a planned check. A record can only be believed less, never more.

use crate::judge::{Holds, Judgement};
use crate::plan::{Disposition, Level, PlannedCheck};
use crate::record::{Record, Verdict};
use crate::{folder::Unreadable, report::Ending};

pub(super) struct Combined<'r> {
    pub verdict: Verdict,
    pub reason: String,
    /// What was found, where an INFO check does not hold.
    pub finding: Option<String>,
    pub telling: Option<&'r Record>,
}

pub(super) fn combine<'r>(
    planned: &PlannedCheck,
    records: &[&'r Record],
    unreadable: &[&Unreadable],
    ending: &Ending,
) -> Combined<'r> {
    let of = |verdict, reason: String, telling| Combined { verdict, reason, finding: None, telling };
    match &planned.disposition {
        Disposition::Unsupported { reason } => return of(Verdict::Unsupported, reason.clone(), None),
        Disposition::NotRun { reason, .. } => return of(Verdict::NotRun, reason.clone(), None),
        Disposition::Run => {}
    }
    let judged = judge_all(records);
    // A failure that was seen stays a failure, whatever else is wrong.
    let failed = judged.iter().find(|(verdict, _, _)| *verdict == Verdict::Fail);
    let accident = accident(planned, records, unreadable, ending);
    let mut combined = match (failed, accident, judged.last()) {
        (None, Some(reason), _) => of(Verdict::Error, reason, records.last().copied()),
        (Some((_, reason, record)), Some(accident), _) => {
            of(Verdict::Fail, format!("{reason} ({accident})"), Some(record))
        }
        (_, None, Some((Verdict::Pass, reason, last))) => {
            match judged.iter().find(|(verdict, _, _)| *verdict != Verdict::Pass) {
                None => of(Verdict::Pass, reason.clone(), Some(last)),
                Some((verdict, reason, first)) => {
                    let attempt = first.key.attempt;
                    let reason =
                        format!("attempt {attempt}: {}: {reason}; attempt {} passed", verdict.word(), last.key.attempt);
                    of(Verdict::Flaky, reason, Some(first))
                }
            }
        }
        (Some((_, reason, record)), None, _) => of(Verdict::Fail, reason.clone(), Some(record)),
        (None, None, Some(_)) => {
            let worst = |(verdict, _, _): &&(Verdict, String, &Record)| u8::from(*verdict == Verdict::Error);
            judged.iter().max_by_key(worst).map_or_else(
                || of(Verdict::Error, "no record".to_owned(), None),
                |(v, r, t)| of(*v, r.clone(), Some(t)),
            )
        }
        (None, None, None) => of(Verdict::Error, "no record".to_owned(), None),
    };
    let by_invariant = combined.telling.is_some_and(|record| record.by.is_some());
    if planned.level == Level::Info && !by_invariant && matches!(combined.verdict, Verdict::Fail | Verdict::Flaky) {
        combined.verdict = Verdict::Pass;
        combined.finding = Some(combined.reason.clone());
    }
    combined
}

/// Every record with the verdict that its own clauses allow.
fn judge_all<'r>(records: &[&'r Record]) -> Vec<(Verdict, String, &'r Record)> {
    let judge = |record: &&'r Record| {
        let holds = Judgement { clauses: record.clauses.clone() }.holds();
        match (record.verdict, holds) {
            (Verdict::Pass, Holds::Yes) => (Verdict::Pass, record.reason.clone(), *record),
            (Verdict::Pass, Holds::No) => {
                (Verdict::Fail, format!("its record says pass, but a clause is false: {}", record.reason), *record)
            }
            (Verdict::Pass, Holds::Unproven) => {
                let what = if record.clauses.is_empty() { "it has no clauses" } else { "a clause is unproven" };
                (Verdict::Unproven, format!("its record says pass, but {what}: {}", record.reason), *record)
            }
            (verdict, _) => (verdict, record.reason.clone(), *record),
        }
    };
    records.iter().map(judge).collect()
}

fn accident(
    planned: &PlannedCheck,
    records: &[&Record],
    unreadable: &[&Unreadable],
    ending: &Ending,
) -> Option<String> {
    if let Some(file) = unreadable.first() {
        return Some(format!("its record {} cannot be read: {}", file.path.display(), file.problem));
    }
    if records.is_empty() {
        return Some(match ending {
            Ending::Finished => "no record: its test did not run or did not get to the end".to_owned(),
            Ending::Interrupted => "no record: the run was interrupted".to_owned(),
            Ending::Broken(error) => format!("no record: {error}"),
        });
    }
    let attempts: Vec<u32> = records.iter().map(|r| r.key.attempt).collect();
    if let Some((_, expected)) = attempts.iter().zip(1..).find(|(attempt, expected)| *attempt != expected) {
        return Some(format!("the record of attempt {expected} is missing, {attempts:?} are there"));
    }
    if planned.counts_every_answer && attempts.len() > 1 {
        return Some(format!("{} attempts at a check whose every answer counts", attempts.len()));
    }
    None
}

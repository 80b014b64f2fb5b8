//! Compiling: plan and records become the report.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};

use super::attempts::{Combined, combine};
use super::known::{CheckOutcome, InForce};
use super::{
    CheckReport, ClauseReport, Ending, GatewayReport, GoldenReport, Inputs, REPORT_SCHEMA, Report, RunReport,
    ShownExchange, Totals, Try, ending, invariants, repeat_command,
};
use crate::plan::{Disposition, PlannedCheck};
use crate::record::{Record, Verdict};
use crate::{
    curl,
    excerpt::excerpt,
    folder::Unreadable,
    history::{History, Key},
    judge::{Clause, Holds},
};

const EXCHANGES_SHOWN: usize = 3;
/// How many characters of a text from outside a report holds; the record holds all of it.
const TEXT: usize = 4_000;

/// Gateway, check and case: what a planned check is found by.
type Slot<'a> = (&'a str, &'a str, &'a str);

fn slot(key: &Key) -> Slot<'_> {
    (&key.gateway, &key.check, &key.case)
}

fn slot_of(check: &PlannedCheck) -> Slot<'_> {
    (&check.gateway, &check.check, &check.case)
}

/// Makes the report. The same inputs give the same report.
pub fn compile(inputs: &Inputs<'_>) -> Report {
    let plan = inputs.plan;
    let mut records: BTreeMap<Slot<'_>, Vec<&Record>> = BTreeMap::new();
    for record in &inputs.records.records {
        records.entry(slot(&record.key)).or_default().push(record);
    }
    records.values_mut().for_each(|r| r.sort_by_key(|r| r.key.attempt));
    let mut unreadable: BTreeMap<Slot<'_>, Vec<&Unreadable>> = BTreeMap::new();
    for file in &inputs.records.unreadable {
        if let Some(key) = &file.key {
            unreadable.entry(slot(key)).or_default().push(file);
        }
    }
    let today = inputs.now.to_zoned(TimeZone::UTC).date();
    let in_force = InForce::of(plan, inputs.baselines, today);

    let mut checks = Vec::with_capacity(plan.checks.len());
    let mut outcomes = Vec::new();
    for planned in &plan.checks {
        let mine = records.get(&slot_of(planned)).map_or(&[][..], Vec::as_slice);
        let torn = unreadable.get(&slot_of(planned)).map_or(&[][..], Vec::as_slice);
        let combined = combine(planned, mine, torn, &inputs.ending);
        if planned.runs() {
            outcomes.push(CheckOutcome {
                planned,
                verdict: if combined.finding.is_some() { Verdict::Fail } else { combined.verdict },
                records: mine,
            });
        }
        let ran = if planned.runs() { mine } else { &[] };
        checks.push(check_report(inputs, planned, combined, ran, &in_force));
    }
    let mut problems = problems(inputs);
    for gateway in &plan.gateways {
        let planned = outcomes.iter().filter(|o| o.planned.gateway == gateway.name);
        let mine: Vec<&Record> = planned.flat_map(|o| o.records.iter().copied()).collect();
        checks.extend(invariants::rows(inputs, gateway, &mine, &in_force));
        problems.extend(invariants::unused(inputs, gateway, &mine));
    }
    let baseline = in_force.states(&outcomes);
    let (breaks, exit) = ending::exit(plan, &inputs.ending, &checks, &baseline, problems.len());

    let gateways: Vec<GatewayReport> = plan
        .gateways
        .iter()
        .map(|gateway| {
            let mine = checks.iter().filter(|c| c.gateway == gateway.name);
            GatewayReport {
                name: gateway.name.clone(),
                gateway: gateway.name.clone(),
                profile: plan.run.profile.clone(),
                model: plan.run.model.clone(),
                context: plan.run.context.clone(),
                runs: vec![plan.run.id.clone()],
                versions: gateway.versions.clone(),
                word: ending::word_of(plan.run.place.is_real(), inputs.ending == Ending::Finished, mine.clone()),
                totals: Totals::of(mine),
                stand_ins: gateway.stand_ins.clone(),
            }
        })
        .collect();
    let declared = plan
        .run
        .declare
        .iter()
        .map(|file| format!("declared by {file}: changes besides those of the gateways' folders"));
    let word = ending::word_of_all(gateways.iter().map(|g| g.word));
    Report {
        schema: REPORT_SCHEMA.to_owned(),
        run: RunReport {
            id: plan.run.id.clone(),
            place: plan.run.place,
            word,
            statement: ending::statement(word, &checks),
            profile: plan.run.profile.clone(),
            started: plan.run.started.clone(),
            seconds: seconds_since(&plan.run.started, inputs.now),
            exit,
            models: vec![plan.run.model.clone()],
            context: plan.run.context.clone(),
            shard: plan.run.shard,
            strict: plan.run.strict,
            interrupted: inputs.ending == Ending::Interrupted,
            error: match &inputs.ending {
                Ending::Broken(error) => Some(error.clone()),
                _ => None,
            },
            egress: inputs.egress.clone(),
            notes: declared.chain(inputs.notes.iter().cloned()).collect(),
            command: plan.run.command.clone(),
        },
        gateways,
        totals: Totals::of(&checks),
        checks,
        breaks,
        problems,
        baseline,
    }
}

/// Seconds with three decimals; 0 where the start is no time or lies ahead.
fn seconds_since(started: &str, now: Timestamp) -> f64 {
    let started: Option<Timestamp> = started.parse().ok();
    started.map_or(0.0, |started| (now.as_millisecond() - started.as_millisecond()).max(0) as f64 / 1000.0)
}

/// Records and files that no planned check explains.
fn problems(inputs: &Inputs<'_>) -> Vec<String> {
    let planned: BTreeMap<Slot<'_>, &PlannedCheck> = inputs.plan.checks.iter().map(|c| (slot_of(c), c)).collect();
    let mut problems = Vec::new();
    for record in &inputs.records.records {
        let path = record.key.path();
        match planned.get(&slot(&record.key)) {
            None => problems.push(format!("records/{path}.json is of a check that is not in the plan")),
            Some(check) if !check.runs() => {
                problems.push(format!("records/{path}.json is of a check that was not planned to run"));
            }
            Some(_) => {}
        }
    }
    for file in &inputs.records.unreadable {
        let known = file.key.as_ref().and_then(|key| planned.get(&slot(key))).is_some_and(|check| check.runs());
        if !known {
            problems.push(format!("{} is no record of a planned check: {}", file.path.display(), file.problem));
        }
    }
    problems
}

fn check_report(
    inputs: &Inputs<'_>,
    planned: &PlannedCheck,
    combined: Combined<'_>,
    records: &[&Record],
    in_force: &InForce<'_>,
) -> CheckReport {
    let Combined { verdict, reason, finding, telling } = combined;
    let by = telling.and_then(|record| record.by).filter(|_| matches!(verdict, Verdict::Fail | Verdict::Flaky));
    let baseline = telling.and_then(|record| in_force.explains(planned, verdict, &record.clauses));
    let golden = records.last().map(|record| GoldenReport {
        state: record.golden,
        note: record.golden_note.as_deref().map(|note| bounded_to(note, 10 * TEXT)),
    });
    let plan = inputs.plan;
    let breaks = ending::verdict_breaks(plan, ending::weight(planned.level, by), verdict, baseline.as_ref())
        || ending::golden_breaks(plan, verdict, golden.as_ref().map(|g| g.state), baseline.as_ref());
    let evidence = |key: &Key| format!("evidence/{}", key.path());
    CheckReport {
        id: planned.check.clone(),
        case: (planned.case != "-").then(|| planned.case.clone()),
        gateway: planned.gateway.clone(),
        level: planned.level,
        verdict,
        seconds: records.iter().map(|r| r.seconds).sum(),
        settle_seconds: records.iter().map(|r| r.settle_seconds).sum(),
        attempts: u32::try_from(records.len()).unwrap_or(u32::MAX),
        evidence: telling.or(records.last().copied()).map(|r| evidence(&r.key)),
        sentence: planned.sentence.clone(),
        source: planned.source.clone(),
        capability: planned.capability.clone(),
        model: planned.model.clone(),
        breaks,
        by,
        judged: None,
        filtered: matches!(planned.disposition, Disposition::NotRun { filtered: true, .. }),
        golden,
        baseline,
        clauses: telling.map(|record| clauses(inputs, record, verdict, finding.is_some())).unwrap_or_default(),
        tries: records
            .iter()
            .map(|r| Try {
                attempt: r.key.attempt,
                verdict: r.verdict,
                reason: bounded(&r.reason),
                seconds: r.seconds,
                evidence: evidence(&r.key),
            })
            .collect(),
        repeat: repeat_command(&plan.run, planned),
        reason: bounded(&reason),
        finding: finding.map(|finding| bounded(&finding)),
    }
}

pub(super) fn bounded(text: &str) -> String {
    bounded_to(text, TEXT)
}

fn bounded_to(text: &str, most: usize) -> String {
    excerpt(text, most).into_owned()
}

/// Clauses of the attempt that decided; those that do not hold with the exchanges that show it.
fn clauses(inputs: &Inputs<'_>, record: &Record, verdict: Verdict, is_finding: bool) -> Vec<ClauseReport> {
    let history = (verdict != Verdict::Pass || is_finding).then(|| (inputs.histories)(&record.key)).flatten();
    record.clauses.iter().map(|clause| shown(history.as_ref(), clause)).collect()
}

/// One false clause of a record, with the exchanges that show it.
pub(super) fn clause_report(inputs: &Inputs<'_>, key: &Key, clause: &Clause) -> ClauseReport {
    shown((inputs.histories)(key).as_ref(), clause)
}

fn shown(history: Option<&History>, clause: &Clause) -> ClauseReport {
    let of_exchanges = |ids: &[String]| {
        let Some(history) = history else { return Vec::new() };
        ids.iter()
            .filter_map(|id| history.exchanges.iter().chain(&history.settle.exchanges).find(|e| e.id == *id))
            .take(EXCHANGES_SHOWN)
            .map(|exchange| ShownExchange {
                id: exchange.id.clone(),
                label: exchange.label.clone(),
                outcome: bounded(&exchange.outcome_words()),
                curl: bounded_to(&curl::command(history, exchange), 4 * TEXT),
            })
            .collect()
    };
    ClauseReport {
        name: bounded(&clause.name),
        holds: clause.holds,
        expected: bounded(&clause.expected),
        got: bounded(&clause.got),
        exchanges: if clause.holds == Holds::Yes { Vec::new() } else { of_exchanges(&clause.exchanges) },
    }
}

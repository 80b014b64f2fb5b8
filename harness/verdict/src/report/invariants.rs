//! Rows of invariants: one for each gateway and invariant, made of what the records of all its checks say.

use std::collections::{BTreeMap, BTreeSet};

use super::known::InForce;
use super::{CheckReport, ClauseReport, Inputs, compile, ending};
use crate::change::Change;
use crate::invariant::{Invariant, Tally};
use crate::judge::{Clause, Holds};
use crate::plan::{GatewayPlan, Level};
use crate::record::{Record, Verdict};

/// The rows of one gateway; none where no record says anything of invariants.
pub(super) fn rows(
    inputs: &Inputs<'_>,
    gateway: &GatewayPlan,
    records: &[&Record],
    in_force: &InForce<'_>,
) -> Vec<CheckReport> {
    if records.iter().all(|record| record.invariants.is_empty()) {
        return vec![];
    }
    Invariant::ALL.into_iter().map(|invariant| row(inputs, gateway, invariant, records, in_force)).collect()
}

fn row(
    inputs: &Inputs<'_>,
    gateway: &GatewayPlan,
    invariant: Invariant,
    records: &[&Record],
    in_force: &InForce<'_>,
) -> CheckReport {
    let mut tally = Tally::default();
    for of_record in records.iter().filter_map(|record| record.invariants.get(&invariant)) {
        tally.add(*of_record);
    }
    let id = invariant.id();
    let mut subjects: BTreeMap<&str, Vec<(&Record, &Clause)>> = BTreeMap::new();
    for record in records {
        for clause in record.clauses.iter().filter(|c| c.name == id && c.holds == Holds::No) {
            subjects.entry(clause.subject.as_deref().unwrap_or_default()).or_default().push((record, clause));
        }
    }
    let judged = format!("judged {} of {} exchanges", tally.judged, tally.of);
    let verdict = match (subjects.is_empty(), tally.judged) {
        (false, _) => Verdict::Fail,
        (true, 0) => Verdict::NotRun,
        (true, _) => Verdict::Pass,
    };
    let seen = |all: &[(&Record, &Clause)]| {
        let checks: BTreeSet<String> = all.iter().map(|(record, _)| record.key.title()).collect();
        let first = all.first().map_or(String::new(), |(record, _)| record.key.title());
        match checks.len() {
            0 | 1 => format!("seen in {first}"),
            2 => format!("seen in {first} and one more check"),
            more => format!("seen in {first} and {} more checks", more - 1),
        }
    };
    let first = subjects.values().next();
    let reason = match first.and_then(|all| Some((all, all.first()?.1))) {
        Some((all, clause)) => {
            let more = if subjects.len() > 1 { format!("; {} subjects in all", subjects.len()) } else { String::new() };
            format!("expected {}, got {}; {}{more}; {judged}", clause.expected, clause.got, seen(all))
        }
        None => judged,
    };
    let clauses: Vec<ClauseReport> = subjects
        .values()
        .filter_map(|all| {
            let (record, clause) = all.first()?;
            let mut report = compile::clause_report(inputs, &record.key, clause);
            report.got = format!("{}; {}", report.got, seen(all));
            Some(report)
        })
        .collect();
    let all: Vec<&Clause> = subjects.values().filter_map(|all| Some(all.first()?.1)).collect();
    let baseline = if all.is_empty() { None } else { in_force.explains_invariants(&gateway.name, &all) };
    let evidence = first.and_then(|all| all.first()).map(|(record, _)| format!("evidence/{}", record.key.path()));
    CheckReport {
        id,
        case: None,
        gateway: gateway.name.clone(),
        level: Level::Must,
        verdict,
        seconds: 0.0,
        settle_seconds: 0.0,
        attempts: u32::from(tally.judged > 0),
        reason: compile::bounded(&reason),
        evidence,
        sentence: invariant.sentence().to_owned(),
        source: invariant.source().to_owned(),
        capability: None,
        model: inputs.plan.run.model.clone(),
        breaks: ending::verdict_breaks(inputs.plan, Level::Must, verdict, baseline.as_ref()),
        by: None,
        judged: Some(tally),
        finding: None,
        filtered: false,
        golden: None,
        baseline,
        clauses,
        tries: vec![],
        repeat: inputs.plan.run.command.join(" "),
    }
}

/// Declared changes that no record of a whole rehearsal used: what a real gateway changes, its dialect changes too, so that one
/// that nothing uses says something that is not so. (Answers are another matter: some are given only while a real gateway is
/// not live yet.)
pub(super) fn unused(inputs: &Inputs<'_>, gateway: &GatewayPlan, records: &[&Record]) -> Vec<String> {
    let plan = inputs.plan;
    let run = &plan.run;
    let of_gateway = || plan.checks.iter().filter(|check| check.gateway == gateway.name);
    let whole = inputs.ending == super::Ending::Finished
        && run.suites.is_empty()
        && run.checks.is_empty()
        && run.shard.is_none()
        && run.declare.is_none()
        && of_gateway().any(crate::plan::PlannedCheck::runs);
    if run.place.is_real() || !whole || records.iter().all(|record| record.invariants.is_empty()) {
        return vec![];
    }
    let used: BTreeSet<&String> = records.iter().flat_map(|record| &record.used).collect();
    let declared = gateway.changes.iter().map(Change::words);
    declared
        .filter(|words| !used.contains(words))
        .map(|words| format!("gateway {} declares what no exchange of this rehearsal shows: {words}", gateway.name))
        .collect()
}

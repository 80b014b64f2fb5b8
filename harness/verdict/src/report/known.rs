//! Known failures: which baseline entries explain a check, and which have had their day.

use std::collections::BTreeMap;

use jiff::civil::Date;

use crate::baseline::{Baseline, Entry, Expect, Known};
use crate::invariant::Invariant;
use crate::judge::{Clause, Holds};
use crate::plan::{Plan, PlannedCheck};
use crate::record::{Record, Verdict};
use crate::report::{KnownFailure, KnownReport, KnownState};

/// Baseline entries that the run covers, by gateway.
pub(super) struct InForce<'b> {
    entries: BTreeMap<&'b str, Vec<&'b Entry>>,
    today: Date,
}

/// What came of a check that was planned to run.
pub(super) struct CheckOutcome<'r> {
    pub planned: &'r PlannedCheck,
    /// Before an INFO failure became a finding.
    pub verdict: Verdict,
    pub records: &'r [&'r Record],
}

impl<'b> InForce<'b> {
    pub(super) fn of(plan: &'b Plan, baselines: &'b BTreeMap<String, Baseline>, today: Date) -> Self {
        let mut entries: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for gateway in &plan.gateways {
            if let Some(baseline) = baselines.get(&gateway.name) {
                entries.insert(&gateway.name, baseline.in_force(gateway, plan.run.place).collect());
            }
        }
        Self { entries, today }
    }

    /// The entry that explains a verdict. False invariants in it have entries of their own, each for its subject.
    pub(super) fn explains(&self, check: &PlannedCheck, verdict: Verdict, clauses: &[Clause]) -> Option<KnownFailure> {
        let (of_invariants, own): (Vec<&Clause>, Vec<&Clause>) = clauses.iter().partition(|c| c.is_of_invariant());
        let of_invariants = if of_invariants.is_empty() {
            None
        } else {
            Some(self.explains_invariants(&check.gateway, &of_invariants)?)
        };
        if own.iter().all(|c| c.holds != Holds::No) && of_invariants.is_some() {
            return of_invariants;
        }
        let own: Vec<Clause> = own.into_iter().cloned().collect();
        let explains = |e: &&&Entry| {
            e.is_about(&check.check, &check.case) && !e.has_expired(self.today) && e.explains(verdict, &own)
        };
        self.entries.get(check.gateway.as_str())?.iter().find(explains).map(|entry| known(entry))
    }

    /// The first of the entries that explain these false invariants; nothing where one of them has none.
    pub(super) fn explains_invariants(&self, gateway: &str, clauses: &[&Clause]) -> Option<KnownFailure> {
        let entries = self.entries.get(gateway)?;
        let entry = |clause: &&Clause| entries.iter().find(|e| e.is_of_invariant(clause) && !e.has_expired(self.today));
        let found: Option<Vec<_>> = clauses.iter().map(entry).collect();
        found?.first().map(|entry| known(entry))
    }

    pub(super) fn states(&self, outcomes: &[CheckOutcome<'_>]) -> Vec<KnownReport> {
        let mut states = Vec::new();
        for (gateway, entries) in &self.entries {
            let of_gateway: Vec<_> = outcomes.iter().filter(|o| o.planned.gateway == *gateway).collect();
            for entry in entries {
                if entry.subject.is_some() {
                    states.push(self.state_of_invariant(gateway, entry, &of_gateway));
                    continue;
                }
                let is_about = |o: &&&CheckOutcome<'_>| entry.is_about(&o.planned.check, &o.planned.case);
                let about: Vec<_> = of_gateway.iter().filter(is_about).copied().collect();
                states.push(self.state(gateway, entry, &about));
            }
        }
        states
    }

    fn state(&self, gateway: &str, entry: &Entry, about: &[&CheckOutcome<'_>]) -> KnownReport {
        let known = match entry.verdict {
            Known::Fail => Verdict::Fail,
            Known::Unproven => Verdict::Unproven,
        };
        let records =
            || about.iter().flat_map(|o| o.records).filter(|r| r.verdict == Verdict::Pass || r.verdict == known);
        let is_judged = |verdict| matches!(verdict, Verdict::Pass | Verdict::Fail | Verdict::Flaky) || verdict == known;
        let judged: Vec<Verdict> = about.iter().map(|o| o.verdict).filter(|verdict| is_judged(*verdict)).collect();
        let state = if !about.is_empty() && entry.has_expired(self.today) {
            KnownState::Expired
        } else if judged.is_empty() {
            KnownState::NotJudged
        } else if entry.expect == Expect::Always && judged.iter().all(|verdict| *verdict == Verdict::Pass) {
            KnownState::Stale
        } else {
            KnownState::Holds
        };
        let failed = records().filter(|r| r.verdict == known).count();
        report(gateway, entry, state, failed, records().count())
    }

    /// The same of an entry for an invariant, which covers every check.
    fn state_of_invariant(&self, gateway: &str, entry: &Entry, all: &[&CheckOutcome<'_>]) -> KnownReport {
        let invariant = Invariant::of_id(&entry.check);
        let judged = |r: &&&Record| invariant.and_then(|i| r.invariants.get(&i)).is_some_and(|tally| tally.judged > 0);
        let records: Vec<&&Record> = all.iter().flat_map(|o| o.records).filter(judged).collect();
        let failed = records.iter().filter(|r| r.clauses.iter().any(|c| entry.is_of_invariant(c))).count();
        let state = match (records.is_empty(), failed) {
            _ if !all.is_empty() && entry.has_expired(self.today) => KnownState::Expired,
            (true, _) => KnownState::NotJudged,
            (false, 0) if entry.expect == Expect::Always => KnownState::Stale,
            (false, _) => KnownState::Holds,
        };
        report(gateway, entry, state, failed, records.len())
    }
}

fn known(entry: &Entry) -> KnownFailure {
    KnownFailure {
        reason: entry.reason.clone(),
        link: entry.link.clone(),
        expires: entry.expires.to_string(),
        expect: entry.expect,
    }
}

fn report(gateway: &str, entry: &Entry, state: KnownState, failed: usize, judged: usize) -> KnownReport {
    KnownReport {
        gateway: gateway.to_owned(),
        check: entry.check.clone(),
        case: entry.case.clone(),
        line: entry.line,
        expect: entry.expect,
        state,
        failed: failed as u64,
        judged: judged as u64,
        reason: entry.reason.clone(),
        link: entry.link.clone(),
        expires: entry.expires.to_string(),
    }
}

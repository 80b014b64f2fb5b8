//! Known failures: which baseline entries explain a check, and which have had their day.

use std::collections::BTreeMap;

use jiff::civil::Date;

use crate::baseline::{Baseline, Entry, Expect, Known};
use crate::judge::Clause;
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

    pub(super) fn explains(&self, check: &PlannedCheck, verdict: Verdict, clauses: &[Clause]) -> Option<KnownFailure> {
        let explains = |e: &&&Entry| {
            e.is_about(&check.check, &check.case) && !e.has_expired(self.today) && e.explains(verdict, clauses)
        };
        self.entries.get(check.gateway.as_str())?.iter().find(explains).map(|e| KnownFailure {
            reason: e.reason.clone(),
            link: e.link.clone(),
            expires: e.expires.to_string(),
            expect: e.expect,
        })
    }

    pub(super) fn states(&self, outcomes: &[CheckOutcome<'_>]) -> Vec<KnownReport> {
        let mut states = Vec::new();
        for (gateway, entries) in &self.entries {
            let of_gateway: Vec<_> = outcomes.iter().filter(|o| o.planned.gateway == *gateway).collect();
            for entry in entries {
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
        KnownReport {
            gateway: gateway.to_owned(),
            check: entry.check.clone(),
            case: entry.case.clone(),
            line: entry.line,
            expect: entry.expect,
            state,
            failed: records().filter(|r| r.verdict == known).count() as u64,
            judged: records().count() as u64,
            reason: entry.reason.clone(),
            link: entry.link.clone(),
            expires: entry.expires.to_string(),
        }
    }
}

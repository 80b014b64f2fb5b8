//! Known failures: which baseline entries explain a check, and which have had their day.

use std::collections::BTreeMap;

use jiff::civil::Date;

use crate::baseline::{Baseline, Entry, Expect, Known};
use crate::record::{Record, Verdict};
use crate::report::{KnownFailure, KnownReport, KnownState};
use crate::{judge::Clause, plan::Plan};

/// Baseline entries that the run covers, by gateway.
pub(super) struct InForce<'b> {
    entries: BTreeMap<&'b str, Vec<&'b Entry>>,
    today: Date,
}

/// One judged check, as baseline entries see it.
pub(super) struct Seen<'r> {
    pub gateway: &'r str,
    pub check: &'r str,
    pub case: &'r str,
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

    pub(super) fn explains(
        &self,
        gateway: &str,
        check: &str,
        case: &str,
        verdict: Verdict,
        clauses: &[Clause],
    ) -> Option<KnownFailure> {
        self.entries
            .get(gateway)?
            .iter()
            .find(|e| e.is_about(check, case) && !e.has_expired(self.today) && e.explains(verdict, clauses))
            .map(|e| KnownFailure {
                reason: e.reason.clone(),
                link: e.link.clone(),
                expires: e.expires.to_string(),
                expect: e.expect,
            })
    }

    pub(super) fn states(&self, seen: &[Seen<'_>]) -> Vec<KnownReport> {
        let mut by_check: BTreeMap<(&str, &str), Vec<&Seen<'_>>> = BTreeMap::new();
        for one in seen {
            by_check.entry((one.gateway, one.check)).or_default().push(one);
        }
        let mut states = Vec::new();
        for (gateway, entries) in &self.entries {
            for entry in entries {
                let about: Vec<&Seen<'_>> = by_check
                    .get(&(*gateway, entry.check.as_str()))
                    .into_iter()
                    .flatten()
                    .copied()
                    .filter(|s| entry.is_about(s.check, s.case))
                    .collect();
                states.push(self.state(gateway, entry, &about));
            }
        }
        states
    }

    fn state(&self, gateway: &str, entry: &Entry, about: &[&Seen<'_>]) -> KnownReport {
        let known = match entry.verdict {
            Known::Fail => Verdict::Fail,
            Known::Unproven => Verdict::Unproven,
        };
        let records =
            || about.iter().flat_map(|s| s.records).filter(|r| r.verdict == Verdict::Pass || r.verdict == known);
        let judged: Vec<&&Seen<'_>> = about
            .iter()
            .filter(|s| matches!(s.verdict, Verdict::Pass | Verdict::Fail | Verdict::Flaky) || s.verdict == known)
            .collect();
        let state = if !about.is_empty() && entry.has_expired(self.today) {
            KnownState::Expired
        } else if judged.is_empty() {
            KnownState::NotJudged
        } else if entry.expect == Expect::Always && judged.iter().all(|s| s.verdict == Verdict::Pass) {
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

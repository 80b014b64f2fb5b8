//! Tests of reports: verdicts, words and exit codes of made-up runs, and what a lying record comes to.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::history::{Exchange, Outcome, Request};
use crate::invariant::Invariant;
use crate::judge::Clause;
use crate::plan::tests_support::{planned, small_plan};
use crate::plan::{Disposition, Exclusive};
use crate::record::tests_support::{clause, record};
use crate::{folder::Unreadable, record::Record};

/// A made-up run: one MUST check `routing/host` that passed, unless changed.
pub(crate) struct World {
    pub plan: Plan,
    pub records: Records,
    pub baselines: BTreeMap<String, Baseline>,
    pub ending: Ending,
    pub now: Timestamp,
}

pub(crate) fn key(check: &str, attempt: u32) -> Key {
    Key { gateway: "gw".into(), check: check.into(), case: "-".into(), attempt }
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            plan: small_plan(),
            records: Records::default(),
            baselines: BTreeMap::new(),
            ending: Ending::Finished,
            now: "2026-11-21T12:04:05.500Z".parse().unwrap(),
        };
        world.plan.gateways[0].stand_ins.clear();
        world.attempt("routing/host", 1, Verdict::Pass);
        world
    }

    pub(crate) fn check(&mut self, id: &str, level: Level) -> &mut crate::plan::PlannedCheck {
        self.plan.checks.push(planned(id, level));
        self.plan.checks.last_mut().unwrap()
    }

    pub(crate) fn attempt(&mut self, check: &str, attempt: u32, verdict: Verdict) -> &mut Record {
        self.records.records.push(record(key(check, attempt), verdict));
        self.records.records.last_mut().unwrap()
    }

    /// A baseline entry for `routing/host`, with these fields in the place of the usual ones.
    pub(crate) fn known(&mut self, changed: &str) {
        let usual =
            "check: routing/host, versions: '*', place: real, expect: always, reason: r, link: l, expires: 2027-01-01";
        let fields = usual.split(", ").chain(changed.split(", ").filter(|f| !f.is_empty()));
        let fields: BTreeMap<&str, &str> = fields.map(|f| f.split_once(": ").unwrap()).collect();
        let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let text = format!("entries:\n- {{{}}}", fields.join(", "));
        let mut baseline = Baseline::parse(&text, Path::new("golden/gw/baseline.yaml")).unwrap();
        self.baselines.entry("gw".into()).or_default().entries.append(&mut baseline.entries);
    }

    pub(crate) fn history_of(key: &Key) -> Option<History> {
        let mut history = History::new(key.clone(), "igc-a1", "h.igc.test");
        history.address = Some("127.0.0.1:30080".into());
        history.exchanges.push(Exchange {
            id: "x-1".into(),
            label: "wrong-host".into(),
            sent_ms: 1.0,
            request: Request {
                method: "GET".into(),
                target: "/v1/models".into(),
                host: "wrong.igc.test".into(),
                headers: vec![("x-igc-exchange".into(), "x-1".into())],
                ..Request::default()
            },
            outcome: Outcome::Failed { stage: "connect".into(), error: "refused".into() },
            connection: None,
        });
        Some(history)
    }

    pub(crate) fn report(&self) -> Report {
        compile(&Inputs {
            plan: &self.plan,
            records: &self.records,
            baselines: &self.baselines,
            histories: &Self::history_of,
            ending: self.ending.clone(),
            now: self.now,
            egress: Some("closed".into()),
            notes: vec![],
        })
    }
}

fn changed(change: impl FnOnce(&mut World)) -> Report {
    let mut world = World::new();
    change(&mut world);
    world.report()
}

/// Replaces the only record by attempts with these verdicts.
fn attempts(world: &mut World, verdicts: &[Verdict]) {
    world.records.records.clear();
    for (verdict, attempt) in verdicts.iter().zip(1..) {
        world.attempt("routing/host", attempt, *verdict);
    }
}

use Verdict::{Error, Fail, Flaky, Pass, Unproven};

/// The record says how many exchanges own-reply was judged for, of 9; with a subject it is false for that.
pub(crate) fn own_reply(record: &mut Record, judged: u64, subject: Option<&str>) {
    record.invariants = Invariant::ALL.map(|invariant| (invariant, Tally { judged: 0, of: 9 })).into();
    record.invariants.insert(Invariant::OwnReply, Tally { judged, of: 9 });
    if let Some(subject) = subject {
        let false_one = Clause { subject: Some(subject.into()), ..clause("invariant/own-reply", Holds::No) };
        record.clauses.push(false_one);
        if record.verdict == Pass {
            (record.verdict, record.by) = (Fail, Some(By::Invariant));
        }
    }
}

fn row<'r>(report: &'r Report, id: &str) -> &'r CheckReport {
    report.checks.iter().find(|check| check.id == id).unwrap()
}

/// One row for each gateway and invariant, whatever the levels of the checks in which it was seen.
#[rstest]
#[case::holds(9, None, Level::Must, Pass, Pass, 0)]
#[case::part_of_it_judged(1, None, Level::Must, Pass, Pass, 0)]
#[case::nothing_judged(0, None, Level::Must, Pass, Verdict::NotRun, 0)]
#[case::false_in_a_must(9, Some("header x-a"), Level::Must, Fail, Fail, 1)]
#[case::false_in_a_should(9, Some("header x-a"), Level::Should, Fail, Fail, 1)]
#[case::false_in_an_info(9, Some("header x-a"), Level::Info, Fail, Fail, 1)]
fn invariants_have_rows(
    #[case] judged: u64,
    #[case] subject: Option<&str>,
    #[case] level: Level,
    #[case] of_check: Verdict,
    #[case] of_row: Verdict,
    #[case] exit: u8,
) {
    let report = changed(|world| {
        world.plan.checks[0].level = level;
        own_reply(&mut world.records.records[0], judged, subject);
    });
    let (check, own) = (row(&report, "routing/host"), row(&report, "invariant/own-reply"));
    assert_eq!((check.verdict, own.verdict, report.run.exit), (of_check, of_row, exit), "{:?}", report.breaks);
    assert_eq!((check.breaks, own.breaks), (exit == 1, exit == 1));
    assert_eq!((own.level, own.judged), (Level::Must, Some(Tally { judged, of: 9 })));
    assert!(own.reason.contains(&format!("judged {judged} of 9 exchanges")), "{}", own.reason);
    let rows = report.checks.iter().filter(|check| check.id.starts_with("invariant/"));
    assert_eq!(rows.count(), 5);
    // One fault is counted once.
    let by_invariant = u64::from(subject.is_some());
    assert_eq!((report.totals.fail, report.totals.by_invariant), (by_invariant, by_invariant));
    assert_eq!(report.breaks, if exit == 1 { vec!["1 failed".to_owned()] } else { vec![] });
}

#[test]
fn a_check_that_fails_by_itself_too_is_counted_for_itself() {
    let report = changed(|world| {
        attempts(world, &[Fail]);
        own_reply(&mut world.records.records[0], 9, Some("status"));
    });
    assert_eq!((row(&report, "routing/host").by, report.totals.fail, report.totals.by_invariant), (None, 2, 0));
}

/// An entry names the invariant and the subject, and covers every check in which that is seen.
#[rstest]
#[case::the_subject("check: invariant/own-reply, subject: header x-a", &["header x-a"], KnownState::Holds, 0)]
#[case::another_subject("check: invariant/own-reply, subject: header x-b", &["header x-a"], KnownState::Stale, 1)]
#[case::another_invariant("check: invariant/true-framing, subject: header x-a", &["header x-a"], KnownState::NotJudged, 1)]
#[case::one_of_two("check: invariant/own-reply, subject: header x-a", &["header x-a", "status"], KnownState::Holds, 1)]
#[case::not_seen("check: invariant/own-reply, subject: header x-a", &[], KnownState::Stale, 1)]
#[case::not_seen_each_time("check: invariant/own-reply, subject: header x-a, expect: sometimes", &[], KnownState::Holds, 0)]
#[case::expired("check: invariant/own-reply, subject: header x-a, expires: 2026-01-01", &["header x-a"], KnownState::Expired, 1)]
fn baselines_name_the_subject_of_an_invariant(
    #[case] entry: &str,
    #[case] subjects: &[&str],
    #[case] state: KnownState,
    #[case] exit: u8,
) {
    let report = changed(|world| {
        world.known(entry);
        world.check("tokens/exact", Level::Should);
        world.attempt("tokens/exact", 1, Pass);
        for record in &mut world.records.records {
            own_reply(record, 9, None);
            subjects.iter().for_each(|subject| own_reply(record, 9, Some(subject)));
        }
    });
    assert_eq!((report.baseline[0].state, report.run.exit), (state, exit), "{:?}", report.breaks);
    let known = |id: &str| row(&report, id).baseline.is_some();
    let explained = exit == 0 && !subjects.is_empty();
    assert_eq!([known("routing/host"), known("tokens/exact"), known("invariant/own-reply")], [explained; 3]);
}

/// What no exchange of a whole rehearsal shows is no change that a dialect makes.
#[rstest]
#[case::used(PlaceName::Rehearsal, true, &[], 0)]
#[case::unused(PlaceName::Rehearsal, false, &[], 3)]
#[case::a_part_of_the_suites(PlaceName::Rehearsal, false, &["routing"], 0)]
#[case::of_a_real_gateway(PlaceName::Kind, false, &[], 0)]
fn declared_changes_are_used(#[case] place: PlaceName, #[case] used: bool, #[case] suites: &[&str], #[case] exit: u8) {
    let report = changed(|world| {
        let change = "{direction: request, header: x-new, rule: add, source: s}";
        world.plan.gateways[0].changes = vec![serde_saphyr::from_str(change).unwrap()];
        world.plan.run.place = place;
        world.plan.run.suites = suites.iter().map(|suite| (*suite).to_owned()).collect();
        own_reply(&mut world.records.records[0], 9, None);
        world.records.records[0].used.extend(used.then(|| "request header x-new add".to_owned()));
    });
    assert_eq!(report.run.exit, exit, "{:?}", report.problems);
    let said = "gateway gw declares what no exchange of this rehearsal shows: request header x-new add";
    assert_eq!(report.problems, if exit == 3 { vec![said.to_owned()] } else { vec![] });
}

#[rstest]
#[case::pass(&[Pass], Pass, 0)]
#[case::fail(&[Fail], Fail, 1)]
#[case::unproven(&[Unproven], Unproven, 1)]
#[case::error(&[Error], Error, 3)]
#[case::no_record(&[], Error, 3)]
#[case::flaky(&[Fail, Pass], Flaky, 1)]
#[case::flaky_later(&[Fail, Unproven, Pass], Flaky, 1)]
#[case::an_error_is_not_hidden_by_a_retry(&[Error, Pass], Flaky, 1)]
#[case::fail_twice(&[Fail, Fail], Fail, 1)]
#[case::fail_then_error(&[Fail, Error], Fail, 1)]
#[case::error_then_fail(&[Error, Fail], Fail, 1)]
#[case::pass_then_fail(&[Pass, Fail], Fail, 1)]
#[case::unproven_then_error(&[Unproven, Error], Error, 3)]
#[case::error_then_unproven(&[Error, Unproven], Error, 3)]
fn attempts_become_one_verdict(#[case] verdicts: &[Verdict], #[case] verdict: Verdict, #[case] exit: u8) {
    let report = changed(|w| attempts(w, verdicts));
    assert_eq!((report.checks[0].verdict, report.run.exit), (verdict, exit), "{:?}", report.breaks);
    assert_eq!(report.checks[0].attempts as usize, verdicts.len());
    assert_eq!(report.checks[0].breaks, exit != 0);
    assert_eq!(report.breaks.is_empty(), exit == 0, "{:?}", report.breaks);
}

#[rstest]
#[case::false_clause(|w: &mut World| w.records.records[0].clauses = vec![clause("a", Holds::No)], Fail)]
#[case::unproven_clause(|w: &mut World| w.records.records[0].clauses = vec![clause("a", Holds::Unproven)], Unproven)]
#[case::empty_history(|w: &mut World| w.records.records[0].clauses.clear(), Unproven)]
#[case::first_attempt_lost(|w: &mut World| w.records.records[0].key.attempt = 2, Error)]
#[case::retried_though_every_answer_counts(|w: &mut World| { w.plan.checks[0].counts_every_answer = true; attempts(w, &[Pass, Pass]); }, Error)]
#[case::retry_hides_failure(|w: &mut World| { w.plan.checks[0].counts_every_answer = true; attempts(w, &[Fail, Pass]); }, Fail)]
#[case::torn(|w: &mut World| w.records.unreadable.push(torn(Some(key("routing/host", 2)))), Error)]
fn a_record_that_lies_is_not_believed(#[case] change: fn(&mut World), #[case] verdict: Verdict) {
    let report = changed(change);
    assert_eq!(report.checks[0].verdict, verdict, "{}", report.checks[0].reason);
    assert_ne!(report.run.exit, 0);
    assert_ne!(report.run.word, Word::Conformant);
}

fn torn(key: Option<Key>) -> Unreadable {
    Unreadable { path: PathBuf::from("records/gw/x.json"), key, problem: "cut short".into() }
}

#[rstest]
#[case::unknown_check(|w: &mut World| { w.attempt("routing/other", 1, Pass); }, "is of a check that is not in the plan")]
#[case::not_planned_to_run(|w: &mut World| {
    w.check("routing/other", Level::Must).disposition = Disposition::Unsupported { reason: "r".into() };
    w.attempt("routing/other", 1, Fail);
}, "was not planned to run")]
#[case::torn_of_nobody(|w: &mut World| w.records.unreadable.push(torn(None)), "cut short")]
#[case::torn_of_another(|w: &mut World| w.records.unreadable.push(torn(Some(key("a/b", 1)))), "cut short")]
fn what_does_not_fit_the_plan_is_an_error(#[case] change: fn(&mut World), #[case] said: &str) {
    let report = changed(change);
    assert_eq!(report.run.exit, 3);
    assert!(report.problems.len() == 1 && report.problems[0].contains(said), "{:?}", report.problems);
}

fn not_run(filtered: bool) -> Disposition {
    Disposition::NotRun { reason: "left out".into(), filtered }
}

#[rstest]
#[case::all_good(|_: &mut World| (), Word::Conformant, 0)]
#[case::rehearsal(|w: &mut World| w.plan.run.place = PlaceName::Rehearsal, Word::Rehearsed, 0)]
#[case::rehearsal_fails(|w: &mut World| { w.plan.run.place = PlaceName::Rehearsal; attempts(w, &[Fail]); }, Word::Rehearsed, 1)]
#[case::must_fails(|w: &mut World| attempts(w, &[Fail]), Word::Nonconformant, 1)]
#[case::must_is_flaky(|w: &mut World| attempts(w, &[Fail, Pass]), Word::Nonconformant, 1)]
#[case::must_is_unproven(|w: &mut World| attempts(w, &[Unproven]), Word::Partial, 1)]
#[case::must_is_error(|w: &mut World| { w.check("a/b", Level::Must); }, Word::Partial, 3)]
#[case::should_fails(|w: &mut World| { w.check("a/b", Level::Should); w.attempt("a/b", 1, Fail); }, Word::Conformant, 0)]
#[case::should_flakes(|w: &mut World| { w.check("a/b", Level::Should); w.attempt("a/b", 1, Fail); w.attempt("a/b", 2, Pass); }, Word::Conformant, 0)]
#[case::should_fails_strictly(|w: &mut World| { w.plan.run.strict = true; w.check("a/b", Level::Should); w.attempt("a/b", 1, Fail); }, Word::Conformant, 1)]
#[case::should_is_error(|w: &mut World| { w.check("a/b", Level::Should); }, Word::Conformant, 3)]
#[case::info_fails(|w: &mut World| { w.plan.run.strict = true; w.check("a/b", Level::Info); w.attempt("a/b", 1, Fail); }, Word::Conformant, 0)]
#[case::filtered(|w: &mut World| w.check("a/b", Level::Info).disposition = not_run(true), Word::Partial, 0)]
#[case::filtered_and_failing(|w: &mut World| { w.check("a/b", Level::Info).disposition = not_run(true); attempts(w, &[Fail]); }, Word::Partial, 1)]
#[case::must_not_run(|w: &mut World| w.check("a/b", Level::Must).disposition = not_run(false), Word::Partial, 0)]
#[case::should_not_run(|w: &mut World| w.check("a/b", Level::Should).disposition = not_run(false), Word::Conformant, 0)]
#[case::unsupported(|w: &mut World| w.check("a/b", Level::Must).disposition = Disposition::Unsupported { reason: "r".into() }, Word::Conformant, 0)]
#[case::interrupted(|w: &mut World| w.ending = Ending::Interrupted, Word::Partial, 130)]
#[case::interrupted_after_failure(|w: &mut World| { w.ending = Ending::Interrupted; attempts(w, &[Fail]); }, Word::Partial, 130)]
#[case::broken(|w: &mut World| w.ending = Ending::Broken("install of kserve".into()), Word::Partial, 3)]
#[case::broken_after_failure(|w: &mut World| { w.ending = Ending::Broken("cluster died".into()); attempts(w, &[Fail]); }, Word::Partial, 1)]
#[case::nothing_executed(|w: &mut World| { w.plan.checks[0].disposition = not_run(true); w.records.records.clear(); }, Word::Partial, 3)]
#[case::nothing_asked(|w: &mut World| { w.plan.run.allow_empty = true; w.plan.checks[0].disposition = not_run(true); w.records.records.clear(); }, Word::Partial, 0)]
#[case::nothing_executed_though_asked(|w: &mut World| { w.plan.run.allow_empty = true; w.records.records.clear(); }, Word::Partial, 3)]
#[case::golden_changed(|w: &mut World| w.records.records[0].golden = GoldenState::Changed, Word::Conformant, 1)]
#[case::golden_missing(|w: &mut World| w.records.records[0].golden = GoldenState::Missing, Word::Conformant, 0)]
#[case::golden_missing_in_ci(|w: &mut World| { w.plan.run.ci = true; w.records.records[0].golden = GoldenState::Missing; }, Word::Conformant, 1)]
#[case::golden_not_compared_in_ci(|w: &mut World| { w.plan.run.ci = true; w.records.records[0].golden = GoldenState::NotCompared; }, Word::Conformant, 0)]
#[case::info_golden_changed(|w: &mut World| { w.check("a/b", Level::Info); w.attempt("a/b", 1, Pass).golden = GoldenState::Changed; }, Word::Conformant, 1)]
#[case::error_has_no_golden(|w: &mut World| { attempts(w, &[Error]); w.records.records[0].golden = GoldenState::Changed; }, Word::Partial, 3)]
#[case::errors_and_a_failure(|w: &mut World| { w.check("a/b", Level::Must); attempts(w, &[Fail]); }, Word::Nonconformant, 1)]
#[case::known(|w: &mut World| { attempts(w, &[Fail]); w.known(""); }, Word::Nonconformant, 0)]
#[case::known_elsewhere(|w: &mut World| { attempts(w, &[Fail]); w.known("place: rehearsal"); }, Word::Nonconformant, 1)]
#[case::known_in_another_version(|w: &mut World| { attempts(w, &[Fail]); w.known("versions: '>=2.0'"); }, Word::Nonconformant, 1)]
#[case::known_but_golden_changed(|w: &mut World| { attempts(w, &[Fail]); w.records.records[0].golden = GoldenState::Changed; w.known(""); }, Word::Nonconformant, 1)]
#[case::known_to_vary(|w: &mut World| { attempts(w, &[Fail]); w.records.records[0].golden = GoldenState::Changed; w.known("expect: sometimes"); }, Word::Nonconformant, 0)]
#[case::known_to_vary_but_passing(|w: &mut World| { w.records.records[0].golden = GoldenState::Changed; w.known("expect: sometimes"); }, Word::Conformant, 1)]
#[case::known_to_vary_without_golden_in_ci(|w: &mut World| { w.plan.run.ci = true; attempts(w, &[Fail]); w.records.records[0].golden = GoldenState::Missing; w.known("expect: sometimes"); }, Word::Nonconformant, 0)]
#[case::known_without_golden_in_ci(|w: &mut World| { w.plan.run.ci = true; attempts(w, &[Fail]); w.records.records[0].golden = GoldenState::Missing; w.known(""); }, Word::Nonconformant, 1)]
#[case::known_and_error(|w: &mut World| { attempts(w, &[Error]); w.known(""); }, Word::Partial, 3)]
#[case::known_and_unproven(|w: &mut World| { attempts(w, &[Unproven]); w.known(""); }, Word::Partial, 1)]
#[case::known_to_be_unproven(|w: &mut World| { attempts(w, &[Unproven]); w.known("verdict: unproven"); }, Word::Partial, 0)]
#[case::known_and_flaky(|w: &mut World| { attempts(w, &[Fail, Pass]); w.known(""); }, Word::Nonconformant, 1)]
#[case::known_to_be_flaky(|w: &mut World| { attempts(w, &[Fail, Pass]); w.known("expect: sometimes"); }, Word::Nonconformant, 0)]
#[case::known_for_another_clause(|w: &mut World| { attempts(w, &[Fail]); w.known("clause: [other]"); }, Word::Nonconformant, 1)]
#[case::known_for_this_clause(|w: &mut World| { attempts(w, &[Fail]); w.known("clause: [wrong-host-is-404]"); }, Word::Nonconformant, 0)]
#[case::a_known_finding_is_not_stale(|w: &mut World| { w.plan.checks[0].level = Level::Info; attempts(w, &[Fail]); w.known(""); }, Word::Conformant, 0)]
#[case::stale(|w: &mut World| w.known(""), Word::Conformant, 1)]
#[case::sometimes_is_never_stale(|w: &mut World| w.known("expect: sometimes"), Word::Conformant, 0)]
#[case::expired_and_failing(|w: &mut World| { attempts(w, &[Fail]); w.known("expires: 2026-11-20"); }, Word::Nonconformant, 1)]
#[case::expired_and_passing(|w: &mut World| w.known("expires: 2026-11-20, expect: sometimes"), Word::Conformant, 1)]
#[case::last_day(|w: &mut World| { attempts(w, &[Fail]); w.known("expires: 2026-11-21"); }, Word::Nonconformant, 0)]
#[case::expired_but_not_covered(|w: &mut World| w.known("check: a/b, expires: 2026-11-20"), Word::Conformant, 0)]
#[case::stale_but_of_another_version(|w: &mut World| w.known("versions: '>=2.0'"), Word::Conformant, 0)]
fn words_and_exit_codes(#[case] change: fn(&mut World), #[case] word: Word, #[case] exit: u8) {
    let report = changed(change);
    assert_eq!((report.run.word, report.run.exit), (word, exit), "{:?}", report.breaks);
    assert_eq!(report.breaks.is_empty(), exit == 0, "{:?}", report.breaks);
}

#[test]
fn an_entry_for_all_cases_is_stale_when_all_pass() {
    let world = |second: Verdict| {
        let mut world = World::new();
        world.plan.checks[0].case = "one".into();
        world.records.records[0].key.case = "one".into();
        world.check("routing/host", Level::Must).case = "two".into();
        world.attempt("routing/host", 1, second).key.case = "two".into();
        world.known("");
        world.report()
    };
    assert_eq!(world(Fail).baseline[0].state, KnownState::Holds);
    assert_eq!(world(Fail).run.exit, 0);
    assert_eq!(world(Pass).baseline[0].state, KnownState::Stale);
    let held = world(Fail).baseline.remove(0);
    assert_eq!((held.failed, held.judged), (1, 2));
}

#[test]
fn an_info_check_is_a_finding_and_never_a_failure() {
    let report = changed(|w| {
        w.plan.checks[0].level = Level::Info;
        attempts(w, &[Fail]);
    });
    let check = &report.checks[0];
    assert_eq!((check.verdict, check.finding.as_deref()), (Pass, Some("because")));
    assert_eq!(check.clauses[0].exchanges.len(), 1, "what was found is shown");
    assert_eq!(changed(|_| ()).checks[0].finding, None);
}

#[test]
fn what_did_not_pass_shows_how_to_repeat_it() {
    let report = changed(|w| {
        w.plan.run.set.insert("kserve".into(), "v0.17.0".into());
        w.plan.run.context = Some("my context".into());
        w.plan.run.place = PlaceName::Context;
        w.plan.checks[0].exclusive = Exclusive::Gateway;
        attempts(w, &[Fail]);
    });
    let check = &report.checks[0];
    assert_eq!(
        check.repeat,
        "cargo xtask e2e --on context --context 'my context' --gateway gw --profile current --set kserve=v0.17.0 --check routing/host"
    );
    let shown = &check.clauses[0].exchanges[0];
    assert_eq!((shown.label.as_str(), shown.outcome.as_str()), ("wrong-host", "failed to connect: refused"));
    assert!(shown.curl.starts_with("curl -sSig"), "{}", shown.curl);
    assert_eq!(check.evidence.as_deref(), Some("evidence/gw/routing/host/-/1"));
    assert_eq!(changed(|_| ()).checks[0].clauses[0].exchanges, [], "a pass needs no exchanges");
}

#[test]
fn two_gateways_are_counted_apart_and_together() {
    let report = changed(|w| {
        let mut second = w.plan.gateways[0].clone();
        second.name = "other".into();
        w.plan.gateways.push(second);
        w.check("routing/host", Level::Must).gateway = "other".into();
        w.attempt("routing/host", 1, Fail).key.gateway = "other".into();
    });
    assert_eq!(report.gateways[0].word, Word::Conformant);
    assert_eq!(report.gateways[1].word, Word::Nonconformant);
    assert_eq!(report.run.word, Word::Nonconformant);
    assert_eq!((report.gateways[0].totals.pass, report.gateways[1].totals.fail), (1, 1));
    assert_eq!((report.totals.pass, report.totals.fail), (1, 1));
}

#[rstest]
#[case(Word::Rehearsed, |w: &mut World| w.plan.run.place = PlaceName::Rehearsal, "no gateway was tested")]
#[case(Word::Conformant, |_: &mut World| (), "1 of 1 checks were judged, and every MUST among them holds")]
#[case(Word::Partial, |w: &mut World| w.check("a/b", Level::Must).disposition = not_run(true), "1 of 2 checks were judged")]
#[case(Word::Nonconformant, |w: &mut World| attempts(w, &[Fail]), "1 of 1 judged checks are MUST and do not hold")]
fn statements(#[case] word: Word, #[case] change: fn(&mut World), #[case] said: &str) {
    let report = changed(change);
    assert_eq!(report.run.word, word);
    assert!(report.run.statement.starts_with(said), "{}", report.run.statement);
    assert_eq!(report.run.statement.contains("stand-in"), word == Word::Rehearsed);
}

/// The shape that others read; more fields may come, none may go.
#[test]
fn the_file_has_the_promised_shape() {
    let report = changed(|w| attempts(w, &[Fail]));
    let written = serde_json::to_value(&report).unwrap();
    assert_eq!(written["schema"], "igc.report/v1");
    for field in ["id", "place", "word", "profile", "started", "seconds", "exit"] {
        assert!(!written["run"][field].is_null(), "run.{field}");
    }
    for field in ["name", "versions"] {
        assert!(!written["gateways"][0][field].is_null(), "gateways.{field}");
    }
    for field in ["id", "gateway", "level", "verdict", "seconds", "settle_seconds", "attempts", "reason", "evidence"] {
        assert!(!written["checks"][0][field].is_null(), "checks.{field}");
    }
    assert_eq!(written["totals"]["not-run"], 0);
    assert_eq!((&written["checks"][0]["verdict"], &written["checks"][0]["level"]), (&"fail".into(), &"MUST".into()));
    assert_eq!(written["run"]["seconds"], 60.5);
    assert_eq!(serde_json::from_value::<Report>(written).unwrap(), report);
}

#[test]
fn ten_thousand_records_are_quick() {
    let mut world = World::new();
    for n in 0..10_000 {
        let id = format!("many/check-{n}");
        world.check(&id, Level::Must);
        world.attempt(&id, 1, Pass);
    }
    let started = std::time::Instant::now();
    let report = world.report();
    assert_eq!(report.totals.pass, 10_001);
    assert!(started.elapsed().as_secs() < 10, "even without optimization, on a busy machine: {:?}", started.elapsed());
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![Just(Pass), Just(Fail), Just(Unproven), Just(Error)]
}

proptest! {
    /// Nothing but passes on the first try of all that was planned ends in exit code 0 (without a baseline).
    #[test]
    fn only_passes_hold(verdicts in prop::collection::vec(prop::collection::vec(any_verdict(), 0..4), 1..6)) {
        let mut world = World::new();
        for (n, attempts) in verdicts.iter().enumerate() {
            let id = format!("many/check-{n}");
            world.check(&id, Level::Must);
            for (verdict, attempt) in attempts.iter().zip(1..) {
                world.attempt(&id, attempt, *verdict);
            }
        }
        let report = world.report();
        let good = verdicts.iter().all(|v| !v.is_empty() && v.iter().all(|v| *v == Pass));
        prop_assert_eq!(report.run.exit == 0, good);
        prop_assert_eq!(report.run.word == Word::Conformant, good);
        let fails = verdicts.iter().flatten().any(|v| *v == Fail);
        prop_assert!(!fails || report.run.exit == 1);
        let sum: u64 = report.totals.columns().iter().map(|(_, n)| n).sum();
        prop_assert_eq!(sum as usize, report.checks.len());
    }
}

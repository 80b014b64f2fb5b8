//! Merging: reports of several runs become one, whether they were parts of a run, cells of a matrix or clusters of a fleet.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{CheckReport, GatewayReport, KnownReport, KnownState, REPORT_SCHEMA, Report, RunReport, Totals, ending};
use crate::plan::{ModelName, PlaceName, Shard};
use crate::record::Verdict;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    #[error("failed to merge: no run was given")]
    Nothing,
    /// A stand-in beside a real gateway would lend it its word.
    #[error("failed to merge: {first} ran on {}, {second} on {}; merge runs of one place", places.0.word(), places.1.word())]
    Places { first: String, second: String, places: (PlaceName, PlaceName) },
    /// Two runs judged the same check under the same circumstances, and nothing says which of them counts.
    #[error("failed to merge: {first} and {second} both ran {check} on {column}; give one of them")]
    Twice { first: String, second: String, check: String, column: String },
}

/// A cell that must be there: a line of what `cargo xtask matrix` prints.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Expected {
    pub name: String,
    pub gateway: String,
    pub profile: String,
    pub model: ModelName,
    pub on: PlaceName,
    #[serde(default)]
    pub shard: Option<Shard>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The report. Its gateways are columns: one for each gateway and the circumstances that tell it apart.
    pub report: Report,
    /// (column, `suite/name`, case) -> which of the runs, and the gateway's name there.
    pub origins: BTreeMap<(String, String, Option<String>), (usize, String)>,
}

/// What makes results comparable: parts of the same cell become one column.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    gateway: String,
    profile: String,
    model: ModelName,
    context: Option<String>,
    versions: BTreeMap<String, String>,
}

impl Cell {
    fn of(gateway: &GatewayReport) -> Self {
        Self {
            gateway: gateway.gateway.clone(),
            profile: gateway.profile.clone(),
            model: gateway.model.clone(),
            context: gateway.context.clone(),
            versions: gateway.versions.clone(),
        }
    }

    /// The gateway, with what tells it apart from the other cells of the same gateway.
    fn label(&self, all: &BTreeSet<Self>) -> String {
        let others: Vec<&Self> = all.iter().filter(|c| c.gateway == self.gateway && *c != self).collect();
        let mut words = vec![self.gateway.clone()];
        if others.iter().any(|c| c.context != self.context) {
            words.push(format!("in {}", self.context.as_deref().unwrap_or("-")));
        }
        if others.iter().any(|c| c.profile != self.profile) {
            words.push(self.profile.clone());
        }
        if others.iter().any(|c| c.model != self.model) {
            words.push(self.model.word().to_owned());
        }
        let told = |c: &&Self| (&c.context, &c.profile, &c.model) != (&self.context, &self.profile, &self.model);
        if !others.iter().all(told) {
            let differs =
                |name: &String, version: &String| others.iter().any(|c| c.versions.get(name) != Some(version));
            let own = self.versions.iter().filter(|(name, version)| differs(name, version));
            words.extend(own.map(|(name, version)| format!("{name} {version}")));
        }
        words.join(" ")
    }
}

/// Merges reports. What is expected and has no run, and parts that are missing, are problems: never silently absent.
pub fn merge(runs: &[Report], id: &str, command: &[String], expected: &[Expected]) -> Result<Merged, MergeError> {
    let first = runs.first().ok_or(MergeError::Nothing)?;
    if let Some(other) = runs.iter().find(|r| r.run.place != first.run.place) {
        let (first, second) = (&first.run, &other.run);
        let places = (first.place, second.place);
        return Err(MergeError::Places { first: first.id.clone(), second: second.id.clone(), places });
    }
    let all: BTreeSet<Cell> = runs.iter().flat_map(|r| &r.gateways).map(Cell::of).collect();
    let label = |gateway: &GatewayReport| Cell::of(gateway).label(&all);
    let (mut gateways, mut checks) = (Vec::new(), Vec::new());
    let (mut origins, mut problems) = (BTreeMap::new(), Vec::new());
    for cell in &all {
        let column = cell.label(&all);
        let parts: Vec<(usize, &GatewayReport)> = runs
            .iter()
            .enumerate()
            .flat_map(|(at, run)| run.gateways.iter().map(move |gateway| (at, gateway)))
            .filter(|(_, gateway)| Cell::of(gateway) == *cell)
            .collect();
        let begin = checks.len();
        for (at, check) in chosen(runs, &parts, &column)? {
            let (origin, check) = placed(&runs[at], check, &column);
            origins.insert((column.clone(), check.id.clone(), check.case.clone()), (at, origin));
            checks.push(check);
        }
        problems.extend(missing_parts(runs, &parts, &column));
        gateways.push(column_of(runs, &parts, column, &checks[begin..]));
    }
    problems.extend(expected.iter().filter(|e| !runs.iter().any(|r| is_run_of(r, e))).map(|e| {
        let shard = e.shard.map(|s| format!(" part {s}")).unwrap_or_default();
        format!("there is no run of {}{shard}: its job did not get to the end, or its folder was not given", e.name)
    }));

    let name_of = |run: &Report| run.gateways.iter().map(&label).collect::<Vec<_>>().join(", ");
    let mut breaks: Vec<String> = Vec::new();
    for run in runs {
        let part = run.run.shard.map(|s| format!(" part {s}")).unwrap_or_default();
        breaks.extend(run.breaks.iter().map(|reason| format!("{}{part}: {reason}", name_of(run))));
    }
    if !problems.is_empty() {
        breaks.push(format!("{} cells or parts of cells are missing", problems.len()));
    }
    let exit = match (runs.iter().any(|r| r.run.exit == 1), runs.iter().all(|r| r.run.exit == 0)) {
        (true, _) => 1,
        (false, true) if problems.is_empty() => 0,
        _ => 3,
    };
    problems.extend(runs.iter().flat_map(|r| r.problems.iter().map(|p| format!("{}: {p}", r.run.id))));
    let baseline = known(runs, label);
    let word = ending::word_of_all(gateways.iter().map(|g| g.word));
    let totals = Totals::of(&checks);
    let run = RunReport { id: id.to_owned(), command: command.to_vec(), exit, word, ..run_of(runs, &checks, word) };
    let report = Report { schema: REPORT_SCHEMA.into(), run, gateways, checks, totals, breaks, problems, baseline };
    Ok(Merged { report, origins })
}

fn is_run_of(run: &Report, expected: &Expected) -> bool {
    let is_gateway = |g: &GatewayReport| {
        (&g.gateway, &g.profile, &g.model) == (&expected.gateway, &expected.profile, &expected.model)
    };
    run.run.place == expected.on && run.run.shard == expected.shard && run.gateways.iter().any(is_gateway)
}

/// Of each check the report of the run that it was planned for; what no run was planned for, as the first of them says it.
fn chosen<'r>(
    runs: &'r [Report],
    parts: &[(usize, &GatewayReport)],
    column: &str,
) -> Result<Vec<(usize, &'r CheckReport)>, MergeError> {
    let mut order: Vec<(usize, &CheckReport)> = Vec::new();
    let mut places: BTreeMap<(&str, Option<&str>), usize> = BTreeMap::new();
    for &(at, gateway) in parts {
        for check in runs[at].checks.iter().filter(|c| c.gateway == gateway.name) {
            let place = *places.entry((&check.id, check.case.as_deref())).or_insert_with(|| {
                order.push((at, check));
                order.len() - 1
            });
            let (before, known) = order[place];
            if before == at || !was_planned(check) {
                continue;
            }
            if was_planned(known) {
                return Err(MergeError::Twice {
                    first: runs[before].run.id.clone(),
                    second: runs[at].run.id.clone(),
                    check: check.title(),
                    column: column.to_owned(),
                });
            }
            order[place] = (at, check);
        }
    }
    Ok(order)
}

fn was_planned(check: &CheckReport) -> bool {
    !matches!(check.verdict, Verdict::NotRun | Verdict::Unsupported)
}

/// A check in its column, its evidence below the folder of its run; and the gateway's name there.
fn placed(run: &Report, check: &CheckReport, column: &str) -> (String, CheckReport) {
    let mut moved = check.clone();
    let below = |path: &String| format!("{}/{path}", run.run.id);
    moved.evidence = check.evidence.as_ref().map(below);
    for attempt in &mut moved.tries {
        attempt.evidence = below(&attempt.evidence);
    }
    (std::mem::replace(&mut moved.gateway, column.to_owned()), moved)
}

fn missing_parts(runs: &[Report], parts: &[(usize, &GatewayReport)], column: &str) -> Vec<String> {
    let there: BTreeSet<Shard> = parts.iter().filter_map(|(at, _)| runs[*at].run.shard).collect();
    let of: BTreeSet<u32> = there.iter().map(|s| s.of).collect();
    let all = of.into_iter().flat_map(|of| (1..=of).map(move |index| Shard { index, of }));
    all.filter(|shard| !there.contains(shard)).map(|shard| format!("part {shard} of {column} is missing")).collect()
}

fn column_of(
    runs: &[Report],
    parts: &[(usize, &GatewayReport)],
    column: String,
    checks: &[CheckReport],
) -> GatewayReport {
    let finished = parts.iter().all(|(at, _)| !runs[*at].run.interrupted && runs[*at].run.error.is_none());
    let real = parts.iter().all(|(at, _)| runs[*at].run.place.is_real());
    let stand_ins: BTreeSet<&String> = parts.iter().flat_map(|(_, g)| &g.stand_ins).collect();
    let like = parts[0].1; // a cell is made of its parts, so that there is one
    GatewayReport {
        name: column,
        word: ending::word_of(real, finished, checks.iter()),
        totals: Totals::of(checks),
        stand_ins: stand_ins.into_iter().cloned().collect(),
        runs: parts.iter().flat_map(|(_, g)| g.runs.clone()).collect(),
        ..like.clone()
    }
}

/// The run as a whole. Runs are taken to have been beside each other: the longest of them is how long it took.
fn run_of(runs: &[Report], checks: &[CheckReport], word: super::Word) -> RunReport {
    let first = &runs[0].run; // `merge` refuses to merge nothing
    let each = |value: &dyn Fn(&RunReport) -> Option<String>| -> Vec<String> {
        runs.iter().filter_map(|r| value(&r.run)).collect::<BTreeSet<_>>().into_iter().collect()
    };
    let joined = |values: Vec<String>, between: &str| (!values.is_empty()).then(|| values.join(between));
    RunReport {
        statement: ending::statement(word, checks),
        profile: each(&|r| Some(r.profile.clone())).join(", "),
        models: runs.iter().flat_map(|r| r.run.models.clone()).collect::<BTreeSet<_>>().into_iter().collect(),
        started: runs.iter().map(|r| r.run.started.clone()).min().unwrap_or_default(),
        seconds: runs.iter().map(|r| r.run.seconds).fold(0.0, f64::max),
        context: joined(each(&|r| r.context.clone()), ", "),
        shard: None,
        strict: runs.iter().any(|r| r.run.strict),
        interrupted: runs.iter().any(|r| r.run.interrupted),
        error: joined(each(&|r| r.error.as_ref().map(|e| format!("{}: {e}", r.id))), "; "),
        egress: joined(each(&|r| r.egress.clone()), "; "),
        notes: runs.iter().flat_map(|r| r.run.notes.clone()).collect::<BTreeSet<_>>().into_iter().collect(),
        ..first.clone()
    }
}

/// Baseline entries, those of parts of one cell as one: what a part did not judge, another may have.
fn known(runs: &[Report], label: impl Fn(&GatewayReport) -> String) -> Vec<KnownReport> {
    let mut entries: BTreeMap<(String, u64), KnownReport> = BTreeMap::new();
    for run in runs {
        let columns: BTreeMap<&str, String> = run.gateways.iter().map(|g| (g.name.as_str(), label(g))).collect();
        for entry in &run.baseline {
            let column = columns.get(entry.gateway.as_str()).cloned().unwrap_or_else(|| entry.gateway.clone());
            let entry = KnownReport { gateway: column.clone(), ..entry.clone() };
            entries
                .entry((column, entry.line))
                .and_modify(|known| {
                    known.failed += entry.failed;
                    known.judged += entry.judged;
                    known.state = worse(known.state, entry.state);
                })
                .or_insert(entry);
        }
    }
    entries.into_values().collect()
}

fn worse(a: KnownState, b: KnownState) -> KnownState {
    let rank = |state: KnownState| match state {
        KnownState::NotJudged => 0,
        KnownState::Holds => 1,
        KnownState::Stale => 2,
        KnownState::Expired => 3,
    };
    if rank(a) >= rank(b) { a } else { b }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{super::Word, super::tests::World, *};
    use crate::plan::{Disposition, Level};

    fn run(id: &str, change: impl FnOnce(&mut World)) -> Report {
        let mut world = World::new();
        world.plan.run.id = id.into();
        world.check("tokens/exact", Level::Must);
        world.attempt("tokens/exact", 1, Verdict::Pass);
        change(&mut world);
        world.report()
    }

    /// One part of that run, with the other's check left out.
    fn part(index: u32, left_out: &str, change: impl FnOnce(&mut World)) -> Report {
        run(&format!("part-{index}"), |world| {
            world.plan.run.shard = Some(Shard { index, of: 2 });
            let reason = "in another part".to_owned();
            for check in world.plan.checks.iter_mut().filter(|c| c.check == left_out) {
                check.disposition = Disposition::NotRun { reason: reason.clone(), filtered: true };
            }
            world.records.records.retain(|r| r.key.check != left_out);
            change(world);
        })
    }

    fn merged(runs: &[Report]) -> Report {
        merge(runs, "m", &[], &[]).unwrap().report
    }

    fn expected(change: impl FnOnce(&mut Expected)) -> Expected {
        let mut cell = Expected {
            name: "gw-current".into(),
            gateway: "gw".into(),
            profile: "current".into(),
            model: "llm-d-sim".parse().unwrap(),
            on: PlaceName::Kind,
            shard: None,
        };
        change(&mut cell);
        cell
    }

    #[test]
    fn parts_of_a_run_are_a_whole_again() {
        let whole = run("whole", |_| ());
        let parts = [part(1, "tokens/exact", |_| ()), part(2, "routing/host", |_| ())];
        assert!(parts.iter().all(|p| p.run.word == Word::Partial), "a part alone claims nothing");
        let report = merged(&parts);
        assert_eq!((report.run.word, report.run.exit), (whole.run.word, 0), "{:?}", report.breaks);
        assert_eq!(report.totals, whole.totals);
        assert_eq!(report.gateways[0].name, "gw");
        let evidence: Vec<&str> = report.checks.iter().filter_map(|c| c.evidence.as_deref()).collect();
        assert_eq!(evidence, ["part-1/evidence/gw/routing/host/-/1", "part-2/evidence/gw/tokens/exact/-/1"]);
    }

    #[test]
    fn a_part_that_is_missing_is_an_error_and_never_a_pass() {
        let report = merged(&[part(1, "tokens/exact", |_| ())]);
        assert_eq!((report.run.exit, report.run.word), (3, Word::Partial), "{:?}", report.breaks);
        assert_eq!(report.problems, ["part 2/2 of gw is missing"]);
    }

    #[rstest]
    #[case::all_there(expected(|_| ()), 0)]
    #[case::another_gateway(expected(|e| e.gateway = "other".into()), 3)]
    #[case::another_profile(expected(|e| e.profile = "guide".into()), 3)]
    #[case::another_model(expected(|e| e.model = "echo".parse().unwrap()), 3)]
    #[case::another_place(expected(|e| e.on = PlaceName::Rehearsal), 3)]
    #[case::a_part(expected(|e| e.shard = Some(Shard { index: 1, of: 2 })), 3)]
    fn a_cell_without_a_run_is_an_error(#[case] cell: Expected, #[case] exit: u8) {
        let report = merge(&[run("a", |_| ())], "m", &[], &[cell]).unwrap().report;
        assert_eq!(report.run.exit, exit, "{:?}", report.problems);
        assert_eq!(report.problems.len(), usize::from(exit != 0));
    }

    #[test]
    fn cells_are_columns_that_say_what_tells_them_apart() {
        let cells = [
            run("a", |_| ()),
            run("b", |w| w.plan.run.profile = "guide".into()),
            run("c", |w| {
                w.plan.gateways[0].versions.insert("gw".into(), "v2.0.0".into());
            }),
        ];
        let report = merged(&cells);
        let columns: Vec<&str> = report.gateways.iter().map(|g| g.name.as_str()).collect();
        assert_eq!(columns, ["gw current gw v1.0.0", "gw current gw v2.0.0", "gw guide"]);
        assert_eq!((report.checks.len(), report.totals.pass), (6, 6));
    }

    #[test]
    fn a_failure_in_one_cell_is_the_failure_of_all() {
        let bad = run("b", |w| {
            w.plan.run.profile = "guide".into();
            w.records.records[0] =
                crate::record::tests_support::record(super::super::tests::key("routing/host", 1), Verdict::Fail);
        });
        let report = merged(&[run("a", |_| ()), bad]);
        assert_eq!((report.run.exit, report.run.word), (1, Word::Nonconformant));
        assert_eq!(report.breaks, ["gw guide: 1 failed"]);
    }

    #[test]
    fn a_broken_cell_is_no_conformance() {
        let broken = run("b", |w| {
            w.plan.run.profile = "guide".into();
            w.ending = super::super::Ending::Broken("kserve was not installed".into());
        });
        let report = merged(&[run("a", |_| ()), broken]);
        assert_eq!((report.run.exit, report.run.word), (3, Word::Partial));
        assert_eq!(report.breaks, ["gw guide: kserve was not installed"]);
    }

    #[test]
    fn the_same_check_twice_is_refused() {
        let error = merge(&[run("a", |_| ()), run("b", |_| ())], "m", &[], &[]).unwrap_err().to_string();
        assert_eq!(error, "failed to merge: a and b both ran routing/host on gw; give one of them");
    }

    #[test]
    fn a_stand_in_is_not_merged_with_a_gateway() {
        let rehearsed = run("b", |w| w.plan.run.place = PlaceName::Rehearsal);
        let error = merge(&[run("a", |_| ()), rehearsed], "m", &[], &[]).unwrap_err().to_string();
        assert!(error.contains("a ran on kind, b on rehearsal"), "{error}");
        assert_eq!(merge(&[], "m", &[], &[]), Err(MergeError::Nothing));
    }

    #[test]
    fn what_one_part_did_not_judge_another_has() {
        let known = |w: &mut World| w.known("check: routing/host");
        let report = merged(&[part(1, "tokens/exact", known), part(2, "routing/host", known)]);
        assert_eq!(report.baseline.len(), 1);
        assert_eq!((report.baseline[0].state, report.baseline[0].judged), (KnownState::Stale, 1));
        assert_eq!(report.run.exit, 1);
    }
}

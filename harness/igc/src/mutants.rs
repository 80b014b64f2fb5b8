//! `mutants`: every mutant of the rehearsal on every gateway that it fits, against the checks that are to show it.
//!
//! The suites' test binary tries a case of a check on the gateway as it is and then on mutants of it, in one process. A cell
//! (mutant, check and gateway) goes on to the next case, round by round, until the mutant is killed there.

mod kills;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;

use cluster::environment::{Environment, GatewayEnvironment};
use cluster::install::profile::{Profile, RECORDED, Selection};
use cluster::{gateway::GatewayFolder, install::component::Catalogue, place::Place as _};
use globset::GlobSet;
use rehearsal::mutants::Mutant;
use shipped::Root;
use tokio_util::sync::CancellationToken;
use verdict::baseline::{Baseline, Reality};
use verdict::plan::{Disposition, Level, Plan, PlannedCheck, RunInfo, Trials, build};
use verdict::record::{Record, Verdict};
use verdict::requirements::{Requirement, Requirements};
use verdict::{folder::RunFolder, invariant::PREFIX, judge::Holds, names, tests_list::TestList};

use self::kills::{Absence, Cell, Outcome, Role, results, table};
use crate::suites::{Ended, Suites};
use crate::{
    failure::Failure,
    options::{self, globs},
    plan,
    rehearsed::Rehearsal,
};

/// Runs the mutants. The exit code is 1 where one is not killed, or a check kills nothing.
pub async fn mutants(root: &Root, options: &options::Mutants, cancel: &CancellationToken) -> Result<u8, Failure> {
    let suites = Suites::find(root)?;
    let requirements = suites.requirements().await?;
    let mut gateways = plan::gateways(root, plan::ALL)?;
    gateways.retain(|gateway| Rehearsal.lacks(&gateway.name).is_none());
    let whole = everything(root, &gateways, RECORDED, &requirements, &suites.tests().await?)?;
    let out = options.out.clone().unwrap_or_else(|| root.target().join("mutants"));
    let known = known_failures(root, &whole)?;
    let (mut cells, absent) = cells(&requirements, &whole, &known, options)?;
    let folder = out.join("rounds");
    _ = std::fs::remove_dir_all(&folder); // those of the run before
    for round in 1.. {
        let next = next(&mut cells, options.once);
        if next.is_empty() {
            break;
        }
        eprintln!("round {round}: {} tries", next.len());
        let plan = plan_of(&whole, &cells, &next, options);
        let run = RunFolder::create(&folder, &format!("round-{round}"))?;
        if !drive(root, &suites, &run, &plan, options, cancel).await? {
            return Ok(130);
        }
        let records = run.read_records()?.records;
        for (at, case) in next {
            let outcome = outcome(&records, &cells[at], &case);
            cells[at].outcomes.push((case, outcome));
        }
    }
    let results = results(&requirements, &cells, &absent);
    std::fs::create_dir_all(&out)?;
    std::fs::write(out.join("mutants.json"), serde_json::to_string_pretty(&results)? + "\n")?;
    let table = table(&results);
    std::fs::write(out.join("mutants.txt"), &table)?;
    print!("{table}");
    Ok(u8::from(!results.holds()))
}

pub fn everything(
    root: &Root,
    gateways: &[GatewayFolder],
    profile: &str,
    requirements: &Requirements,
    tests: &TestList,
) -> Result<Plan, Failure> {
    let catalogue = Catalogue::read(&root.manifests()).map_err(Failure::usage)?;
    let versions = Profile::read(&root.manifests(), profile).map_err(Failure::usage)?;
    let mut planned = Vec::new();
    for folder in gateways {
        let selection = Selection::of(&catalogue, &versions, &folder.components).map_err(Failure::usage)?;
        planned.push(selection.plan(folder, None).map_err(Failure::usage)?);
    }
    let run = RunInfo::rehearsal(profile, &["cargo", "xtask", "mutants"]);
    build(requirements, planned, run, tests).map_err(Failure::usage)
}

/// The cases that are known to fail on a gateway as it is; without a case, all of a check.
type Known = BTreeSet<(String, String, Option<String>)>;

fn known_failures(root: &Root, whole: &Plan) -> Result<Known, Failure> {
    let mut known = Known::new();
    for gateway in &whole.gateways {
        let baseline = Baseline::find(&root.goldens(), &gateway.name).map_err(Failure::usage)?;
        for entry in baseline.entries.into_iter().filter(|e| e.is_seen_in(Reality::Rehearsal)) {
            known.insert((gateway.name.clone(), entry.check, entry.case));
        }
    }
    Ok(known)
}

/// Why nothing can try a mutant on a gateway.
type Absent = BTreeMap<(Mutant, String), Absence>;

/// The cells that are asked for, each with its cases: first where the check is not known to fail.
fn cells(
    requirements: &Requirements,
    whole: &Plan,
    known: &Known,
    options: &options::Mutants,
) -> Result<(Vec<Cell>, Absent), Failure> {
    let named = named(requirements)?;
    let wanted = wanted(&options.only)?;
    let fails = |c: &&PlannedCheck| {
        let case = |case: Option<String>| known.contains(&(c.gateway.clone(), c.check.clone(), case));
        case(None) || case(Some(c.case.clone()))
    };
    let (mut cells, mut absent) = (Vec::new(), Absent::new());
    for mutant in Mutant::all().filter(|m| wanted.is_match(m.name())) {
        let mut roles: Vec<(&Requirement, Role)> = Vec::new();
        let carried = mutant.carriers().iter().filter_map(|check| requirements.get(check));
        let names = requirements.checks.iter().filter(|r| named.contains(&(r.check.as_str(), mutant)));
        roles.extend(names.map(|r| (r, Role::Named)));
        roles.extend(carried.map(|r| (r, Role::Carrier)));
        for gateway in &whole.gateways {
            let before = cells.len();
            for (requirement, role) in &roles {
                let mut cases: Vec<&PlannedCheck> = cases_of(whole, requirement, &gateway.name).collect();
                cases.sort_by_key(fails);
                let cases = cases.into_iter().map(|c| c.case.clone()).collect();
                cells.extend(Cell::new(mutant, requirement, &gateway.name, *role, cases));
            }
            if cells.len() == before {
                let of = roles.iter().map(|(requirement, _)| *requirement);
                absent.insert((mutant, gateway.name.clone()), absence(whole, of, &gateway.name));
            }
        }
        let others = requirements.checks.iter().filter(|r| options.broad && r.level != Level::Info);
        for other in others.filter(|r| roles.iter().all(|(role, _)| role.check != r.check)) {
            let first = whole.gateways.iter().find_map(|g| cases_of(whole, other, &g.name).min_by_key(fails));
            let cell =
                |c: &PlannedCheck| Cell::new(mutant, other, &c.gateway, Role::Broad, VecDeque::from([c.case.clone()]));
            cells.extend(first.and_then(cell));
        }
    }
    Ok((cells, absent))
}

fn cases_of<'p>(
    whole: &'p Plan,
    requirement: &'p Requirement,
    gateway: &'p str,
) -> impl Iterator<Item = &'p PlannedCheck> {
    whole.checks.iter().filter(move |c| c.runs() && c.check == requirement.check && c.gateway == gateway)
}

/// A mutant does not fit a gateway where all checks that show it are unsupported there, or about another one.
fn absence<'r>(whole: &Plan, showing: impl Iterator<Item = &'r Requirement>, gateway: &str) -> Absence {
    let mut said = Vec::new();
    let mut is_left_out = true;
    for requirement in showing {
        let about_others = !requirement.gateways.is_empty() && !requirement.gateways.iter().any(|g| g == gateway);
        if about_others {
            said.push(format!("{} is about {}", requirement.check, requirement.gateways.join(", ")));
        }
        for planned in whole.checks.iter().filter(|c| c.check == requirement.check && c.gateway == gateway) {
            let reason = match &planned.disposition {
                Disposition::Run => continue,
                Disposition::Unsupported { reason } => reason,
                Disposition::NotRun { reason, .. } => {
                    is_left_out = false;
                    reason
                }
            };
            said.push(format!("{}: {reason}", requirement.check));
        }
    }
    said.dedup();
    Absence { is_left_out: is_left_out && !said.is_empty(), reason: said.join("; ") }
}

/// Which check names which mutant; a name that is none, or a mutant that nobody names, is a mistake. What is only told and
/// never fails (INFO) does not count.
fn named(requirements: &Requirements) -> Result<BTreeSet<(&str, Mutant)>, Failure> {
    let mut named = BTreeSet::new();
    for requirement in requirements.checks.iter().filter(|r| r.level != Level::Info) {
        for name in &requirement.kills {
            let Some(mutant) = Mutant::named(name) else {
                let near = names::near(name, Mutant::all().map(Mutant::name));
                return Err(Failure::Usage(format!(
                    "{} kills {name}, and there is no such mutant{}",
                    requirement.check,
                    names::suggestion(&near)
                )));
            };
            named.insert((requirement.check.as_str(), mutant));
        }
    }
    for mutant in Mutant::all() {
        let name = mutant.name();
        if let Some(carrier) = mutant.carriers().iter().find(|check| requirements.get(check).is_none()) {
            let near = names::near(carrier, requirements.checks.iter().map(|r| r.check.as_str()));
            return Err(Failure::Usage(format!(
                "the mutant {name} is carried by {carrier}, and there is no such check{}",
                names::suggestion(&near)
            )));
        }
        if mutant.carriers().is_empty() && named.iter().all(|(_, named)| *named != mutant) {
            return Err(Failure::Usage(format!(
                "no check names the mutant {name}; add it to the `kills` of one, or the checks that carry it to its row"
            )));
        }
    }
    Ok(named)
}

fn wanted(only: &[String]) -> Result<GlobSet, Failure> {
    for name in only {
        let named = globs("--only", std::slice::from_ref(name))?;
        if !Mutant::all().any(|m| named.is_match(m.name())) {
            let near = names::near(name, Mutant::all().map(Mutant::name));
            return Err(Failure::Usage(format!("--only {name:?} matches no mutant{}", names::suggestion(&near))));
        }
    }
    globs("--only", only)
}

/// The next case of every cell that goes on. Carriers take turns, on each gateway until one of them kills; with `once` all
/// cells do.
fn next(cells: &mut [Cell], once: bool) -> Vec<(usize, String)> {
    let on = |c: &Cell| (c.mutant, c.gateway.clone());
    let mut served: BTreeSet<(Mutant, String)> = cells.iter().filter(|c| c.counts() && c.kills()).map(on).collect();
    let mut next = Vec::new();
    for (at, cell) in cells.iter_mut().enumerate() {
        let takes_turns = once || cell.role == Role::Carrier;
        if cell.is_done() || takes_turns && served.contains(&on(cell)) {
            continue;
        }
        if let Some(case) = cell.left.pop_front() {
            next.push((at, case));
            if takes_turns {
                served.insert(on(cell));
            }
        }
    }
    next
}

/// The plan of one round: the checks that are tried, each once for all its mutants.
fn plan_of(whole: &Plan, cells: &[Cell], next: &[(usize, String)], options: &options::Mutants) -> Plan {
    let mut trials: BTreeMap<(&str, &str, &str), Vec<String>> = BTreeMap::new();
    for (at, case) in next {
        let cell = &cells[*at];
        trials.entry((&cell.gateway, &cell.check, case)).or_default().push(cell.mutant.name().to_owned());
    }
    let mut plan = whole.clone();
    plan.checks.retain(|c| trials.contains_key(&(c.gateway.as_str(), c.check.as_str(), c.case.as_str())));
    plan.run.jobs = options.jobs;
    plan.run.trials = trials
        .into_iter()
        .map(|((gateway, check, case), mutants)| Trials {
            gateway: gateway.to_owned(),
            check: check.to_owned(),
            case: case.to_owned(),
            mutants,
        })
        .collect();
    plan
}

/// Has the suites' test binary try the plan. `false`: it was interrupted.
async fn drive(
    root: &Root,
    suites: &Suites,
    run: &RunFolder,
    plan: &Plan,
    options: &options::Mutants,
    cancel: &CancellationToken,
) -> Result<bool, Failure> {
    let mut plan = plan.clone();
    plan.run.id = run.id().to_owned();
    run.write_plan(&plan)?;
    let mut environment = Environment::default();
    for gateway in &plan.gateways {
        environment
            .gateways
            .insert(gateway.name.clone(), GatewayEnvironment::rehearsed(&root.manifests(), &gateway.versions)?);
    }
    run.write_environment(&environment)?;
    let log = File::create(run.path().join("tests.log"))?;
    let mut command = suites.checks();
    command.args(["--test-threads", &options.jobs.to_string()]).env("IGC_RUN", run.path());
    command.stdout(log.try_clone()?).stderr(log);
    // What came of it is in the records.
    Ok(suites.run(&mut command, run.path(), cancel).await? != Ended::Interrupted)
}

fn outcome(records: &[Record], cell: &Cell, case: &str) -> Outcome {
    let tried: Vec<_> = records
        .iter()
        .filter(|r| {
            let key = &r.key;
            (key.gateway.as_str(), key.check.as_str(), key.case.as_str()) == (&cell.gateway, &cell.check, case)
        })
        .filter_map(|r| Some((r, r.trial.as_ref()?)))
        .collect();
    let without = tried.iter().rfind(|(_, t)| t.mutant.is_none()).map(|(record, _)| *record);
    let mutated = tried.iter().find(|(_, t)| t.mutant.as_deref() == Some(cell.mutant.name()));
    let (Some(without), Some((mutated, trial))) = (without, mutated) else {
        return Outcome::NoRecord;
    };
    let why = format!("{}: {}", mutated.verdict.word(), mutated.reason);
    if !trial.reached {
        return Outcome::Unreached(why);
    }
    if mutated.verdict != Verdict::Fail {
        return Outcome::Survived(why);
    }
    // Where the check fails without the mutant, only what holds there tells of it.
    let holds = |name: &str| {
        let mut named = without.clauses.iter().filter(|c| c.name == name).peekable();
        match name.starts_with(PREFIX) {
            true => matches!(without.verdict, Verdict::Pass | Verdict::Fail) && named.peek().is_none(),
            false => named.peek().is_some() && named.all(|c| c.holds == Holds::Yes),
        }
    };
    let falses = || {
        let names = mutated.clauses.iter().filter(|c| c.holds == Holds::No).map(|c| c.name.as_str());
        names.filter(|name| without.verdict == Verdict::Pass || holds(name))
    };
    let invariants: BTreeSet<String> = falses()
        .filter(|clause| cell.mutant.carriers().is_empty() || cell.mutant.shows_in(clause))
        .filter_map(|clause| clause.strip_prefix(PREFIX))
        .map(str::to_owned)
        .collect();
    let own = falses().find(|clause| !clause.starts_with(PREFIX) && cell.mutant.shows_in(clause));
    match own {
        None if invariants.is_empty() && without.verdict != Verdict::Pass => {
            Outcome::FailsWithout(without.reason.clone())
        }
        None if invariants.is_empty() => Outcome::WrongReason(falses().collect::<Vec<_>>().join(", ")),
        own => Outcome::Killed { clause: own.map(str::to_owned), invariants },
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use verdict::history::Key;
    use verdict::judge::Clause;
    use verdict::record::Trial;

    use super::*;

    fn drops_done() -> Mutant {
        Mutant::named("drops-done").expect("a mutant")
    }

    /// Requirements of which the first names every mutant; `level` is that of the second, which names one as well.
    fn requirements(level: &str) -> Requirements {
        let all: Vec<&str> = Mutant::all().map(Mutant::name).filter(|n| *n != "drops-done").collect();
        let text = format!(
            "checks:\n\
             - {{check: routing/all, level: MUST, sentence: s, source: t, kills: [{}]}}\n\
             - {{check: streaming/end, level: {level}, sentence: s, source: t, kills: [drops-done]}}\n",
            all.join(", ")
        );
        let carriers: BTreeSet<&str> = Mutant::all().flat_map(|m| m.carriers()).copied().collect();
        let row = |check: &str| format!("- {{check: {check}, level: MUST, sentence: s, source: t}}\n");
        let text = text + &carriers.into_iter().map(row).collect::<String>();
        Requirements::parse(&text).unwrap()
    }

    #[rstest]
    #[case("MUST", true)]
    #[case("SHOULD", true)]
    #[case("INFO", false)]
    fn what_is_only_told_names_no_mutant(#[case] level: &str, #[case] counts: bool) {
        let requirements = requirements(level);
        match named(&requirements) {
            Ok(named) => assert!(counts && named.contains(&("streaming/end", drops_done()))),
            Err(failure) => {
                let said = failure.to_string();
                assert!(!counts && said.contains("no check names the mutant drops-done"), "{said}");
            }
        }
    }

    fn cell(gateway: &str, check: &str, role: Role) -> Cell {
        let requirements = requirements("MUST");
        let requirement = requirements.get(check).unwrap();
        let cases = VecDeque::from(["one".to_owned(), "two".to_owned()]);
        Cell::new(drops_done(), requirement, gateway, role, cases).unwrap()
    }

    fn record(mutant: Option<&str>, reached: bool, verdict: Verdict, falses: &[&str]) -> Record {
        let (gateway, check, case) = ("agw".to_owned(), "streaming/end".to_owned(), "one".to_owned());
        let clause = |name: &&str| Clause {
            name: (*name).to_owned(),
            holds: Holds::No,
            expected: "e".into(),
            got: "g".into(),
            exchanges: vec![],
            subject: None,
        };
        Record {
            verdict,
            reason: "r".into(),
            clauses: falses.iter().map(clause).collect(),
            trial: Some(Trial { mutant: mutant.map(str::to_owned), mended: false, reached }),
            ..Record::new(Key { gateway, check, case, attempt: 1 })
        }
    }

    fn killed(clause: Option<&str>, invariants: &[&str]) -> Outcome {
        let invariants = invariants.iter().map(|name| (*name).to_owned()).collect();
        Outcome::Killed { clause: clause.map(str::to_owned), invariants }
    }

    const OWN: &str = "tokens-ends-with-done";

    #[rstest]
    #[case::by_its_clause(true, Verdict::Fail, &["other", OWN], killed(Some(OWN), &[]))]
    #[case::by_an_invariant(true, Verdict::Fail, &["invariant/own-reply"], killed(None, &["own-reply"]))]
    #[case::by_both(true, Verdict::Fail, &[OWN, "invariant/own-reply"], killed(Some(OWN), &["own-reply"]))]
    #[case::for_another_reason(true, Verdict::Fail, &["other"], Outcome::WrongReason("other".into()))]
    #[case::an_error_is_no_kill(true, Verdict::Error, &[OWN], Outcome::Survived("error: r".into()))]
    #[case::nor_is_what_is_unproven(true, Verdict::Unproven, &[], Outcome::Survived("unproven: r".into()))]
    #[case::passed(true, Verdict::Pass, &[], Outcome::Survived("pass: r".into()))]
    #[case::never_acted(false, Verdict::Fail, &[OWN], Outcome::Unreached("fail: r".into()))]
    fn what_a_trial_says(
        #[case] reached: bool,
        #[case] verdict: Verdict,
        #[case] falses: &[&str],
        #[case] expected: Outcome,
    ) {
        let records = [record(None, false, Verdict::Pass, &[]), record(Some("drops-done"), reached, verdict, falses)];
        assert_eq!(outcome(&records, &cell("agw", "streaming/end", Role::Named), "one"), expected);
    }

    /// A clause tells of a mutant where it holds without it, whatever else is wrong with the gateway.
    #[rstest]
    #[case::it_holds(Verdict::Fail, &[("other", Holds::No), (OWN, Holds::Yes)], killed(Some(OWN), &["own-reply"]))]
    #[case::it_does_not(Verdict::Fail, &[(OWN, Holds::No), ("invariant/own-reply", Holds::No)], Outcome::FailsWithout("r".into()))]
    #[case::nor_is_it_known(Verdict::Fail, &[(OWN, Holds::Unproven), ("invariant/own-reply", Holds::No)], Outcome::FailsWithout("r".into()))]
    #[case::nothing_was_judged(Verdict::Error, &[], Outcome::FailsWithout("r".into()))]
    fn what_fails_without_the_mutant_says_nothing(
        #[case] verdict: Verdict,
        #[case] without: &[(&str, Holds)],
        #[case] expected: Outcome,
    ) {
        let mut first = record(None, false, verdict, &without.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        first.clauses.iter_mut().zip(without).for_each(|(clause, (_, holds))| clause.holds = *holds);
        let records = [first, record(Some("drops-done"), true, Verdict::Fail, &["other", OWN, "invariant/own-reply"])];
        assert_eq!(outcome(&records, &cell("agw", "streaming/end", Role::Named), "one"), expected);
    }

    #[test]
    fn what_left_no_record_says_nothing() {
        let cell = cell("agw", "streaming/end", Role::Named);
        let alone = [record(None, false, Verdict::Pass, &[])];
        assert_eq!(
            [("one", &alone[..]), ("two", &alone), ("one", &[])].map(|(case, records)| outcome(records, &cell, case)),
            [const { Outcome::NoRecord }; 3]
        );
    }

    /// Which cells are tried in each round, where the trials of `killing` kill.
    #[rstest]
    #[case::each_until_it_kills(Role::Named, false, killed(Some(OWN), &[]), &[vec![0, 1, 2], vec![1, 2], vec![]])]
    #[case::an_invariant_is_not_the_check(Role::Named, false, killed(None, &["own-reply"]), &[vec![0, 1, 2], vec![0, 1, 2], vec![]])]
    #[case::once_for_each_gateway(Role::Named, true, killed(None, &["own-reply"]), &[vec![0, 2], vec![2], vec![]])]
    #[case::carriers_in_order(Role::Carrier, false, killed(None, &["own-reply"]), &[vec![0, 2], vec![2], vec![]])]
    fn rounds(#[case] role: Role, #[case] once: bool, #[case] kill: Outcome, #[case] expected: &[Vec<usize>]) {
        let mut cells =
            [cell("agw", "streaming/end", role), cell("agw", "routing/all", role), cell("eag", "streaming/end", role)];
        for round in expected {
            let tries = next(&mut cells, once);
            assert_eq!(tries.iter().map(|(at, _)| *at).collect::<Vec<_>>(), *round);
            for (at, case) in tries {
                let outcome = if at == 0 { kill.clone() } else { Outcome::Survived("pass: r".into()) };
                cells[at].outcomes.push((case, outcome));
            }
        }
    }

    #[rstest]
    #[case::unsupported(&[], Disposition::Unsupported { reason: "it has none".into() }, true, "streaming/end: it has none")]
    #[case::about_another(&["eag"], Disposition::Run, true, "streaming/end is about eag")]
    #[case::not_run(&[], Disposition::NotRun { reason: "slow".into(), filtered: false }, false, "streaming/end: slow")]
    #[case::nothing_shows_it(&[], Disposition::Run, false, "")]
    fn left_out_only_where_it_is_unsupported(
        #[case] gateways: &[&str],
        #[case] disposition: Disposition,
        #[case] is_left_out: bool,
        #[case] reason: &str,
    ) {
        let mut requirements = requirements("MUST");
        let requirement = &mut requirements.checks[1];
        requirement.gateways = gateways.iter().map(|name| (*name).to_owned()).collect();
        let text = format!(
            r#"{{"gateway": "agw", "check": "streaming/end", "case": "-", "level": "MUST", "sentence": "s", "source": "t",
                "capability": null, "model": "echo", "counts_every_answer": false, "exclusive": "shared",
                "disposition": {}}}"#,
            serde_json::to_string(&disposition).unwrap()
        );
        let mut plan = Plan {
            schema: String::new(),
            run: RunInfo::rehearsal("recorded", &["test"]),
            gateways: vec![],
            checks: vec![serde_json::from_str(&text).unwrap()],
        };
        if requirement.gateways.is_empty() && disposition == Disposition::Run {
            plan.checks.clear();
        }
        let absence = absence(&plan, [&*requirement].into_iter(), "agw");
        assert_eq!((absence.is_left_out, absence.reason.as_str()), (is_left_out, reason));
    }
}

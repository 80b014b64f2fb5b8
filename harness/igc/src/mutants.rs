//! `mutants`: every mutant of the rehearsal against the checks that are to kill it, and what came of each.
//!
//! The suites' test binary tries a case of a check on the gateway as it is and then on mutants of it, in one process. A pair
//! of mutant and check goes on to the next case or gateway, round by round, until the mutant is killed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;

use cluster::environment::{Environment, GatewayEnvironment};
use cluster::install::profile::{Profile, RECORDED, Selection};
use cluster::{gateway::GatewayFolder, install::component::Catalogue, place::Place as _};
use globset::GlobSet;
use rehearsal::mutants::Mutant;
use serde::Serialize;
use shipped::Root;
use tokio_util::sync::CancellationToken;
use verdict::baseline::{Baseline, Reality};
use verdict::plan::{Level, Plan, PlannedCheck, RunInfo, Trials, build};
use verdict::record::{Record, Verdict};
use verdict::{folder::RunFolder, judge::Holds, names, requirements::Requirements, tests_list::TestList};

use crate::suites::{Ended, Suites};
use crate::{
    failure::Failure,
    options::{self, globs},
    plan,
    rehearsed::Rehearsal,
};

type CaseOnGateway = (String, String);

struct Pair {
    mutant: Mutant,
    check: String,
    /// Whether the requirement names the mutant; else it is tried to see whether it kills what it should not.
    named: bool,
    left: VecDeque<CaseOnGateway>,
    outcomes: Vec<(CaseOnGateway, Outcome)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// The check failed with the mutant, and passed without it: the clause that shows it.
    Killed(String),
    /// The same, but for another clause than the mutant breaks.
    WrongReason(String),
    /// The check passed, or could not tell: its verdict and reason.
    Survived(String),
    Unreached(String),
    /// The check fails without the mutant, also on a mended gateway: nothing can be said.
    FailsWithout(String),
    NoRecord,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Killed,
    Survived,
    Void,
}

/// `mutants.json`.
#[derive(Debug, Serialize)]
struct Results {
    mutants: Vec<Row>,
    toothless: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    state: State,
    killed_by: Vec<String>,
    violates: &'static str,
    /// Checks that name it and did not kill it, with what came of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    missed: BTreeMap<String, String>,
    /// Checks that failed although they do not name it, or for another clause than it breaks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unexpected: BTreeMap<String, String>,
}

/// Runs the mutants. The exit code is 1 where one is not killed, or a check kills nothing.
pub async fn mutants(root: &Root, options: &options::Mutants, cancel: &CancellationToken) -> Result<u8, Failure> {
    let suites = Suites::find(root)?;
    let requirements = suites.requirements().await?;
    let mut gateways = plan::gateways(root, plan::ALL)?;
    gateways.retain(|gateway| Rehearsal.lacks(&gateway.name).is_none());
    let whole = everything(root, &gateways, RECORDED, &requirements, &suites.tests().await?)?;
    let out = options.out.clone().unwrap_or_else(|| root.target().join("mutants"));
    let mut pairs = pairs(root, &requirements, &whole, options)?;
    let folder = out.join("rounds");
    _ = std::fs::remove_dir_all(&folder); // those of the run before
    for round in 1.. {
        let next = next(&mut pairs, options.once);
        if next.is_empty() {
            break;
        }
        eprintln!("round {round}: {} tries", next.len());
        let plan = plan_of(&whole, &pairs, &next, options);
        let run = RunFolder::create(&folder, &format!("round-{round}"))?;
        if !drive(root, &suites, &run, &plan, options, cancel).await? {
            return Ok(130);
        }
        let records = run.read_records()?.records;
        for (at, place) in next {
            let outcome = outcome(&records, &pairs[at], &place);
            pairs[at].outcomes.push((place, outcome));
        }
    }
    let results = results(&requirements, &pairs);
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

/// The pairs that are asked for, each with all that it may be tried on: first where the check is not known to fail.
fn pairs(
    root: &Root,
    requirements: &Requirements,
    whole: &Plan,
    options: &options::Mutants,
) -> Result<Vec<Pair>, Failure> {
    let named = named(requirements)?;
    let wanted = wanted(&options.only)?;
    let mut fails = BTreeSet::new();
    for gateway in &whole.gateways {
        let baseline = Baseline::find(&root.goldens(), &gateway.name).map_err(Failure::usage)?;
        for entry in baseline.entries.into_iter().filter(|e| e.is_seen_in(Reality::Rehearsal)) {
            fails.insert((gateway.name.clone(), entry.check, entry.case));
        }
    }
    let known = |c: &PlannedCheck| {
        let case = |case: Option<String>| fails.contains(&(c.gateway.clone(), c.check.clone(), case));
        case(None) || case(Some(c.case.clone()))
    };
    let mut pairs = Vec::new();
    for mutant in Mutant::all().filter(|m| wanted.is_match(m.name())) {
        for requirement in &requirements.checks {
            let is_named = named.contains(&(requirement.check.as_str(), mutant));
            let mut places: Vec<&PlannedCheck> =
                whole.checks.iter().filter(|c| c.runs() && c.check == requirement.check).collect();
            places.sort_by_key(|c| known(c));
            if !is_named {
                places.truncate(usize::from(options.broad && requirement.level != Level::Info));
            }
            if !places.is_empty() {
                pairs.push(Pair {
                    mutant,
                    check: requirement.check.clone(),
                    named: is_named,
                    left: places.into_iter().map(|c| (c.gateway.clone(), c.case.clone())).collect(),
                    outcomes: vec![],
                });
            }
        }
    }
    Ok(pairs)
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
    match Mutant::all().find(|mutant| named.iter().all(|(_, named)| named != mutant)) {
        Some(mutant) => {
            let name = mutant.name();
            Err(Failure::Usage(format!("no check names the mutant {name}; add it to the `kills` of one")))
        }
        None => Ok(named),
    }
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

/// The next try of every pair that has not killed yet; `once`: of one pair of every mutant that nobody has killed yet.
fn next(pairs: &mut [Pair], once: bool) -> Vec<(usize, CaseOnGateway)> {
    let mut served: BTreeSet<Mutant> = pairs.iter().filter(|p| once && p.has_killed()).map(|p| p.mutant).collect();
    let mut next = Vec::new();
    for (at, pair) in pairs.iter_mut().enumerate() {
        if pair.has_killed() || served.contains(&pair.mutant) {
            continue;
        }
        if let Some(place) = pair.left.pop_front() {
            next.push((at, place));
            if once {
                served.insert(pair.mutant);
            }
        }
    }
    next
}

/// The plan of one round: the checks that are tried, each once for all its mutants.
fn plan_of(whole: &Plan, pairs: &[Pair], next: &[(usize, CaseOnGateway)], options: &options::Mutants) -> Plan {
    let mut trials: BTreeMap<(&str, &str, &str), Vec<String>> = BTreeMap::new();
    for (at, (gateway, case)) in next {
        let pair = &pairs[*at];
        trials.entry((gateway, &pair.check, case)).or_default().push(pair.mutant.name().to_owned());
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

fn outcome(records: &[Record], pair: &Pair, (gateway, case): &CaseOnGateway) -> Outcome {
    let tried: Vec<_> = records
        .iter()
        .filter(|r| (&r.key.gateway, &r.key.check, &r.key.case) == (gateway, &pair.check, case))
        .filter_map(|r| Some((r, r.trial.as_ref()?)))
        .collect();
    let Some((mutated, trial)) = tried.iter().find(|(_, t)| t.mutant.as_deref() == Some(pair.mutant.name())) else {
        let without = tried.iter().rfind(|(_, t)| t.mutant.is_none());
        return without.map_or(Outcome::NoRecord, |(record, _)| Outcome::FailsWithout(record.reason.clone()));
    };
    let why = format!("{}: {}", mutated.verdict.word(), mutated.reason);
    if !trial.reached {
        return Outcome::Unreached(why);
    }
    if mutated.verdict != Verdict::Fail {
        return Outcome::Survived(why);
    }
    let falses = || mutated.clauses.iter().filter(|c| c.holds == Holds::No);
    match falses().find(|c| pair.mutant.shows_in(&c.name)) {
        Some(clause) => Outcome::Killed(clause.name.clone()),
        None => Outcome::WrongReason(falses().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")),
    }
}

impl Outcome {
    fn describe(&self) -> String {
        match self {
            Outcome::Killed(clause) => format!("killed by {clause}"),
            Outcome::WrongReason(clauses) => format!("failed for another reason: {clauses}"),
            Outcome::Survived(why) => format!("survived, {why}"),
            Outcome::Unreached(why) => format!("never acted, {why}"),
            Outcome::FailsWithout(why) => format!("fails without it as well, {why}"),
            Outcome::NoRecord => "left no record".to_owned(),
        }
    }
}

impl Pair {
    fn killed(&self) -> Option<String> {
        self.outcomes.iter().find_map(|((gateway, case), outcome)| match outcome {
            Outcome::Killed(clause) if case == "-" => Some(format!("{clause} on {gateway}")),
            Outcome::Killed(clause) => Some(format!("{clause}, {case} on {gateway}")),
            _ => None,
        })
    }

    fn has_killed(&self) -> bool {
        self.killed().is_some()
    }

    fn describe(&self) -> String {
        let words: Vec<String> = self
            .outcomes
            .iter()
            .map(|((gateway, case), outcome)| format!("{gateway} {case}: {}", outcome.describe()))
            .collect();
        words.join("; ")
    }
}

fn results(requirements: &Requirements, pairs: &[Pair]) -> Results {
    let tried = |mutant: Mutant| pairs.iter().filter(move |p| p.mutant == mutant && !p.outcomes.is_empty());
    let mutants = Mutant::all().filter(|m| tried(*m).next().is_some()).map(|mutant| {
        let named = || tried(mutant).filter(|p| p.named);
        let acted = named()
            .flat_map(|p| &p.outcomes)
            .any(|(_, o)| matches!(o, Outcome::Killed(_) | Outcome::WrongReason(_) | Outcome::Survived(_)));
        let state = match (named().any(Pair::has_killed), acted) {
            (true, _) => State::Killed,
            (false, true) => State::Survived,
            (false, false) => State::Void,
        };
        let fails =
            |p: &&Pair| p.outcomes.iter().any(|(_, o)| matches!(o, Outcome::Killed(_) | Outcome::WrongReason(_)));
        let with_outcomes = |p: &Pair| (p.check.clone(), p.describe());
        Row {
            name: mutant.name(),
            state,
            killed_by: named().filter(|p| p.has_killed()).map(|p| p.check.clone()).collect(),
            violates: mutant.sentence(),
            missed: named().filter(|p| !p.has_killed()).map(with_outcomes).collect(),
            unexpected: tried(mutant).filter(|p| !p.named).filter(fails).map(with_outcomes).collect(),
        }
    });
    let toothless = requirements.checks.iter().filter(|r| {
        let mut own = pairs.iter().filter(|p| p.named && p.check == r.check).peekable();
        own.peek().is_some() && own.all(|p| !p.has_killed() && !p.outcomes.is_empty())
    });
    Results { mutants: mutants.collect(), toothless: toothless.map(|r| r.check.clone()).collect() }
}

impl Results {
    fn holds(&self) -> bool {
        self.toothless.is_empty() && self.mutants.iter().all(|m| m.state == State::Killed && m.missed.is_empty())
    }
}

fn table(results: &Results) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let width = results.mutants.iter().map(|m| m.name.len()).max().unwrap_or(0);
    for row in &results.mutants {
        let state = format!("{:?}", row.state).to_lowercase();
        _ = writeln!(text, "{:<width$}  {state:<8}  {}", row.name, row.killed_by.join(", "));
        for (check, words) in &row.missed {
            _ = writeln!(text, "{:width$}  missed    {check}: {words}", "");
        }
        for (check, words) in &row.unexpected {
            _ = writeln!(text, "{:width$}  besides   {check}: {words}", "");
        }
    }
    let of = |state| results.mutants.iter().filter(|m| m.state == state).count();
    let missed: usize = results.mutants.iter().map(|m| m.missed.len()).sum();
    _ = writeln!(
        text,
        "{} mutants: {} killed, {} survived, {} void; {missed} checks missed a mutant that they name; toothless: {}",
        results.mutants.len(),
        of(State::Killed),
        of(State::Survived),
        of(State::Void),
        if results.toothless.is_empty() { "none".to_owned() } else { results.toothless.join(", ") }
    );
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

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

    fn pair(check: &str, named: bool, outcomes: Vec<Outcome>) -> Pair {
        let place = || ("agentgateway".to_owned(), "-".to_owned());
        let outcomes = outcomes.into_iter().map(|outcome| (place(), outcome)).collect();
        Pair { mutant: drops_done(), check: check.into(), named, left: VecDeque::new(), outcomes }
    }

    fn killed() -> Outcome {
        Outcome::Killed("tokens-ends-with-done".into())
    }

    #[rstest]
    #[case::killed(vec![killed()], State::Killed, 0, true)]
    #[case::killed_at_the_second_place(vec![Outcome::FailsWithout("f".into()), killed()], State::Killed, 0, true)]
    #[case::passed(vec![Outcome::Survived("pass: 3 clauses hold".into())], State::Survived, 1, false)]
    #[case::for_another_reason(vec![Outcome::WrongReason("status".into())], State::Survived, 1, false)]
    #[case::never_acted(vec![Outcome::Unreached("pass: 3 clauses hold".into())], State::Void, 1, false)]
    #[case::fails_anyhow(vec![Outcome::FailsWithout("status".into())], State::Void, 1, false)]
    #[case::lost(vec![Outcome::NoRecord], State::Void, 1, false)]
    fn what_comes_of_a_mutant(
        #[case] outcomes: Vec<Outcome>,
        #[case] state: State,
        #[case] toothless: usize,
        #[case] holds: bool,
    ) {
        let results = results(&requirements("MUST"), &[pair("streaming/end", true, outcomes)]);
        assert_eq!((results.mutants[0].state, results.toothless.len(), results.holds()), (state, toothless, holds));
    }

    #[test]
    fn who_does_not_name_a_mutant_does_not_kill_it() {
        let pairs = [pair("routing/all", false, vec![killed()]), pair("streaming/end", true, vec![Outcome::NoRecord])];
        let results = results(&requirements("MUST"), &pairs);
        let row = &results.mutants[0];
        assert_eq!((row.state, row.killed_by.len(), row.unexpected.len()), (State::Void, 0, 1));
        assert_eq!(results.toothless, ["streaming/end"]);
    }

    #[test]
    fn a_check_that_misses_what_it_names_is_shown_although_another_one_killed() {
        let survived = vec![Outcome::Survived("pass: 3 clauses hold".into())];
        let pairs = [pair("routing/all", true, vec![killed()]), pair("streaming/end", true, survived)];
        let results = results(&requirements("MUST"), &pairs);
        assert_eq!(
            (results.mutants[0].state, results.mutants[0].missed.len(), results.holds()),
            (State::Killed, 1, false)
        );
    }
}

//! Building a plan: every check, case and gateway, each with its disposition; and what makes a plan unusable.

use crate::plan::{
    Disposition, Filter, FilterError, GatewayPlan, ModelName, PLAN_SCHEMA, Plan, PlannedCheck, RunInfo, Shard,
};
use crate::requirements::{Requirement, Requirements};
use crate::{names, tests_list::TestList};

/// Why there is no plan. All of these are exit code 2: nothing was tried.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("failed to plan: no test for {}; write it under suites/tests, or take the check out", checks.join(", "))]
    NoTest { checks: Vec<String> },
    #[error("failed to plan: no requirement for the test of {}; give it a check with level, sentence and source", checks.join(", "))]
    NoRequirement { checks: Vec<String> },
    #[error("failed to plan: no check belongs to {}", listed(gateways))]
    Empty { gateways: Vec<String> },
    #[error("failed to plan: {option} {word:?} matches no check of {}{}", listed(gateways), names::suggestion(near))]
    Unknown { option: &'static str, word: String, gateways: Vec<String>, near: Vec<String> },
    #[error("failed to plan: {what} selects nothing that can run: {}; --allow-empty accepts that", reasons.join("; "))]
    NothingRuns { what: String, reasons: Vec<String> },
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// Plans every check and case on every gateway of the run.
///
/// The test list only confirms the plan: whatever is planned to run must have a test, and every test a requirement.
pub fn build(
    requirements: &Requirements,
    gateways: Vec<GatewayPlan>,
    run: RunInfo,
    tests: &TestList,
) -> Result<Plan, PlanError> {
    let filter = Filter::of(&run)?;
    every_test_is_required(requirements, tests)?;

    let mut checks = Vec::new();
    // What each would be if nothing were filtered, to say why a filter selects nothing that can run.
    let mut unfiltered = Vec::new();
    for gateway in &gateways {
        let mut turns = Turns::of(&run);
        for requirement in &requirements.checks {
            if !requirement.gateways.is_empty() && !requirement.gateways.contains(&gateway.name) {
                continue;
            }
            let disposition = |case: &str| disposition(requirement, case, gateway, &run);
            let runs = |case: &&str| filter.selects(&requirement.check, case) && disposition(case) == Disposition::Run;
            let ours = !requirement.case_names().iter().any(runs) || turns.next_is_ours();
            for case in requirement.case_names() {
                let disposition = disposition(case);
                unfiltered.push(disposition.clone());
                let filtered = |reason: String| Disposition::NotRun { reason, filtered: true };
                let disposition = match run.shard {
                    _ if !filter.selects(&requirement.check, case) => {
                        filtered("not selected by --suite or --check".to_owned())
                    }
                    Some(shard) if !ours => filtered(format!("in another part of the run than {shard}")),
                    _ => disposition,
                };
                checks.push(planned(requirement, gateway, case, &run, disposition));
            }
        }
    }
    if checks.is_empty() {
        return Err(PlanError::Empty { gateways: gateways.into_iter().map(|g| g.name).collect() });
    }
    every_planned_has_a_test(&checks, tests)?;
    if !run.allow_empty {
        every_term_selects(&filter, &checks, &unfiltered, requirements, &gateways)?;
        something_runs(&filter, run.shard, &checks)?;
    }
    Ok(Plan { schema: PLAN_SCHEMA.to_owned(), run, gateways, checks })
}

/// Deals checks out to the parts of a run, whole and one after the other: their cases share one baseline entry.
struct Turns {
    shard: Option<Shard>,
    dealt: u32,
}

impl Turns {
    fn of(run: &RunInfo) -> Self {
        Self { shard: run.shard, dealt: 0 }
    }

    fn next_is_ours(&mut self) -> bool {
        let turn = self.dealt;
        self.dealt += 1;
        self.shard.is_none_or(|shard| turn % shard.of.max(1) + 1 == shard.index)
    }
}

/// What becomes of a case on a gateway when no filter leaves it out.
fn disposition(requirement: &Requirement, case: &str, gateway: &GatewayPlan, run: &RunInfo) -> Disposition {
    let not_run = |reason: String| Disposition::NotRun { reason, filtered: false };
    if let Some(why) = &gateway.left_out {
        return not_run(why.clone());
    }
    for capability in requirement.capabilities_of(case) {
        if !gateway.capabilities.contains_key(capability) {
            let general = || format!("the folder of {} declares no capability {capability}", gateway.name);
            let reason = gateway.unsupported.get(capability).cloned().unwrap_or_else(general);
            return Disposition::Unsupported { reason };
        }
        if let Some(why) = gateway.missing.get(capability) {
            return not_run(why.clone());
        }
    }
    if let Some(reason) = requirement.not_on.get(&run.place) {
        return not_run(format!("not on {}: {reason}", run.place.word()));
    }
    let model = model(requirement, gateway, run);
    if let Some(reason) = requirement.not_with.get(&model) {
        return not_run(format!("not with {}: {reason}", model.word()));
    }
    for component in &requirement.about {
        if let Some(stand_in) = gateway.stand_ins.iter().find(|s| is_about(s, component)) {
            return not_run(format!("{component} is a stand-in here ({stand_in})"));
        }
    }
    Disposition::Run
}

/// What serves tokens: as the check wants it, else as the gateway's capability does (where our own model's records are the
/// only proof), else as the run: where its model was not given by hand, as is usual for the check.
fn model(requirement: &Requirement, gateway: &GatewayPlan, run: &RunInfo) -> ModelName {
    let declared = requirement.capability.as_ref().and_then(|c| gateway.capabilities.get(c)?.get("model"));
    let declared = declared.and_then(|model| serde_json::from_value(model.clone()).ok());
    let usual = requirement.usual_model.clone().filter(|_| !run.model_by_hand);
    requirement.model.clone().or(declared).or(usual).unwrap_or_else(|| run.model.clone())
}

/// Whether a stand-in's description, which begins with the component's name, is about this component.
fn is_about(stand_in: &str, component: &str) -> bool {
    stand_in.strip_prefix(component).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
}

fn planned(
    requirement: &Requirement,
    gateway: &GatewayPlan,
    case: &str,
    run: &RunInfo,
    disposition: Disposition,
) -> PlannedCheck {
    PlannedCheck {
        gateway: gateway.name.clone(),
        check: requirement.check.clone(),
        case: case.to_owned(),
        level: requirement.level,
        sentence: requirement.sentence.clone(),
        source: requirement.source.clone(),
        capability: requirement.capability.clone(),
        model: model(requirement, gateway, run),
        counts_every_answer: requirement.counts_every_answer,
        exclusive: requirement.exclusive,
        disposition,
    }
}

fn every_test_is_required(requirements: &Requirements, tests: &TestList) -> Result<(), PlanError> {
    let mut unknown = Vec::new();
    for (check, cases) in &tests.checks {
        let known = requirements.get(check).map(Requirement::case_names).unwrap_or_default();
        for case in cases {
            if !known.contains(&case.as_str()) {
                unknown.push(title(check, case));
            }
        }
    }
    if unknown.is_empty() { Ok(()) } else { Err(PlanError::NoRequirement { checks: unknown }) }
}

fn every_planned_has_a_test(checks: &[PlannedCheck], tests: &TestList) -> Result<(), PlanError> {
    let mut missing: Vec<String> =
        checks.iter().filter(|c| c.runs() && !tests.has(&c.check, &c.case)).map(PlannedCheck::title).collect();
    missing.sort();
    missing.dedup();
    if missing.is_empty() { Ok(()) } else { Err(PlanError::NoTest { checks: missing }) }
}

/// Every term of the filter must find something that can run; a typing error must not make a run small.
fn every_term_selects(
    filter: &Filter,
    checks: &[PlannedCheck],
    unfiltered: &[Disposition],
    requirements: &Requirements,
    gateways: &[GatewayPlan],
) -> Result<(), PlanError> {
    for term in filter.terms() {
        let found: Vec<(&PlannedCheck, &Disposition)> =
            checks.iter().zip(unfiltered).filter(|(c, _)| term.selects(&c.check, &c.case)).collect();
        if found.is_empty() {
            return Err(PlanError::Unknown {
                option: term.option,
                word: term.text().to_owned(),
                gateways: gateways.iter().map(|g| g.name.clone()).collect(),
                near: near(&term, requirements, checks),
            });
        }
        if !found.iter().any(|(_, d)| **d == Disposition::Run) {
            return Err(PlanError::NothingRuns {
                what: format!("{} {:?}", term.option, term.text()),
                reasons: reasons(found.into_iter()),
            });
        }
    }
    Ok(())
}

fn near(term: &super::filter::Term<'_>, requirements: &Requirements, checks: &[PlannedCheck]) -> Vec<String> {
    let text = term.text();
    match term.option {
        "--suite" => names::near(text, requirements.checks.iter().map(Requirement::suite)),
        _ if text.contains('@') => {
            let titles: Vec<String> = checks.iter().map(PlannedCheck::title).collect();
            names::near(text, titles.iter().map(String::as_str))
        }
        _ => names::near(text, requirements.checks.iter().map(|r| r.check.as_str())),
    }
}

fn something_runs(filter: &Filter, shard: Option<Shard>, checks: &[PlannedCheck]) -> Result<(), PlanError> {
    if checks.iter().any(PlannedCheck::runs) {
        return Ok(());
    }
    let what = match shard {
        Some(shard) => format!("--shard {shard}"),
        None if filter.is_empty() => "the run".to_owned(),
        None => "the filter as a whole".to_owned(),
    };
    Err(PlanError::NothingRuns { what, reasons: reasons(checks.iter().map(|c| (c, &c.disposition))) })
}

/// Why each of these does not run, one line for each reason, at most five.
fn reasons<'a>(found: impl Iterator<Item = (&'a PlannedCheck, &'a Disposition)>) -> Vec<String> {
    let mut lines: Vec<(String, String)> = Vec::new();
    for (check, disposition) in found {
        let reason = match disposition {
            Disposition::Run => continue,
            Disposition::Unsupported { reason } => {
                format!("unsupported by {}, {reason}", check.gateway)
            }
            Disposition::NotRun { reason, .. } => reason.clone(),
        };
        if !lines.iter().any(|(_, known)| *known == reason) {
            lines.push((check.title(), reason));
        }
    }
    let more = lines.len().saturating_sub(5);
    let mut said: Vec<String> = lines.into_iter().take(5).map(|(title, why)| format!("{title} is {why}")).collect();
    if more > 0 {
        said.push(format!("and {more} more reasons"));
    }
    said
}

fn title(check: &str, case: &str) -> String {
    if case == "-" { check.to_owned() } else { format!("{check}@{case}") }
}

fn listed(gateways: &[String]) -> String {
    if gateways.is_empty() { "any gateway (none was given)".to_owned() } else { gateways.join(", ") }
}

#[cfg(test)]
pub(crate) mod tests {
    use rstest::rstest;
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::PlaceName;

    pub(crate) fn run_info() -> RunInfo {
        RunInfo {
            id: "20261121-120305-k3f9".into(),
            started: "2026-11-21T12:03:05Z".into(),
            place: PlaceName::Kind,
            jobs: 2,
            allow_empty: false,
            ..RunInfo::rehearsal("current", &["cargo", "xtask", "e2e"])
        }
    }

    pub(crate) fn gateway(name: &str) -> GatewayPlan {
        GatewayPlan {
            name: name.into(),
            versions: BTreeMap::from([(name.to_owned(), "v1.0.0".to_owned())]),
            version_of: name.into(),
            capabilities: BTreeMap::from([("host-route".to_owned(), BTreeMap::new())]),
            unsupported: BTreeMap::from([("pool".to_owned(), "it has none (issue 12)".to_owned())]),
            changes: vec![],
            answers: vec![],
            missing: BTreeMap::new(),
            stand_ins: vec!["cert-manager (self-made certificates)".into()],
            left_out: None,
        }
    }

    fn requirements() -> Requirements {
        let text = "
checks:
- {check: routing/host, level: MUST, sentence: s, source: t, capability: host-route, model: echo}
- {check: routing/paths, level: MUST, sentence: s, source: t, cases: [one, two]}
- {check: pool/asked, level: MUST, sentence: s, source: t, capability: pool}
- {check: tokens/other, level: MUST, sentence: s, source: t, capability: tokens}
- {check: guide-002/route, level: INFO, sentence: s, source: t, gateways: [envoy-ai-gateway]}
- {check: change/refill, level: MUST, sentence: s, source: t, not-on: {kind: takes an hour}}
- {check: change/sizes, level: MUST, sentence: s, source: t, not-with: {llm-d-sim: answers are short}}
- {check: status/certificates, level: MUST, sentence: s, source: t, about: [cert-manager]}
- {check: status/cert, level: MUST, sentence: s, source: t, about: [cert]}
";
        Requirements::parse(text).unwrap()
    }

    fn tests_of(requirements: &Requirements) -> TestList {
        let mut list = TestList::default();
        for r in &requirements.checks {
            list.checks.insert(r.check.clone(), r.case_names().iter().map(|&c| c.to_owned()).collect());
        }
        list
    }

    fn plan(change: impl FnOnce(&mut RunInfo)) -> Result<Plan, PlanError> {
        let mut run = run_info();
        change(&mut run);
        plan_of(vec![gateway("envoy-ai-gateway"), gateway("other")], run)
    }

    fn plan_of(gateways: Vec<GatewayPlan>, run: RunInfo) -> Result<Plan, PlanError> {
        let requirements = requirements();
        build(&requirements, gateways, run, &tests_of(&requirements))
    }

    fn dispositions(plan: &Plan, gateway: &str) -> Vec<String> {
        let of = |c: &PlannedCheck| match &c.disposition {
            Disposition::Run => format!("{} runs with {}", c.title(), c.model.word()),
            Disposition::Unsupported { reason } => format!("{} unsupported: {reason}", c.title()),
            Disposition::NotRun { reason, filtered: true } => format!("{} filtered: {reason}", c.title()),
            Disposition::NotRun { reason, filtered: false } => format!("{} not-run: {reason}", c.title()),
        };
        plan.checks.iter().filter(|c| c.gateway == gateway).map(of).collect()
    }

    #[test]
    fn everything_has_a_disposition() {
        let plan = plan(|_| ()).unwrap();
        let common = [
            "routing/host runs with echo",
            "routing/paths@one runs with llm-d-sim",
            "routing/paths@two runs with llm-d-sim",
            "pool/asked unsupported: it has none (issue 12)",
        ];
        let rest = [
            "change/refill not-run: not on kind: takes an hour",
            "change/sizes not-run: not with llm-d-sim: answers are short",
            "status/certificates not-run: cert-manager is a stand-in here (cert-manager (self-made certificates))",
            "status/cert runs with llm-d-sim",
        ];
        let tokens = |g: &str| format!("tokens/other unsupported: the folder of {g} declares no capability tokens");
        let expected = |g: &str, guide: &[&str]| {
            let tokens = [tokens(g)];
            let all = common.iter().copied().chain(tokens.iter().map(String::as_str)).chain(guide.iter().copied());
            all.chain(rest).map(str::to_owned).collect::<Vec<_>>()
        };
        let guide = ["guide-002/route runs with llm-d-sim"];
        assert_eq!(dispositions(&plan, "envoy-ai-gateway"), expected("envoy-ai-gateway", &guide));
        // Checks that belong to another gateway are not planned at all.
        assert_eq!(dispositions(&plan, "other"), expected("other", &[]));
    }

    #[test]
    fn place_and_model_decide() {
        let plan = plan(|run| {
            run.place = PlaceName::Rehearsal;
            run.model = "vllm-cpu".parse().unwrap();
        })
        .unwrap();
        let planned = dispositions(&plan, "other");
        assert!(planned.contains(&"change/refill runs with vllm-cpu".to_owned()), "{planned:?}");
        assert!(planned.contains(&"change/sizes runs with vllm-cpu".to_owned()), "{planned:?}");
    }

    #[test]
    fn a_capability_may_want_a_model_of_its_own() {
        let mut gateway = gateway("other");
        gateway.capabilities.insert("tokens".into(), BTreeMap::from([("model".to_owned(), "echo".into())]));
        gateway.capabilities.insert("host-route".into(), BTreeMap::from([("model".to_owned(), "llm-d-sim".into())]));
        let plan = plan_of(vec![gateway], run_info()).unwrap();
        let planned = dispositions(&plan, "other");
        assert!(planned.contains(&"tokens/other runs with echo".to_owned()), "{planned:?}");
        assert!(
            planned.contains(&"routing/host runs with echo".to_owned()),
            "the check's own wish counts: {planned:?}"
        );
    }

    #[test]
    fn a_capability_whose_parts_are_not_to_be_had_is_not_run() {
        let why = "bundle b has no chart x v1; it has none";
        let missing = BTreeMap::from([("host-route".to_owned(), why.to_owned())]);
        let gateway = GatewayPlan { missing, ..gateway("other") };
        let plan = plan_of(vec![gateway], run_info()).unwrap();
        let planned = dispositions(&plan, "other");
        assert!(planned.contains(&format!("routing/host not-run: {why}")), "{planned:?}");
        assert!(planned.contains(&"routing/paths@one runs with llm-d-sim".to_owned()), "{planned:?}");
    }

    #[test]
    fn a_gateway_that_cannot_stand_here_is_left_out_with_the_reason() {
        let left_out = GatewayPlan { left_out: Some("no rehearsal of toy".into()), ..gateway("toy") };
        let plan = plan_of(vec![gateway("other"), left_out], run_info()).unwrap();
        let planned = dispositions(&plan, "toy");
        assert_eq!(planned.len(), 9, "{planned:?}");
        assert!(planned.iter().all(|w| w.ends_with(" not-run: no rehearsal of toy")), "{planned:?}");
        assert!(plan.checks.iter().any(|c| c.gateway == "other" && c.runs()));
    }

    #[test]
    fn what_is_filtered_stays_in_the_plan() {
        let plan = plan(|run| run.checks = vec!["routing/paths@two".into()]).unwrap();
        let running: Vec<String> = plan.checks.iter().filter(|c| c.runs()).map(PlannedCheck::title).collect();
        assert_eq!(running, ["routing/paths@two", "routing/paths@two"]);
        let filtered =
            plan.checks.iter().filter(|c| matches!(c.disposition, Disposition::NotRun { filtered: true, .. }));
        assert_eq!(filtered.count(), plan.checks.len() - 2);
    }

    #[rstest]
    #[case::two(2)]
    #[case::three(3)]
    fn every_check_is_in_one_part_of_the_run(#[case] of: u32) {
        let titles = |shard: Option<Shard>| -> Vec<String> {
            let plan = plan(|run| run.shard = shard).unwrap();
            plan.checks.iter().filter(|c| c.runs()).map(|c| format!("{} {}", c.gateway, c.title())).collect()
        };
        let parts: Vec<Vec<String>> = (1..=of).map(|index| titles(Some(Shard { index, of }))).collect();
        assert!(parts.iter().all(|part| !part.is_empty()), "{parts:?}");
        let (mut all, mut whole) = (parts.concat(), titles(None));
        all.sort();
        whole.sort();
        assert_eq!(all, whole);
        let cases = |part: &Vec<String>| part.iter().filter(|t| t.starts_with("other routing/paths@")).count();
        assert!(parts.iter().map(cases).all(|n| n == 0 || n == 2), "the cases of a check stay together: {parts:?}");
    }

    #[test]
    fn a_part_without_checks_is_refused() {
        let shard = Some(Shard { index: 9, of: 9 });
        let message = plan(|run| run.shard = shard).unwrap_err().to_string();
        assert!(message.contains("--shard 9/9 selects nothing that can run"), "{message}");
    }

    #[rstest]
    #[case::unknown_check(&[], &["routing/hots"], "--check \"routing/hots\" matches no check of envoy-ai-gateway, other; did you mean routing/host")]
    #[case::unknown_suite(&["rooting"], &[], "did you mean routing?")]
    #[case::unknown_case(&[], &["routing/paths@too"], "routing/paths@two")]
    #[case::one_of_two_is_wrong(&[], &["routing/host", "zzz"], "--check \"zzz\" matches no check")]
    #[case::nothing_runs(&[], &["pool/*"], "pool/asked is unsupported by envoy-ai-gateway, it has none (issue 12)")]
    #[case::place(&["change"], &["change/refill"], "not on kind: takes an hour")]
    #[case::disjoint(&["routing"], &["status/cert"], "the filter as a whole selects nothing")]
    #[case::glob(&[], &["a["], "--check \"a[\"")]
    fn a_filter_that_selects_nothing(#[case] suites: &[&str], #[case] checks: &[&str], #[case] said: &str) {
        let set = |run: &mut RunInfo| {
            run.suites = suites.iter().map(|&s| s.to_owned()).collect();
            run.checks = checks.iter().map(|&s| s.to_owned()).collect();
        };
        let message = plan(set).unwrap_err().to_string();
        assert!(message.contains(said), "{said:?} is not in: {message}");
        let allowed = plan(|run| {
            set(run);
            run.allow_empty = true;
        });
        assert_eq!(allowed.is_ok(), !said.contains("a["), "--allow-empty accepts all but a broken glob");
    }

    #[test]
    fn tests_and_requirements_must_meet() {
        let requirements = requirements();
        let mut tests = tests_of(&requirements);
        tests.checks.get_mut("routing/paths").unwrap().remove("two");
        let message = build(&requirements, vec![gateway("a")], run_info(), &tests).unwrap_err().to_string();
        assert!(message.contains("no test for routing/paths@two;"), "{message}");
        // What will not run needs no test yet.
        let mut tests = tests_of(&requirements);
        tests.checks.remove("pool/asked");
        assert!(build(&requirements, vec![gateway("a")], run_info(), &tests).is_ok());
        let mut tests = tests_of(&requirements);
        tests.checks.insert("routing/new".into(), ["-".to_owned()].into());
        tests.checks.get_mut("routing/host").unwrap().insert("extra".into());
        let message = build(&requirements, vec![gateway("a")], run_info(), &tests).unwrap_err().to_string();
        assert!(message.contains("routing/host@extra, routing/new"), "{message}");
    }

    #[test]
    fn an_empty_plan_is_an_error() {
        let error = plan_of(vec![], run_info()).unwrap_err();
        assert!(matches!(error, PlanError::Empty { .. }), "{error}");
    }

    #[test]
    fn a_plan_survives_its_file() {
        let plan = plan(|_| ()).unwrap();
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}

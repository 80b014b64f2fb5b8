//! What came of mutants: who killed which, on which gateway; `mutants.json` and the table.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rehearsal::mutants::Mutant;
use serde::Serialize;
use verdict::{
    invariant::PREFIX,
    requirements::{Requirement, Requirements},
};

/// A mutant on a gateway, against one check.
pub(super) struct Cell {
    pub(super) mutant: Mutant,
    pub(super) check: String,
    pub(super) gateway: String,
    pub(super) role: Role,
    /// The cases that were not tried yet.
    pub(super) left: VecDeque<String>,
    pub(super) outcomes: Vec<(String, Outcome)>,
}

/// What a check is to a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It names the mutant, and is to kill it by a clause of its own.
    Named,
    /// Its drive makes the mutant visible to invariants.
    Carrier,
    /// It is tried to see whether it kills what it should not.
    Broad,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The attempt failed with the mutant, and passed without it: the check's own clause that shows it, and invariants.
    Killed {
        clause: Option<String>,
        invariants: BTreeSet<String>,
    },
    /// The same, but for another clause than the mutant breaks.
    WrongReason(String),
    /// The check passed, or could not tell: its verdict and reason.
    Survived(String),
    Unreached(String),
    /// The check fails without the mutant, also on a mended gateway: nothing can be said.
    FailsWithout(String),
    NoRecord,
}

/// Why no check can try a mutant on a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Absence {
    /// Whether the gateway declares that it lacks what the mutant breaks.
    pub(super) is_left_out: bool,
    pub(super) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Killed,
    /// It was never seen to act.
    Void,
    /// It acted, and no check saw it.
    Survived,
    /// All checks that show it need what the gateway does not support, or are about another gateway.
    LeftOut,
}

/// `mutants.json`.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    mutants: Vec<Row>,
    toothless: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    state: State,
    violates: &'static str,
    gateways: BTreeMap<String, OnGateway>,
    /// Checks that name it and killed it on no gateway, with what came of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    missed: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct OnGateway {
    state: State,
    by_checks: Vec<String>,
    by_invariants: BTreeSet<String>,
    reason: String,
    /// Checks that failed although they do not name it, or for another clause than it breaks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unexpected: BTreeMap<String, String>,
}

impl Outcome {
    fn describe(&self) -> String {
        match self {
            Outcome::Killed { clause: Some(clause), .. } => clause.clone(),
            Outcome::Killed { invariants, .. } => {
                format!("invariants: {}", invariants.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
            Outcome::WrongReason(clauses) => format!("failed for another reason: {clauses}"),
            Outcome::Survived(why) => format!("survived, {why}"),
            Outcome::Unreached(why) => format!("never acted, {why}"),
            Outcome::FailsWithout(why) => format!("fails without it as well, {why}"),
            Outcome::NoRecord => "left no record".to_owned(),
        }
    }

    fn acted(&self) -> bool {
        matches!(self, Outcome::Killed { .. } | Outcome::WrongReason(_) | Outcome::Survived(_))
    }
}

impl Cell {
    /// `None` where there is no case to try.
    pub(super) fn new(
        mutant: Mutant,
        requirement: &Requirement,
        gateway: &str,
        role: Role,
        left: VecDeque<String>,
    ) -> Option<Self> {
        let (check, gateway) = (requirement.check.clone(), gateway.to_owned());
        (!left.is_empty()).then_some(Self { mutant, check, gateway, role, left, outcomes: Vec::new() })
    }

    /// Whether it has a say in whether the mutant is killed.
    pub(super) fn counts(&self) -> bool {
        self.role != Role::Broad
    }

    pub(super) fn kills(&self) -> bool {
        self.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Killed { .. }))
    }

    /// Whether a clause of the check itself killed.
    fn kills_itself(&self) -> bool {
        self.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Killed { clause: Some(_), .. }))
    }

    /// Whether nothing is left to be found out: a check that names the mutant has to kill it itself.
    pub(super) fn is_done(&self) -> bool {
        if self.role == Role::Named { self.kills_itself() } else { self.kills() }
    }

    fn invariants(&self) -> impl Iterator<Item = &String> {
        self.outcomes.iter().flat_map(|(_, outcome)| {
            match outcome {
                Outcome::Killed { invariants, .. } => Some(invariants),
                _ => None,
            }
            .into_iter()
            .flatten()
        })
    }

    fn describe(&self) -> String {
        let words = self.outcomes.iter().map(|(case, outcome)| match case.as_str() {
            "-" => outcome.describe(),
            case => format!("{case}: {}", outcome.describe()),
        });
        format!("{}: {}", self.check, words.collect::<Vec<_>>().join("; "))
    }
}

pub(super) fn results(
    requirements: &Requirements,
    cells: &[Cell],
    absent: &BTreeMap<(Mutant, String), Absence>,
) -> Results {
    let tried = |mutant: Mutant| cells.iter().filter(move |c| c.mutant == mutant && !c.outcomes.is_empty());
    let mutants = Mutant::all().filter(|m| tried(*m).next().is_some()).map(|mutant| {
        let own = || tried(mutant).filter(|c| c.counts());
        let mut gateways: BTreeMap<String, OnGateway> = absent
            .iter()
            .filter(|((of, _), _)| *of == mutant)
            .map(|((_, gateway), absence)| (gateway.clone(), OnGateway::absent(absence)))
            .collect();
        for gateway in cells.iter().filter(|c| c.mutant == mutant).map(|c| &c.gateway).collect::<BTreeSet<_>>() {
            let on = |c: &&Cell| c.gateway == *gateway;
            let state = OnGateway::of(own().filter(on), tried(mutant).filter(|c| !c.counts()).filter(on));
            gateways.entry(gateway.clone()).or_insert(state);
        }
        let names = |c: &&Cell| c.role == Role::Named;
        let missed = own().filter(names).filter(|c| {
            let mut same = own().filter(names).filter(|other| other.check == c.check);
            same.all(|c| !c.kills_itself())
        });
        let mut said: BTreeMap<String, String> = BTreeMap::new();
        for cell in missed {
            let words = said.entry(cell.check.clone()).or_default();
            *words += &format!("{}{}: {}", if words.is_empty() { "" } else { "; " }, cell.gateway, cell.describe());
        }
        Row {
            name: mutant.name(),
            state: State::of_all(gateways.values().map(|on| on.state)),
            violates: mutant.sentence(),
            gateways,
            missed: said,
        }
    });
    let toothless = requirements.checks.iter().filter(|r| {
        let mut own = cells.iter().filter(|c| c.role == Role::Named && c.check == r.check).peekable();
        own.peek().is_some() && own.all(|c| !c.kills_itself() && !c.outcomes.is_empty() && c.left.is_empty())
    });
    Results { mutants: mutants.collect(), toothless: toothless.map(|r| r.check.clone()).collect() }
}

impl State {
    /// Of a mutant: killed only where it is on every gateway that it fits.
    fn of_all(gateways: impl Iterator<Item = State>) -> Self {
        let worst = gateways.filter(|state| *state != State::LeftOut).max();
        worst.unwrap_or(State::Void)
    }

    fn word(self) -> &'static str {
        match self {
            State::Killed => "killed",
            State::Survived => "survived",
            State::Void => "void",
            State::LeftOut => "left out",
        }
    }
}

impl OnGateway {
    fn absent(absence: &Absence) -> Self {
        Self {
            state: if absence.is_left_out { State::LeftOut } else { State::Void },
            by_checks: vec![],
            by_invariants: BTreeSet::new(),
            reason: absence.reason.clone(),
            unexpected: BTreeMap::new(),
        }
    }

    fn of<'c>(own: impl Iterator<Item = &'c Cell>, others: impl Iterator<Item = &'c Cell>) -> Self {
        let own: Vec<&Cell> = own.collect();
        let acted = own.iter().flat_map(|c| &c.outcomes).any(|(_, outcome)| outcome.acted());
        let state = match (own.iter().any(|c| c.kills()), acted) {
            (true, _) => State::Killed,
            (false, true) => State::Survived,
            (false, false) => State::Void,
        };
        let fails =
            |c: &&Cell| c.outcomes.iter().any(|(_, o)| matches!(o, Outcome::Killed { .. } | Outcome::WrongReason(_)));
        let said: Vec<String> = own.iter().map(|c| c.describe()).collect();
        Self {
            state,
            by_checks: own.iter().filter(|c| c.kills_itself()).map(|c| c.check.clone()).collect(),
            by_invariants: own.iter().flat_map(|c| c.invariants()).cloned().collect(),
            reason: if said.is_empty() { "nothing tried it".to_owned() } else { said.join("; ") },
            unexpected: others.filter(fails).map(|c| (c.check.clone(), c.describe())).collect(),
        }
    }

    fn words(&self) -> String {
        let checks = self.by_checks.iter().cloned();
        let invariants = self.by_invariants.iter().map(|name| format!("{PREFIX}{name}"));
        match self.state {
            State::Killed => checks.chain(invariants).collect::<Vec<_>>().join(", "),
            _ => self.reason.clone(),
        }
    }
}

impl Results {
    pub(super) fn holds(&self) -> bool {
        self.toothless.is_empty() && self.mutants.iter().all(|m| m.state == State::Killed && m.missed.is_empty())
    }
}

/// One line for each mutant and gateway.
pub(super) fn table(results: &Results) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let width = results.mutants.iter().map(|m| m.name.len()).max().unwrap_or(0);
    let rows = || results.mutants.iter().flat_map(|m| &m.gateways);
    let gateways = rows().map(|(gateway, _)| gateway.len()).max().unwrap_or(0);
    for row in &results.mutants {
        for (gateway, on) in &row.gateways {
            let state = on.state.word();
            _ = writeln!(text, "{:<width$}  {gateway:<gateways$}  {state:<8}  {}", row.name, on.words());
            for (check, words) in &on.unexpected {
                _ = writeln!(text, "{:width$}  {:gateways$}  besides   {check}: {words}", "", "");
            }
        }
        for (check, words) in &row.missed {
            _ = writeln!(text, "{:width$}  {:gateways$}  missed    {check}: {words}", "", "");
        }
    }
    let of = |state| results.mutants.iter().filter(|m| m.state == state).count();
    let missed: usize = results.mutants.iter().map(|m| m.missed.len()).sum();
    _ = writeln!(
        text,
        "{} mutants: {} killed on every gateway that they fit, {} survived, {} void; {} left out on a gateway; {missed} \
         checks missed a mutant that they name; toothless: {}",
        results.mutants.len(),
        of(State::Killed),
        of(State::Survived),
        of(State::Void),
        rows().filter(|(_, on)| on.state == State::LeftOut).count(),
        if results.toothless.is_empty() { "none".to_owned() } else { results.toothless.join(", ") }
    );
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn requirements() -> Requirements {
        let text = "checks:\n\
             - {check: routing/all, level: MUST, sentence: s, source: t, kills: [drops-done]}\n\
             - {check: streaming/end, level: MUST, sentence: s, source: t, kills: [drops-done]}\n";
        Requirements::parse(text).unwrap()
    }

    fn drops_done() -> Mutant {
        Mutant::named("drops-done").expect("a mutant")
    }

    fn cell(check: &str, role: Role, gateway: &str, outcomes: &[Outcome]) -> Cell {
        let outcomes = outcomes.iter().map(|outcome| ("-".to_owned(), outcome.clone())).collect();
        let (mutant, left) = (drops_done(), VecDeque::new());
        Cell { mutant, check: check.into(), gateway: gateway.into(), role, left, outcomes }
    }

    fn killed() -> Outcome {
        Outcome::Killed { clause: Some("tokens-ends-with-done".into()), invariants: BTreeSet::new() }
    }

    fn by_invariant() -> Outcome {
        Outcome::Killed { clause: None, invariants: BTreeSet::from(["own-reply".to_owned()]) }
    }

    fn survived(why: &str) -> Outcome {
        Outcome::Survived(why.to_owned())
    }

    #[rstest]
    #[case::killed(&[killed()], State::Killed, 0, true)]
    #[case::killed_at_the_second_place(&[Outcome::FailsWithout("f".into()), killed()], State::Killed, 0, true)]
    #[case::an_invariant_does_not_save_the_check(&[by_invariant()], State::Killed, 1, false)]
    #[case::passed(&[survived("pass: 3 clauses hold")], State::Survived, 1, false)]
    #[case::an_error_is_no_kill(&[survived("error: the drive took longer")], State::Survived, 1, false)]
    #[case::for_another_reason(&[Outcome::WrongReason("status".into())], State::Survived, 1, false)]
    #[case::never_acted(&[Outcome::Unreached("pass: 3 clauses hold".into())], State::Void, 1, false)]
    #[case::fails_anyhow(&[Outcome::FailsWithout("status".into())], State::Void, 1, false)]
    #[case::lost(&[Outcome::NoRecord], State::Void, 1, false)]
    fn what_comes_of_a_mutant(
        #[case] outcomes: &[Outcome],
        #[case] state: State,
        #[case] toothless: usize,
        #[case] holds: bool,
    ) {
        let cells = [cell("streaming/end", Role::Named, "agw", outcomes)];
        let results = results(&requirements(), &cells, &BTreeMap::new());
        assert_eq!((results.mutants[0].state, results.toothless.len(), results.holds()), (state, toothless, holds));
    }

    #[rstest]
    #[case::on_each(&[killed()], State::Killed)]
    #[case::by_an_invariant(&[by_invariant()], State::Killed)]
    #[case::survives_on_the_other(&[survived("pass: 1 clause holds")], State::Survived)]
    #[case::never_acts_on_the_other(&[Outcome::Unreached("pass: r".into())], State::Void)]
    #[case::not_tried_on_the_other(&[], State::Void)]
    fn a_mutant_is_killed_on_every_gateway(#[case] other: &[Outcome], #[case] state: State) {
        let cells =
            [cell("streaming/end", Role::Named, "agw", &[killed()]), cell("streaming/end", Role::Named, "eag", other)];
        let results = results(&requirements(), &cells, &BTreeMap::new());
        let row = &results.mutants[0];
        assert_eq!((row.state, row.gateways["agw"].state, row.gateways["eag"].state), (state, State::Killed, state));
        assert_eq!((results.holds(), results.toothless.len(), row.missed.len()), (state == State::Killed, 0, 0));
    }

    #[rstest]
    #[case::unsupported(true, State::Killed, State::LeftOut)]
    #[case::for_any_other_reason(false, State::Void, State::Void)]
    fn a_gateway_is_left_out_where_it_lacks_what_is_broken(
        #[case] is_left_out: bool,
        #[case] state: State,
        #[case] there: State,
    ) {
        let cells = [cell("streaming/end", Role::Named, "agw", &[killed()])];
        let absence = Absence { is_left_out, reason: "streaming/end: it has none".into() };
        let absent = BTreeMap::from([((drops_done(), "eag".to_owned()), absence)]);
        let results = results(&requirements(), &cells, &absent);
        let row = &results.mutants[0];
        assert_eq!((row.state, row.gateways["eag"].state), (state, there));
        assert!(table(&results).contains("streaming/end: it has none"));
    }

    #[test]
    fn who_does_not_name_a_mutant_does_not_kill_it() {
        let cells = [
            cell("routing/all", Role::Broad, "agw", &[killed()]),
            cell("streaming/end", Role::Named, "agw", &[Outcome::NoRecord]),
        ];
        let results = results(&requirements(), &cells, &BTreeMap::new());
        let on = &results.mutants[0].gateways["agw"];
        assert_eq!((on.state, on.by_checks.len(), on.unexpected.len()), (State::Void, 0, 1));
        assert_eq!(results.toothless, ["streaming/end"]);
    }

    #[test]
    fn a_carrier_shows_a_mutant_and_keeps_no_check_from_being_toothless() {
        let cells = [
            cell("routing/all", Role::Carrier, "agw", &[by_invariant()]),
            cell("streaming/end", Role::Named, "agw", &[survived("pass: 3 clauses hold")]),
        ];
        let results = results(&requirements(), &cells, &BTreeMap::new());
        let on = &results.mutants[0].gateways["agw"];
        assert_eq!((on.state, on.by_checks.len()), (State::Killed, 0));
        assert_eq!(on.by_invariants, BTreeSet::from(["own-reply".to_owned()]));
        assert_eq!((results.toothless.len(), results.holds()), (1, false));
    }

    #[test]
    fn a_check_that_misses_what_it_names_is_shown_although_another_one_killed() {
        let cells = [
            cell("routing/all", Role::Named, "agw", &[killed()]),
            cell("streaming/end", Role::Named, "agw", &[survived("pass: 3 clauses hold")]),
        ];
        let results = results(&requirements(), &cells, &BTreeMap::new());
        let row = &results.mutants[0];
        assert_eq!((row.state, row.missed.len(), results.holds()), (State::Killed, 1, false));
    }
}

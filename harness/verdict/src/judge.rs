//! Judgement: what a judge says of a history, clause by clause.
//!
//! A judge is a pure function of a history. It never passes by default: a judgement without clauses is `unproven`, a false
//! clause makes it `fail`, a clause without evidence makes it `unproven`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a clause holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// The evidence shows that it does.
    Yes,
    /// The evidence shows that it does not.
    No,
    /// The evidence to judge it is missing.
    Unproven,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clause {
    /// Its name in the check, for example `wrong-host-is-404`. Mutants name the clause that they break.
    pub name: String,
    pub holds: Holds,
    pub expected: String,
    pub got: String,
    pub exchanges: Vec<String>,
    /// What an invariant's clause is about, as baseline entries name it: `header x-a`, `body`, `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

impl Clause {
    /// Whether it is an invariant's, and not one of the check's own.
    pub fn is_of_invariant(&self) -> bool {
        self.name.starts_with(crate::invariant::PREFIX)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    pub clauses: Vec<Clause>,
}

impl Judgement {
    /// No if any clause is false, else Unproven if one lacks evidence or there is none at all, else Yes.
    pub fn holds(&self) -> Holds {
        if self.clauses.iter().any(|c| c.holds == Holds::No) {
            Holds::No
        } else if self.clauses.is_empty() || self.clauses.iter().any(|c| c.holds == Holds::Unproven) {
            Holds::Unproven
        } else {
            Holds::Yes
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing_was_judged(&[], Holds::Unproven)]
    #[case::all_true(&[Holds::Yes, Holds::Yes], Holds::Yes)]
    #[case::one_unproven(&[Holds::Yes, Holds::Unproven], Holds::Unproven)]
    #[case::one_false(&[Holds::Yes, Holds::No], Holds::No)]
    #[case::false_outweighs_unproven(&[Holds::Unproven, Holds::No], Holds::No)]
    fn clauses_decide(#[case] clauses: &[Holds], #[case] expected: Holds) {
        let clause = |holds: &Holds| Clause {
            name: "a".into(),
            holds: *holds,
            expected: "e".into(),
            got: "g".into(),
            exchanges: vec![],
            subject: None,
        };
        let judgement = Judgement { clauses: clauses.iter().map(clause).collect() };
        assert_eq!(judgement.holds(), expected);
    }
}

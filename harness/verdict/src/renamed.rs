//! Renamed: what runs, goldens and baselines of before call by another name than today. One table, applied wherever such a file is
//! read, so that nothing else knows an old name.

use serde_json::{Map, Value};

use crate::capability::{TOKEN_LIMIT, TOKEN_LIMIT_PER_MODEL, TOKEN_LIMIT_PER_USER};
use crate::history::{History, Key, check_and_case};
use crate::judge::{Clause, Holds};
use crate::{plan::Plan, record::Record};

/// What a name is the name of. Checks and capabilities that qualify another name are called as today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// A check, `suite/name`, or a case of one, `suite/name@case`.
    Check,
    Clause(&'static str),
    Capability,
    /// A parameter of these capabilities; no other capability has one of its old name, which is all that a history says.
    Parameter(&'static [&'static str]),
}

#[derive(Clone, Copy, Debug)]
struct Renamed {
    of: Of,
    old: &'static str,
    new: &'static str,
}

const LIMITS: &[&str] = &[TOKEN_LIMIT.name, TOKEN_LIMIT_PER_USER.name, TOKEN_LIMIT_PER_MODEL.name];

const RENAMED: &[Renamed] = &[
    clause("tokens/shape-429", "x-ratelimit-limit", "refusal-headers"),
    clause("tokens/shape-429", "x-ratelimit-remaining", "refusal-headers"),
    clause("tokens/shape-429", "x-ratelimit-reset", "refusal-headers"),
    clause("pool/follows-choice", "commanded-the-picker-named-what-was-commanded", "commanded-named-as-commanded"),
    clause("pool/served-reported", "post-the-endpoint-that-served-is-reported", "post-served-is-reported"),
    clause("pool/body-sizes", "1-kib-the-picker-saw-all-of-it-and-one-end", "1-kib-seen-whole"),
    clause("pool/body-sizes", "64-kib-the-picker-saw-all-of-it-and-one-end", "64-kib-seen-whole"),
    clause("pool/body-sizes", "256-kib-the-picker-saw-all-of-it-and-one-end", "256-kib-seen-whole"),
    clause("pool/body-sizes", "2-mib-the-picker-saw-all-of-it-and-one-end", "2-mib-seen-whole"),
    clause("guide-004/completion", "as-printed-the-picker-read-the-model", "as-printed-model-is-read"),
    Renamed { of: Of::Parameter(LIMITS), old: "mark", new: "mark-header" },
    Renamed { of: Of::Parameter(LIMITS), old: "marks", new: "marked-answers" },
    Renamed { of: Of::Parameter(LIMITS), old: "charges", new: "charged-fields" },
];

const fn clause(check: &'static str, old: &'static str, new: &'static str) -> Renamed {
    Renamed { of: Of::Clause(check), old, new }
}

/// What programs took for granted before it was a parameter, in histories: (a parameter that tells the capability, the
/// parameter, its value as JSON).
const TAKEN_FOR_GRANTED: &[(&str, &str, &str)] = &[
    ("block-when", "marked-answers", r#""every-answer""#),
    ("block-when", "charged-fields", r#"["total"]"#),
    ("block-when", "aborted-stream", r#""free""#),
    ("block-when", "no-usage-reply", r#""free""#),
];

/// A parameter's value as it is written today: what is charged was `prompt+completion`, and is a list.
fn value_of_today(name: &str, value: Value) -> Value {
    match &value {
        Value::String(sum) if name == "charged-fields" => sum.split('+').map(str::trim).collect(),
        _ => value,
    }
}

/// Such names; the tests have others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names(&'static [Renamed]);

pub(crate) const NAMES: Names = Names(RENAMED);

impl Names {
    fn today(self, of: impl Fn(Of) -> bool, name: &mut String) {
        if let Some(found) = self.0.iter().find(|renamed| renamed.old == *name && of(renamed.of)) {
            found.new.clone_into(name);
        }
    }

    /// `suite/name`, and `@case`, as it is called today.
    pub(crate) fn title(self, title: &str) -> String {
        let renamed =
            |title: &str| self.0.iter().find(|r| r.of == Of::Check && r.old == title).map(|r| r.new.to_owned());
        renamed(title).unwrap_or_else(|| match title.split_once('@') {
            Some((check, case)) => format!("{}@{case}", renamed(check).as_deref().unwrap_or(check)),
            None => title.to_owned(),
        })
    }

    /// What is called so today, as it may have been called before.
    pub(crate) fn titles_of_before(self, title: &str) -> Vec<String> {
        let of_before = |renamed: &Renamed| {
            let rest = title.strip_prefix(renamed.new)?;
            (rest.is_empty() || rest.starts_with('@')).then(|| format!("{}{rest}", renamed.old))
        };
        self.0.iter().filter(|renamed| renamed.of == Of::Check).filter_map(of_before).collect()
    }

    pub(crate) fn key(self, key: &mut Key) {
        let title = self.title(&key.title());
        let (check, case) = check_and_case(&title);
        (key.check, key.case) = (check.to_owned(), case.to_owned());
    }

    pub(crate) fn keys_of_before(self, key: &Key) -> Vec<Key> {
        let of_title = |title: String| {
            let (check, case) = check_and_case(&title);
            Key { check: check.to_owned(), case: case.to_owned(), ..key.clone() }
        };
        self.titles_of_before(&key.title()).into_iter().map(of_title).collect()
    }

    pub(crate) fn check(self, check: &mut String, case: &mut Option<String>) {
        let before = case.as_ref().map_or_else(|| check.clone(), |case| format!("{check}@{case}"));
        let today = self.title(&before);
        *case = today.split_once('@').map(|(_, case)| case.to_owned());
        check_and_case(&today).0.clone_into(check);
    }

    pub(crate) fn clause(self, check: &str, name: &mut String) {
        self.today(|of| matches!(of, Of::Clause(of) if of == check), name);
    }

    /// A record. Of several clauses that are one today, the first that says most (false, unproven, true) is kept.
    pub(crate) fn record(self, record: &mut Record) {
        self.key(&mut record.key);
        let mut clauses: Vec<Clause> = Vec::new();
        for mut clause in std::mem::take(&mut record.clauses) {
            let before = clause.name.clone();
            self.clause(&record.key.check, &mut clause.name);
            match clauses.iter_mut().find(|c| c.name == clause.name && c.name != before) {
                Some(same) if weight(same.holds) < weight(clause.holds) => *same = clause,
                Some(_) => {}
                None => clauses.push(clause),
            }
        }
        record.clauses = clauses;
    }

    pub(crate) fn history(self, history: &mut History) {
        self.key(&mut history.key);
        let declared = std::mem::take(&mut history.declared).into_iter();
        history.declared = declared.map(|(name, value)| self.parameter(|_| true, name, value)).collect();
        for (of, name, value) in TAKEN_FOR_GRANTED {
            if history.declared.contains_key(*of) && !history.declared.contains_key(*name) {
                history.declared.insert((*name).to_owned(), serde_json::from_str(value).unwrap_or_default());
            }
        }
    }

    /// What the gateways of a plan declare, before it is understood: each capability has a shape of its own.
    pub(crate) fn declared(self, plan: &mut Value) {
        for gateway in plan["gateways"].as_array_mut().into_iter().flatten() {
            for by_capability in ["capabilities", "unsupported", "missing"] {
                let Some(Value::Object(capabilities)) = gateway.get_mut(by_capability) else { continue };
                self.keys(|of| of == Of::Capability, capabilities);
                for (capability, parameters) in capabilities {
                    if let Value::Object(parameters) = parameters {
                        let of = |capabilities: &[&str]| capabilities.contains(&capability.as_str());
                        let before = std::mem::take(parameters).into_iter();
                        *parameters = before.map(|(name, value)| self.parameter(of, name, value)).collect();
                    }
                }
            }
        }
    }

    fn parameter(self, of: impl Fn(&[&str]) -> bool, mut name: String, value: Value) -> (String, Value) {
        self.today(|renamed| matches!(renamed, Of::Parameter(capabilities) if of(capabilities)), &mut name);
        let value = value_of_today(&name, value);
        (name, value)
    }

    pub(crate) fn plan(self, plan: &mut Plan) {
        for check in &mut plan.checks {
            let mut key = check.key(1);
            self.key(&mut key);
            (check.check, check.case) = (key.check, key.case);
            check.capability.iter_mut().for_each(|name| self.capability(name));
        }
    }

    pub(crate) fn capability(self, name: &mut String) {
        self.today(|of| of == Of::Capability, name);
    }

    fn keys(self, of: impl Fn(Of) -> bool, map: &mut Map<String, Value>) {
        if self.0.iter().any(|renamed| of(renamed.of)) {
            let renamed = std::mem::take(map).into_iter().map(|(mut name, value)| {
                self.today(&of, &mut name);
                (name, value)
            });
            *map = renamed.collect();
        }
    }
}

fn weight(holds: Holds) -> u8 {
    match holds {
        Holds::Yes => 0,
        Holds::Unproven => 1,
        Holds::No => 2,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::capability::Capability;
    use crate::plan::tests_support::{planned, small_plan};
    use crate::{plan::Level, record::Verdict, record::tests_support::record};

    const TABLE: Names = Names(&[
        Renamed { of: Of::Check, old: "routing/hots", new: "routing/host" },
        Renamed { of: Of::Check, old: "routing/host-a", new: "routing/host@a" },
        Renamed { of: Of::Check, old: "routing/path@old", new: "routing/path@new" },
        Renamed { of: Of::Clause("routing/host"), old: "wrong-host-is-404", new: "refused" },
        Renamed { of: Of::Capability, old: "host", new: "host-route" },
        Renamed { of: Of::Parameter(&["host-route"]), old: "marks", new: "refusals" },
    ]);

    #[rstest]
    #[case("routing/hots", "routing/host")]
    #[case("routing/hots@b", "routing/host@b")]
    #[case("routing/host-a", "routing/host@a")]
    #[case("routing/path@old", "routing/path@new")]
    #[case("routing/path@older", "routing/path@older")]
    #[case("routing/path", "routing/path")]
    #[case("wrong", "wrong")]
    fn titles(#[case] old: &str, #[case] new: &str) {
        assert_eq!(TABLE.title(old), new);
        assert_eq!(TABLE.title(new), new, "a name of today stays");
        let before = TABLE.titles_of_before(new);
        assert!(old == new || before.contains(&old.to_owned()), "{before:?}");
    }

    fn key(check: &str) -> Key {
        Key { gateway: "gw".into(), check: check.into(), case: "-".into(), attempt: 2 }
    }

    #[test]
    fn records() {
        let mut of_before = record(key("routing/hots"), Verdict::Fail);
        TABLE.record(&mut of_before);
        assert_eq!((of_before.key.clone(), of_before.clauses[0].name.as_str()), (key("routing/host"), "refused"));
        let mut another = record(key("routing/other"), Verdict::Fail);
        TABLE.record(&mut another);
        assert_eq!(another, record(key("routing/other"), Verdict::Fail), "a clause of another check");
        let one_case = Key { case: "a".into(), ..key("routing/host") };
        assert_eq!(TABLE.keys_of_before(&one_case).last(), Some(&key("routing/host-a")));
    }

    #[test]
    fn histories() {
        let mut history = crate::report::tests::World::history_of(&key("routing/hots")).unwrap();
        history.declared.insert("marks".into(), json!(1));
        TABLE.history(&mut history);
        assert_eq!(history.key, key("routing/host"));
        assert_eq!(history.declared, [("refusals".to_owned(), json!(1))].into());
    }

    #[test]
    fn what_was_taken_for_granted_is_declared() {
        let mut history = crate::report::tests::World::history_of(&key("tokens/exact")).unwrap();
        history.declared =
            [("block-when".to_owned(), json!("spent > limit")), ("marks".to_owned(), json!("refusals"))].into();
        NAMES.history(&mut history);
        assert_eq!(history.declared["marked-answers"], "refusals");
        assert_eq!(history.declared["charged-fields"], json!(["total"]));
    }

    #[test]
    fn plans() {
        let mut plan = small_plan();
        plan.checks = vec![planned("routing/hots", Level::Must)];
        plan.checks[0].capability = Some("host".into());
        let mut value = serde_json::to_value(&plan).unwrap();
        value["gateways"][0]["capabilities"] = json!({"host": {"marks": 1}, "other": {"marks": 2}});
        TABLE.declared(&mut value);
        assert_eq!(value["gateways"][0]["capabilities"], json!({"host-route": {"refusals": 1}, "other": {"marks": 2}}));
        TABLE.plan(&mut plan);
        assert_eq!(plan.checks[0].title(), "routing/host");
        assert_eq!(plan.checks[0].capability.as_deref(), Some("host-route"));
    }

    #[test]
    fn a_case_that_was_none_is_one() {
        let (mut check, mut case) = ("routing/host-a".to_owned(), None);
        TABLE.check(&mut check, &mut case);
        assert_eq!((check.as_str(), case.as_deref()), ("routing/host", Some("a")));
    }

    #[test]
    fn no_new_name_is_an_old_one() {
        for renamed in RENAMED {
            assert!(RENAMED.iter().all(|other| other.of != renamed.of || other.old != renamed.new), "{renamed:?}");
            if let Of::Parameter(capabilities) = renamed.of {
                let known = |name: &&str| Capability::named(name).is_some_and(|c| c.has(renamed.new));
                assert!(capabilities.iter().all(known), "{renamed:?}");
            }
        }
        for (of, name, value) in TAKEN_FOR_GRANTED {
            assert!(TOKEN_LIMIT.has(of) && TOKEN_LIMIT.has(name), "{of}, {name}");
            assert!(serde_json::from_str::<Value>(value).is_ok(), "{name}: {value}");
        }
    }
}

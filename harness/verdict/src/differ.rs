//! Cross-examination: where gateways do otherwise under the same check, and which of it is declared, with reason and link.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::file::{self, FileError};
use crate::history::check_and_case;
use crate::plan::{Filter, Place};

/// What was observed of one gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Of the gateway itself.
    pub version: String,
    /// Where.
    pub place: Place,
    /// In its canonical form.
    pub observation: Value,
}

/// Observations by check (`suite/name`, and `@case`) and gateway.
pub type Observations = BTreeMap<String, BTreeMap<String, Observed>>;

/// `golden/<gateway>/differences.yaml`: in what this gateway is known to differ from others.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    path: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    line: u64,
    check: Filter,
    from: Option<String>,
    at: Regex,
    declaration: Declaration,
}

/// Why a difference is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Declaration {
    /// File and line.
    pub place: String,
    /// Why.
    pub reason: String,
    /// Where it is documented or reported.
    pub link: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    differences: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Glob of checks.
    check: Spanned<String>,
    /// Regular expression of whole places.
    at: Spanned<String>,
    /// The other gateway; absent for any.
    from: Option<String>,
    reason: String,
    link: String,
}

impl Declared {
    /// Reads `<root>/<gateway>/differences.yaml`; a gateway without one has nothing to declare.
    pub fn find(root: &Path, gateway: &str) -> Result<Self, FileError> {
        let path = root.join(gateway).join("differences.yaml");
        match file::read_if_there(&path)? {
            Some(text) => Self::parse(&text, &path),
            None => Ok(Self { path, entries: vec![] }),
        }
    }

    /// Understands such a file; the path is only for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        let file: File = file::parse(text, path)?;
        let mut entries = Vec::new();
        for Written { check, at, from, reason, link } in file.differences {
            let line = check.referenced.line();
            let refused = |problem: String| FileError::entry(path, line, problem);
            if reason.trim().is_empty() {
                return Err(refused("an empty reason: say why the gateways may differ".to_owned()));
            }
            if !link.starts_with("https://") {
                return Err(refused(format!("{link:?} is no link: say where it is documented or reported")));
            }
            let check = Filter::checks("check", &[check.value]).map_err(|error| refused(error.to_string()))?;
            let at = file::whole(&at, path)?;
            let declaration = Declaration { place: format!("{}:{line}", path.display()), reason, link };
            entries.push(Entry { line, check, from, at, declaration });
        }
        Ok(Self { path: path.to_owned(), entries })
    }
}

/// What came of comparing gateways.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Examination {
    /// Pairs of gateways under a check.
    pub compared: usize,
    /// Those that do the same.
    pub same: usize,
    /// Those that do not.
    pub differences: Vec<Difference>,
    /// Declarations of what no longer differs, as `file:line`.
    pub stale: Vec<String>,
}

/// One check that two gateways answer otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// `suite/name`, and `@case`.
    pub check: String,
    /// The two gateways.
    pub gateways: [String; 2],
    /// Where they differ, each with its declaration where there is one.
    pub places: Vec<(String, Option<Declaration>)>,
}

impl Difference {
    /// Places that nobody declared.
    pub fn undeclared(&self) -> impl Iterator<Item = &str> {
        self.places.iter().filter(|(_, declaration)| declaration.is_none()).map(|(at, _)| at.as_str())
    }
}

impl Examination {
    /// Whether all that differs is declared, and all that is declared differs.
    pub fn is_explained(&self) -> bool {
        self.stale.is_empty() && self.differences.iter().all(|d| d.undeclared().next().is_none())
    }
}

/// Compares every two gateways under every check that both have.
pub fn examine(observations: &Observations, declared: &BTreeMap<String, Declared>) -> Examination {
    let mut came = Examination::default();
    // By gateway and line: of checks that were compared, and those that explained something.
    let (mut asked, mut used) = (BTreeSet::new(), BTreeSet::new());
    for (check, by_gateway) in observations {
        let all: Vec<_> = by_gateway.iter().collect();
        for (n, (left, one)) in all.iter().enumerate() {
            for (right, other) in &all[n + 1..] {
                came.compared += 1;
                let (name, case) = check_and_case(check);
                let about = |gateway: &'_ String, from: &'_ String| {
                    let entries = declared.get(gateway).into_iter().flat_map(|d| &d.entries);
                    let (gateway, from) = (gateway.clone(), from.clone());
                    entries
                        .filter(move |e| e.from.as_ref().is_none_or(|f| *f == from) && e.check.selects(name, case))
                        .map(move |e| ((gateway.clone(), e.line), e))
                };
                let entries: Vec<_> = about(left, right).chain(about(right, left)).collect();
                asked.extend(entries.iter().map(|(id, _)| id.clone()));
                let places = places(&one.observation, &other.observation);
                if places.is_empty() {
                    came.same += 1;
                    continue;
                }
                let mut explained = |at: String| {
                    let covering: Vec<_> = entries.iter().filter(|(_, entry)| entry.at.is_match(&at)).collect();
                    used.extend(covering.iter().map(|(id, _)| id.clone()));
                    let declaration = covering.first().map(|(_, entry)| entry.declaration.clone());
                    (at, declaration)
                };
                let places = places.into_iter().map(&mut explained).collect();
                let gateways = [(*left).clone(), (*right).clone()];
                came.differences.push(Difference { check: check.clone(), gateways, places });
            }
        }
    }
    let stale = |(gateway, line): &(String, u64)| {
        let path = declared.get(gateway).map(|d| d.path.display().to_string()).unwrap_or_default();
        format!("{path}:{line}")
    };
    came.stale = asked.difference(&used).map(stale).collect();
    came
}

/// Where two observations differ, as the keys that lead there, joined by `/`. Items of a list of maps go by their `label`,
/// `name` or `type`, namesakes as `x`, `x#2`, `x#3`, and by their number where they have none. Empty if and only if both
/// are equal.
pub fn places(left: &Value, right: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(Some(left), Some(right), "", &mut found);
    found
}

fn collect(left: Option<&Value>, right: Option<&Value>, at: &str, found: &mut Vec<String>) {
    if left == right {
        return;
    }
    let before = found.len();
    if let Some((lefts, rights)) = left.zip(right).and_then(|(l, r)| Some((parts(l)?, parts(r)?))) {
        let names: BTreeSet<&String> = lefts.keys().chain(rights.keys()).collect();
        for name in names {
            let below = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
            collect(lefts.get(name).copied(), rights.get(name).copied(), &below, found);
        }
    }
    // Leaves; and what only the order of items tells apart, or the kind of the whole.
    if found.len() == before {
        found.push(at.to_owned());
    }
}

/// The parts of a map, or of a list of maps, by name.
fn parts(value: &Value) -> Option<BTreeMap<String, &Value>> {
    match value {
        Value::Object(map) => Some(map.iter().map(|(name, value)| (name.clone(), value)).collect()),
        Value::Array(items) if items.iter().all(Value::is_object) => {
            let mut parts = BTreeMap::new();
            for (n, item) in items.iter().enumerate() {
                let name = ["label", "name", "type"].iter().find_map(|key| item[key].as_str());
                let name = name.map_or_else(|| n.to_string(), str::to_owned);
                let mut free = name.clone();
                for namesake in 2.. {
                    if !parts.contains_key(&free) {
                        break;
                    }
                    free = format!("{name}#{namesake}");
                }
                parts.insert(free, item);
            }
            Some(parts)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const GOOD: &str = "\
differences:
- check: routing/*
  at: exchanges/[^/]+/body
  from: other
  reason: because
  link: https://example.test/1
";

    fn observed(observation: Value) -> Observed {
        Observed { version: "v1.0.0".to_owned(), place: Place::Kind, observation }
    }

    fn examined(check: &str, mine: Value, others: Value, written: &str) -> Examination {
        let by_gateway = BTreeMap::from([("mine".to_owned(), observed(mine)), ("other".to_owned(), observed(others))]);
        let declared = Declared::parse(written, Path::new("golden/mine/differences.yaml")).unwrap();
        examine(&BTreeMap::from([(check.to_owned(), by_gateway)]), &BTreeMap::from([("mine".to_owned(), declared)]))
    }

    #[rstest]
    #[case(json!({"a": 1}), json!({"a": 1}), &[])]
    #[case(json!({"a": 1}), json!({"a": 2}), &["a"])]
    #[case(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 1}}), &["a/c"])]
    #[case(json!({"a": null}), json!({}), &["a"])]
    #[case(json!([{"label": "x", "status": 200}, {"label": "y"}]), json!([{"label": "y"}, {"label": "x", "status": 404}]), &["x/status"])]
    #[case(json!([{"label": "x"}, {"label": "y"}]), json!([{"label": "y"}, {"label": "x"}]), &[""])]
    #[case(json!({"a": [{"label": "x"}, {"label": "x", "n": 1}]}), json!({"a": [{"label": "x"}, {"label": "x", "n": 2}]}), &["a/x#2/n"])]
    #[case(json!({"a": [{"type": "Ready", "status": "True"}]}), json!({"a": [{"type": "Ready", "status": "False"}]}), &["a/Ready/status"])]
    #[case(json!({"a": [{"n": 1}, {"n": 2}]}), json!({"a": [{"n": 1}]}), &["a/1"])]
    #[case(json!({"a": ["x", "y"]}), json!({"a": ["x"]}), &["a"])]
    #[case(json!({"a": {"b": 1}}), json!({"a": [1]}), &["a"])]
    fn where_observations_differ(#[case] left: Value, #[case] right: Value, #[case] expected: &[&str]) {
        assert_eq!(places(&left, &right), expected);
        assert_eq!(places(&right, &left), expected);
    }

    #[rstest]
    #[case("routing/host", json!({"exchanges": [{"label": "x", "body": "b"}]}), true, 0)]
    #[case("routing/host@case", json!({"exchanges": [{"label": "x", "body": "b"}]}), true, 0)]
    #[case("errors/host", json!({"exchanges": [{"label": "x", "body": "b"}]}), false, 0)]
    #[case("routing/host", json!({"exchanges": [{"label": "x", "body": "b", "status": 503}]}), false, 0)]
    #[case("routing/host", json!({"exchanges": [{"label": "x", "body": "a"}]}), false, 1)]
    #[case("errors/host", json!({"exchanges": [{"label": "x", "body": "a"}]}), true, 0)]
    fn what_is_declared(#[case] check: &str, #[case] others: Value, #[case] explained: bool, #[case] stale: usize) {
        let came = examined(check, json!({"exchanges": [{"label": "x", "body": "a"}]}), others, GOOD);
        assert_eq!((came.is_explained(), came.stale.len(), came.compared), (explained, stale, 1), "{came:?}");
    }

    #[test]
    fn a_declaration_is_about_the_gateway_that_it_names() {
        let (mine, others) = (json!({"exchanges": [{"label": "x", "body": "a"}]}), json!({"exchanges": []}));
        let came = examined("routing/host", mine, others, &GOOD.replace("from: other", "from: third"));
        assert!(!came.is_explained() && came.stale.is_empty(), "{came:?}");
    }

    #[rstest]
    #[case("reason: because", "reason: ' '", &["line 2", "empty reason"])]
    #[case("link: https://example.test/1", "link: somewhere", &["line 2", "no link"])]
    #[case("at: exchanges", "at: (exchanges", &["line 3", "no regular expression"])]
    #[case("routing/*", "'routing/[*'", &["line 2", "routing/[*"])]
    #[case("from: other", "form: other", &["differences.yaml", "form"])]
    fn refuses(#[case] right: &str, #[case] wrong: &str, #[case] said: &[&str]) {
        assert!(GOOD.contains(right));
        let path = Path::new("differences.yaml");
        let message = Declared::parse(&GOOD.replace(right, wrong), path).unwrap_err().to_string();
        for words in said {
            assert!(message.contains(words), "{words:?} is not in {message}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(json!(null)), any::<bool>().prop_map(|b| json!(b)), "[a-c]{0,2}".prop_map(|s| json!(s))];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let key = prop_oneof!["[ab]", Just("label".to_owned()), Just("name".to_owned())];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_differs_if_and_only_if_both_are_equal(left in any_value(), right in any_value()) {
            prop_assert_eq!(places(&left, &right).is_empty(), left == right);
            prop_assert_eq!(places(&left, &left), Vec::<String>::new());
        }
    }
}

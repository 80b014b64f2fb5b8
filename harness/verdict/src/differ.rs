//! Cross-examination: where gateways do otherwise under the same check, and which of it is declared, with reason and link.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::capability::Capability;
use crate::file::{self, FileError};
use crate::history::check_and_case;
use crate::plan::{Filter, PlaceName};

#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub version: String,
    pub place: PlaceName,
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Declaration {
    /// File and line; `gateway.yaml` where it follows from what both gateways declare.
    pub place: String,
    pub reason: String,
    pub link: Option<String>,
}

/// What gateways declare, by gateway: capability -> parameters.
pub type Capabilities = BTreeMap<String, Value>;

/// Where gateways do otherwise as soon as they declare a parameter otherwise.
struct Consequence {
    capability: &'static Capability,
    /// One inside another is `outer/inner`.
    parameter: &'static str,
    /// Glob of checks.
    check: &'static str,
    /// Regular expression of whole places.
    at: &'static str,
}

const CONSEQUENCES: [Consequence; 11] = {
    const fn of(
        capability: &'static Capability,
        parameter: &'static str,
        check: &'static str,
        at: &'static str,
    ) -> Consequence {
        Consequence { capability, parameter, check, at }
    }
    use crate::capability::{CHAT_ERRORS, PATH_ROUTE, STREAMING, TOKEN_LIMIT, TRANSFORMATION};
    const VALUES: &str = "exchanges/[^/]+/[0-9]+/(headers|values/x-(actual|requested)-model)";
    const ERROR: &str = "exchanges/[^/]+/[0-9]+/(status|body/(text|json)|values/content-type)";
    [
        of(CHAT_ERRORS, "malformed-json", "errors/malformed-json", ERROR),
        of(CHAT_ERRORS, "no-model", "errors/no-model", ERROR),
        of(PATH_ROUTE, "regex-against-shorter-prefix", "routing/path-precedence@regex-and-shorter-prefix", REACHED),
        of(PATH_ROUTE, "regex-against-longer-prefix", "routing/path-precedence@regex-and-longer-prefix", REACHED),
        of(STREAMING, "usage-chunk/not-asked", "streaming/usage-chunk", "exchanges/not-asked/0/body/stream/.*"),
        of(STREAMING, "usage-chunk/refused", "streaming/usage-chunk", "exchanges/refused/0/body/stream/.*"),
        of(TOKEN_LIMIT, "body", "tokens/*", "(refusal|spent/[^/]+/then)/(body|headers)"),
        of(TOKEN_LIMIT, "block-when", "tokens/*", "spent/[^/]+/(admitted|then)"),
        of(TOKEN_LIMIT, "charged-fields", "tokens/charged-fields", "spent/spend/admitted"),
        of(TOKEN_LIMIT, "marked-answers", "tokens/failed-request-free", "spent/before/then/(headers|marked)"),
        of(TRANSFORMATION, "sources", "transformation/*", VALUES),
    ]
};

const REACHED: &str = "exchanges/both-match/0/reached";

fn consequences(check: &str, declared: [Option<&Value>; 2]) -> Vec<(Regex, Declaration)> {
    let [Some(left), Some(right)] = declared else { return vec![] };
    let (name, case) = check_and_case(check);
    let mut found = Vec::new();
    for Consequence { capability, parameter, check, at } in &CONSEQUENCES {
        let parameter = format!("{}/{parameter}", capability.name);
        let pointer = format!("/{parameter}");
        let (Some(left), Some(right)) = (left.pointer(&pointer), right.pointer(&pointer)) else { continue };
        #[expect(
            clippy::expect_used,
            reason = "the globs and patterns are constants of this file, and a test uses every one"
        )]
        let about = Filter::checks("check", &[(*check).to_owned()]).expect("a glob of this file");
        if left != right && about.selects(name, case) {
            #[expect(clippy::expect_used, reason = "as above")]
            let at = Regex::new(&format!("^(?:{at})$")).expect("a pattern of this file");
            let reason = format!("{parameter} is declared as {left} and as {right}");
            found.push((at, Declaration { place: "gateway.yaml".to_owned(), reason, link: None }));
        }
    }
    found
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    differences: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    check: Spanned<String>,
    at: Spanned<String>,
    /// The other gateway; absent for any.
    from: Option<String>,
    reason: String,
    link: String,
}

impl Declared {
    pub fn find(root: &Path, gateway: &str) -> Result<Self, FileError> {
        let path = root.join(gateway).join("differences.yaml");
        match file::read_if_there(&path)? {
            Some(text) => Self::parse(&text, &path),
            None => Ok(Self { path, entries: vec![] }),
        }
    }

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
            let place = format!("{}:{line}", path.display());
            let declaration = Declaration { place, reason, link: Some(link) };
            entries.push(Entry { line, check, from, at, declaration });
        }
        Ok(Self { path: path.to_owned(), entries })
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Examination {
    pub compared: usize,
    pub same: usize,
    pub differences: Vec<Difference>,
    /// Declarations of what no longer differs, as `file:line`.
    pub stale: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    pub check: String,
    pub gateways: [String; 2],
    pub places: Vec<(String, Option<Declaration>)>,
}

impl Difference {
    pub fn undeclared(&self) -> impl Iterator<Item = &str> {
        self.places.iter().filter(|(_, declaration)| declaration.is_none()).map(|(at, _)| at.as_str())
    }
}

impl Examination {
    pub fn is_explained(&self) -> bool {
        self.stale.is_empty() && self.differences.iter().all(|d| d.undeclared().next().is_none())
    }
}

pub fn examine(
    observations: &Observations,
    declared: &BTreeMap<String, Declared>,
    capabilities: &Capabilities,
) -> Examination {
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
                let consequences = consequences(check, [capabilities.get(*left), capabilities.get(*right)]);
                let mut explained = |at: String| {
                    let covering: Vec<_> = entries.iter().filter(|(_, entry)| entry.at.is_match(&at)).collect();
                    used.extend(covering.iter().map(|(id, _)| id.clone()));
                    let written = covering.first().map(|(_, entry)| &entry.declaration);
                    let follows = || consequences.iter().find(|(place, _)| place.is_match(&at)).map(|(_, d)| d);
                    let declaration = written.or_else(follows).cloned();
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
        Observed { version: "v1.0.0".to_owned(), place: PlaceName::Kind, observation }
    }

    fn examined(check: &str, mine: Value, others: Value, written: &str) -> Examination {
        with_capabilities(check, [mine, others], written, [json!({}), json!({})])
    }

    fn with_capabilities(check: &str, seen: [Value; 2], written: &str, capabilities: [Value; 2]) -> Examination {
        let gateways = || ["mine", "other"].map(str::to_owned).into_iter();
        let by_gateway = gateways().zip(seen.map(observed)).collect();
        let declared = Declared::parse(written, Path::new("golden/mine/differences.yaml")).unwrap();
        let declared = BTreeMap::from([("mine".to_owned(), declared)]);
        examine(&BTreeMap::from([(check.to_owned(), by_gateway)]), &declared, &gateways().zip(capabilities).collect())
    }

    #[rstest]
    #[case("chat-errors/malformed-json", "errors/malformed-json", "exchanges/cut-short/0/status")]
    #[case("chat-errors/no-model", "errors/no-model", "exchanges/no-model/0/values/content-type")]
    #[case("path-route/regex-against-shorter-prefix", "routing/path-precedence@regex-and-shorter-prefix", REACHED)]
    #[case("path-route/regex-against-longer-prefix", "routing/path-precedence@regex-and-longer-prefix", REACHED)]
    #[case("streaming/usage-chunk/not-asked", "streaming/usage-chunk", "exchanges/not-asked/0/body/stream/events")]
    #[case("streaming/usage-chunk/refused", "streaming/usage-chunk", "exchanges/refused/0/body/stream/events")]
    #[case("token-limit/body", "tokens/window", "spent/spend/then/body")]
    #[case("token-limit/block-when", "tokens/exact@budget-7", "spent/spend/admitted")]
    #[case("token-limit/charged-fields", "tokens/charged-fields", "spent/spend/admitted")]
    #[case("token-limit/marked-answers", "tokens/failed-request-free", "spent/before/then/marked")]
    #[case("transformation/sources", "transformation/gzip", "exchanges/compressed/0/values/x-actual-model")]
    fn what_is_declared_otherwise_is_done_otherwise(#[case] parameter: &str, #[case] check: &str, #[case] at: &str) {
        let nested = |path: &str, value: Value| path.rsplit('/').fold(value, |inner, key| json!({key: inner}));
        // A list of one exchange goes by its number, which a map called `0` does too.
        let seen = || ["here", "there"].map(|word| nested(at, json!(word)));
        let explained = |check: &str, capabilities| {
            with_capabilities(check, seen(), "differences: []", capabilities).is_explained()
        };
        let otherwise = || [1, 2].map(|value| nested(parameter, json!(value)));
        assert!(explained(check, otherwise()));
        assert!(!explained(check, [1, 1].map(|value| nested(parameter, json!(value)))), "declared the same");
        assert!(!explained(check, [json!({}), nested(parameter, json!(1))]), "declared by one");
        assert!(!explained("status/route", otherwise()), "another check");
        let elsewhere = with_capabilities(check, [json!({"a": 1}), json!({"a": 2})], "differences: []", otherwise());
        assert!(!elsewhere.is_explained(), "another place");
        let named = |row: &&Consequence| format!("{}/{}", row.capability.name, row.parameter) == parameter;
        let row = CONSEQUENCES.iter().find(named).unwrap();
        assert!(row.capability.has(&row.parameter.replace('/', ".")));
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

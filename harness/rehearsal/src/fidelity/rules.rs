//! Rules: what a recording says of a text, a body or a JSON value, and whether something else says the same.

use std::fmt;

use regex::Regex;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer, value::SeqAccessDeserializer},
};
use serde_json::Value;

/// What a text (a header's value, a message) must be. A scalar is the text itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TextRule {
    pub equals: Option<String>,
    #[serde(default)]
    pub one_of: Vec<String>,
    /// All of these are in it.
    #[serde(default)]
    pub contains: Many<String>,
    /// A regular expression finds something in it.
    pub matches: Option<Pattern>,
    pub at_least: Option<f64>,
    pub at_most: Option<f64>,
    /// `true`: it is there, whatever it says; `false`: it is not there.
    pub present: Option<bool>,
}

#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Regex::new(&text).map(Self).map_err(|error| {
            let why = error.to_string();
            let last = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            de::Error::custom(format!("{text:?} is no regular expression ({last})"))
        })
    }
}

impl TextRule {
    pub fn exactly(text: impl Into<String>) -> Self {
        Self { equals: Some(text.into()), ..Self::default() }
    }

    pub fn absent() -> Self {
        Self { present: Some(false), ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn holds(&self, text: Option<&str>) -> bool {
        let Some(text) = text else { return self.present == Some(false) };
        let number = || text.trim().parse::<f64>().ok();
        self.present != Some(false)
            && self.equals.as_deref().is_none_or(|wanted| wanted == text)
            && (self.one_of.is_empty() || self.one_of.iter().any(|wanted| wanted == text))
            && self.contains.0.iter().all(|part| text.contains(part.as_str()))
            && self.matches.as_ref().is_none_or(|pattern| pattern.0.is_match(text))
            && self.at_least.is_none_or(|least| number().is_some_and(|n| n >= least))
            && self.at_most.is_none_or(|most| number().is_some_and(|n| n <= most))
    }
}

impl fmt::Display for TextRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        match self.present {
            Some(false) => return f.write_str("absent"),
            Some(true) => words.push("present".to_owned()),
            None => {}
        }
        words.extend(self.equals.iter().cloned());
        if !self.one_of.is_empty() {
            words.push(format!("one of {}", self.one_of.join(", ")));
        }
        words.extend(self.contains.0.iter().map(|part| format!("contains {part:?}")));
        words.extend(self.matches.iter().map(|pattern| format!("matches {}", pattern.0)));
        words.extend(self.at_least.iter().map(|n| format!("at least {n}")));
        words.extend(self.at_most.iter().map(|n| format!("at most {n}")));
        f.write_str(&words.join(" and "))
    }
}

/// A scalar where a rule may stand: it is the text that is meant. Null means absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule<T>(pub T);

impl<'de, T: Deserialize<'de> + From<TextRule>> Deserialize<'de> for Rule<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(RuleVisitor(std::marker::PhantomData))
    }
}

struct RuleVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de> + From<TextRule>> Visitor<'de> for RuleVisitor<T> {
    type Value = Rule<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or a mapping such as {matches: ...}")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Rule(TextRule::exactly(text).into()))
    }
    fn visit_bool<E: de::Error>(self, yes: bool) -> Result<Self::Value, E> {
        // Kubernetes writes the status of a condition as a text, and YAML reads it as a truth value where it is not quoted.
        Ok(Rule(TextRule { one_of: spellings(yes), ..TextRule::default() }.into()))
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Rule(TextRule::absent().into()))
    }
    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        self.visit_unit()
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Rule)
    }
}

fn spellings(yes: bool) -> Vec<String> {
    let (upper, lower) = if yes { ("True", "true") } else { ("False", "false") };
    vec![upper.to_owned(), lower.to_owned()]
}

#[derive(Clone, Debug, PartialEq)]
pub struct Many<T>(pub Vec<T>);

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct One<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for One<T> {
            type Value = Many<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one, or a list")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(de::value::StrDeserializer::new(text)).map(|one| Many(vec![one]))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                T::deserialize(de::value::U64Deserializer::new(number)).map(|one| Many(vec![one]))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                T::deserialize(de::value::I64Deserializer::new(number)).map(|one| Many(vec![one]))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| Many(vec![one]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Many)
            }
        }
        from.deserialize_any(One(std::marker::PhantomData))
    }
}

/// What a body must be. A scalar is the whole text.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BodyRule {
    pub text: Option<String>,
    #[serde(default)]
    pub contains: Many<String>,
    pub matches: Option<Pattern>,
    /// It is JSON, and has all of this.
    pub json: Option<Value>,
    /// It is JSON, and has this and nothing else.
    pub json_exactly: Option<Value>,
    pub is_json: Option<bool>,
    pub bytes: Option<u64>,
    pub sha256: Option<String>,
}

impl From<TextRule> for BodyRule {
    /// Of a scalar: no value means no body.
    fn from(mut rule: TextRule) -> Self {
        Self { text: Some(rule.equals.or_else(|| rule.one_of.pop()).unwrap_or_default()), ..Self::default() }
    }
}

impl BodyRule {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Keys that stand for rules where a JSON value is expected: `{$matches: ...}`.
const LEAVES: [&str; 4] = ["$matches", "$contains", "$one-of", "$present"];

/// What is wrong with an expected JSON value itself.
pub fn unusable(expected: &Value) -> Option<String> {
    match expected {
        Value::Array(list) => list.iter().find_map(unusable),
        Value::Object(map) if map.keys().any(|k| k.starts_with('$')) => leaf(map).err(),
        Value::Object(map) => map.values().find_map(unusable),
        _ => None,
    }
}

/// The rule that a mapping with `$` keys stands for.
fn leaf(map: &serde_json::Map<String, Value>) -> Result<TextRule, String> {
    let mut rule = TextRule::default();
    for (key, value) in map {
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| format!("{key} takes a text, not {value}"));
        match key.as_str() {
            "$matches" => {
                let pattern = text()?;
                let regex = Regex::new(&pattern).map_err(|_| format!("{pattern:?} is no regular expression"))?;
                rule.matches = Some(Pattern(regex));
            }
            "$contains" => rule.contains.0.push(text()?),
            "$one-of" => {
                let list = value.as_array().ok_or_else(|| format!("{key} takes a list, not {value}"))?;
                rule.one_of = list.iter().map(shown).collect();
            }
            "$present" => {
                let yes = value.as_bool().ok_or_else(|| format!("{key} takes true or false, not {value}"))?;
                rule.present = Some(yes);
            }
            other => return Err(format!("no rule is called {other}; there are {}", LEAVES.join(", "))),
        }
    }
    Ok(rule)
}

/// A JSON value as a text: a string is itself.
pub fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// Objects may have more keys than expected.
    Part,
    /// Nothing more than expected is there.
    All,
}

/// Where a JSON value is not as expected: (path, expected, found).
pub fn differences(expected: &Value, found: Option<&Value>, cover: Cover) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    compare(expected, found, cover, "", &mut all);
    all
}

fn compare(expected: &Value, found: Option<&Value>, cover: Cover, path: &str, all: &mut Vec<(String, String, String)>) {
    let mut differ = |wanted: String| {
        all.push((path.to_owned(), wanted, found.map_or_else(|| "absent".to_owned(), Value::to_string)));
    };
    match (expected, found) {
        (Value::Object(wanted), _) if wanted.keys().any(|k| k.starts_with('$')) => match leaf(wanted) {
            Ok(rule) if rule.holds(found.map(shown).as_deref()) => {}
            Ok(rule) => differ(rule.to_string()),
            Err(why) => differ(why),
        },
        (Value::Object(wanted), Some(Value::Object(there))) => {
            for (key, value) in wanted {
                compare(value, there.get(key), cover, &format!("{path}.{key}"), all);
            }
            for (key, value) in there.iter().filter(|(k, _)| cover == Cover::All && !wanted.contains_key(*k)) {
                all.push((format!("{path}.{key}"), "absent".to_owned(), value.to_string()));
            }
        }
        (Value::Array(wanted), Some(Value::Array(there))) if wanted.len() == there.len() => {
            for (at, (wanted, there)) in wanted.iter().zip(there).enumerate() {
                compare(wanted, Some(there), cover, &format!("{path}[{at}]"), all);
            }
        }
        (wanted, Some(there)) if same_scalar(wanted, there) => {}
        (wanted, _) => differ(wanted.to_string()),
    }
}

/// Equal values; numbers are compared as numbers, so that 1 and 1.0 are one.
fn same_scalar(wanted: &Value, there: &Value) -> bool {
    wanted == there || matches!((wanted.as_f64(), there.as_f64()), (Some(a), Some(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn rule(yaml: &str) -> TextRule {
        serde_saphyr::from_str::<Rule<TextRule>>(yaml).unwrap().0
    }

    #[rstest]
    #[case("text/plain", Some("text/plain"), true)]
    #[case("text/plain", Some("text/plain; charset=utf-8"), false)]
    #[case("text/plain", None, false)]
    #[case("70", Some("70"), true)]
    #[case("True", Some("True"), true)]
    #[case("true", Some("False"), false)]
    #[case("null", None, true)]
    #[case("null", Some(""), false)]
    #[case("{present: true}", Some("x"), true)]
    #[case("{present: true}", None, false)]
    #[case("{present: false}", Some("x"), false)]
    #[case("{matches: '^[0-9]+$'}", Some("55"), true)]
    #[case("{matches: '^[0-9]+$'}", Some("5 s"), false)]
    #[case("{contains: [a, b]}", Some("ab"), true)]
    #[case("{contains: [a, b]}", Some("a"), false)]
    #[case("{contains: a}", Some("ba"), true)]
    #[case("{one-of: [a, b]}", Some("b"), true)]
    #[case("{one-of: [a, b]}", Some("c"), false)]
    #[case("{at-least: 1, at-most: 60}", Some("60"), true)]
    #[case("{at-least: 1, at-most: 60}", Some("61"), false)]
    #[case("{at-least: 1}", Some("x"), false)]
    fn texts(#[case] yaml: &str, #[case] text: Option<&str>, #[case] holds: bool) {
        assert_eq!(rule(yaml).holds(text), holds, "{}", rule(yaml));
    }

    #[rstest]
    #[case::part(json!({"a": 1}), json!({"a": 1.0, "b": 2}), Cover::Part, &[])]
    #[case::all(json!({"a": 1}), json!({"a": 1, "b": 2}), Cover::All, &[".b"])]
    #[case::missing(json!({"a": {"c": 1}}), json!({"a": {}}), Cover::Part, &[".a.c"])]
    #[case::list(json!([1, 2]), json!([1, 3]), Cover::Part, &["[1]"])]
    #[case::longer(json!({"l": [1]}), json!({"l": [1, 2]}), Cover::Part, &[".l"])]
    #[case::kind(json!("1"), json!(1), Cover::Part, &[""])]
    #[case::null(json!({"a": null}), json!({}), Cover::Part, &[".a"])]
    #[case::rule(json!({"id": {"$matches": "^chat"}}), json!({"id": "chatcmpl-1"}), Cover::Part, &[])]
    #[case::rule_no(json!({"id": {"$matches": "^chat"}}), json!({"id": "cmpl-1"}), Cover::Part, &[".id"])]
    #[case::absent(json!({"id": {"$present": false}}), json!({}), Cover::All, &[])]
    #[case::not_absent(json!({"id": {"$present": false}}), json!({"id": 1}), Cover::All, &[".id"])]
    fn values(#[case] expected: Value, #[case] found: Value, #[case] cover: Cover, #[case] at: &[&str]) {
        let found = differences(&expected, Some(&found), cover);
        assert_eq!(found.iter().map(|(path, ..)| path.as_str()).collect::<Vec<_>>(), at);
    }

    #[rstest]
    #[case(json!({"a": {"$matchs": "x"}}), "no rule is called $matchs")]
    #[case(json!([{"$matches": "("}]), "no regular expression")]
    #[case(json!({"$present": "yes"}), "true or false")]
    fn unusable_rules_are_told(#[case] expected: Value, #[case] said: &str) {
        assert!(unusable(&expected).is_some_and(|why| why.contains(said)));
    }
}

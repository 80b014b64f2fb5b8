//! Requirements: what each check demands, from where, and at which level. The checks' binary says them of itself, as a
//! registry; `suites/requirements.yaml` is the same for readers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, Serializer};

use crate::names;
use crate::plan::{Exclusive, Level, ModelName, PlaceName};

pub const REGISTRY_SCHEMA: &str = "igc.dev/registry/v1";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// At least one; ids are unique.
    pub checks: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Requirement {
    pub check: String,
    pub level: Level,
    pub sentence: String,
    pub source: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub how: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Capabilities that single cases need besides: case -> capability.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub case_capabilities: BTreeMap<String, String>,
    /// The model that it needs, because it reads that model's records; otherwise the run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// The model where it needs none and the run's was not given by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual_model: Option<ModelName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "on_one_line")]
    pub cases: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "on_one_line")]
    pub kills: Vec<String>,
    /// The gateways that it belongs to; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "on_one_line")]
    pub gateways: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub exclusive: Exclusive,
    #[serde(default, skip_serializing_if = "is_default")]
    pub counts_every_answer: bool,
    /// Places that cannot run it, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_on: BTreeMap<PlaceName, String>,
    /// Models that it cannot be run with, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_with: BTreeMap<ModelName, String>,
    /// Components that it is a statement about: where they are stand-ins it is not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "on_one_line")]
    pub about: Vec<String>,
}

/// A list that YAML shows in brackets; JSON has but one way.
fn on_one_line<S: Serializer>(list: &Vec<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serde_saphyr::FlowSeq(list).serialize(serializer)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequirementsError {
    #[error("failed to understand the requirements: {0}")]
    Shape(String),
    #[error(
        "the suites' registry is of {0}, this program reads {REGISTRY_SCHEMA}; build igc and the suites' binary together"
    )]
    Version(String),
    #[error("check {check}: {problem}")]
    Check { check: String, problem: String },
    #[error("there are no checks; a run without requirements proves nothing")]
    Empty,
}

impl Requirement {
    pub fn suite(&self) -> &str {
        self.check.split('/').next().unwrap_or_default()
    }

    /// Its cases, `-` where it has none.
    pub fn case_names(&self) -> Vec<&str> {
        if self.cases.is_empty() { vec!["-"] } else { self.cases.iter().map(String::as_str).collect() }
    }

    pub fn capabilities_of(&self, case: &str) -> impl Iterator<Item = &str> {
        self.capability.iter().chain(self.case_capabilities.get(case)).map(String::as_str)
    }

    fn problem(&self) -> Option<String> {
        if let Some(case) = self.case_capabilities.keys().find(|case| !self.cases.contains(case)) {
            return Some(format!("case-capabilities names {case}, which is no case of it"));
        }
        if !names::is_check_id(&self.check) {
            return Some("it is not suite/name in lower-case words joined by dashes".to_owned());
        }
        for (field, text, advice) in
            [("sentence", &self.sentence, "what must hold"), ("source", &self.source, "where that is written")]
        {
            if text.trim().is_empty() {
                return Some(format!("its {field} is empty; say {advice}"));
            }
        }
        for (field, values) in [("cases", &self.cases), ("kills", &self.kills)] {
            let mut seen = BTreeSet::new();
            for value in values {
                if !names::is_kebab(value) {
                    return Some(format!("{value:?} in {field} is not lower-case words joined by dashes"));
                }
                if !seen.insert(value) {
                    return Some(format!("{value} is twice in {field}; remove one"));
                }
            }
        }
        let places = self.not_on.iter().map(|(k, v)| (k.word(), v));
        let models = self.not_with.iter().map(|(k, v)| (k.word(), v));
        let mut excluded = places.chain(models);
        let without = excluded.find(|(_, reason)| reason.trim().is_empty());
        without.map(|(name, _)| format!("it excludes {name} without a reason; say why"))
    }
}

#[derive(Serialize, Deserialize)]
struct Registry {
    schema: String,
    checks: Vec<Requirement>,
}

/// `suites/requirements.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    checks: Vec<Requirement>,
}

impl Requirements {
    /// Refused where one contradicts itself, two have the same id, or there is none.
    pub fn of(checks: Vec<Requirement>) -> Result<Self, RequirementsError> {
        let mut ids = BTreeSet::new();
        for requirement in &checks {
            let twice = || "there are two of it; remove one".to_owned();
            let problem = requirement.problem().or_else(|| (!ids.insert(&requirement.check)).then(twice));
            if let Some(problem) = problem {
                return Err(RequirementsError::Check { check: requirement.check.clone(), problem });
            }
        }
        if checks.is_empty() { Err(RequirementsError::Empty) } else { Ok(Self { checks }) }
    }

    pub fn parse(text: &str) -> Result<Self, RequirementsError> {
        let file: File = serde_saphyr::from_str(text).map_err(|e| RequirementsError::Shape(e.to_string()))?;
        Self::of(file.checks)
    }

    pub fn from_registry(json: &[u8]) -> Result<Self, RequirementsError> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            schema: String,
        }
        let shape = |e: serde_json::Error| RequirementsError::Shape(e.to_string());
        let Head { schema } = serde_json::from_slice(json).map_err(shape)?;
        if schema != REGISTRY_SCHEMA {
            return Err(RequirementsError::Version(schema));
        }
        let registry: Registry = serde_json::from_slice(json).map_err(shape)?;
        Self::of(registry.checks)
    }

    pub fn to_registry(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Registry { schema: REGISTRY_SCHEMA.to_owned(), checks: self.checks.clone() })
    }

    /// The text of `suites/requirements.yaml`: suites under headings, each list on one line.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        let mut text = HEAD.to_owned();
        let mut suite = "";
        for requirement in &self.checks {
            if requirement.suite() != suite {
                suite = requirement.suite();
                let heading = format!("# ---- {suite} ");
                text += &format!("{heading:-<120}\n");
            }
            let entry = serde_saphyr::to_string_with_options(
                &[requirement],
                serde_saphyr::ser_options! { prefer_block_scalars: false },
            )?;
            text += &entry;
        }
        Ok(text)
    }

    /// Refuses a model that is none of these, with its check and the near names.
    pub fn models_are_among(&self, known: &[String]) -> Result<(), RequirementsError> {
        for requirement in &self.checks {
            let unknown = |model: &&ModelName| !known.iter().any(|k| k == model.word());
            if let Some(model) = requirement
                .model
                .iter()
                .chain(&requirement.usual_model)
                .chain(requirement.not_with.keys())
                .find(unknown)
            {
                let near = names::suggestion(&names::near(model.word(), known.iter().map(String::as_str)));
                let problem = format!("manifests/models has no {}{near}", model.word());
                return Err(RequirementsError::Check { check: requirement.check.clone(), problem });
            }
        }
        Ok(())
    }

    pub fn get(&self, check: &str) -> Option<&Requirement> {
        self.checks.iter().find(|r| r.check == check)
    }

    pub fn near(&self, wanted: &str) -> Vec<String> {
        let suites = self.checks.iter().map(Requirement::suite);
        names::near(wanted, suites.chain(self.checks.iter().map(|r| r.check.as_str())))
    }
}

const HEAD: &str = "\
# What is required, from where, and which wrong gateways (mutants) each check must expose.
# Generated from the checks by `cargo xtask tidy --write`, for readers: change the check, not this file.
# `model: echo` marks checks that read the model's own records; all others are served by the run's --model.
checks:
";

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const GOOD: &str = "
checks:
- check: routing/host
  level: MUST
  sentence: a hostname selects its route
  source: Gateway API v1
  how: asks for two hostnames, and looks who answered
  capability: host-route
  model: echo
  cases: [first, second-one]
  kills: [ignores-host]
  exclusive: gateway
  counts-every-answer: true
  not-on: {kind: \"needs a second cluster\"}
  not-with: {vllm-cpu: too slow}
  about: [cert-manager]
- {check: guide-002/route, level: INFO, sentence: s, source: t, gateways: [envoy-ai-gateway]}
";

    #[test]
    fn reads_every_field() {
        let read = Requirements::parse(GOOD).unwrap();
        let host = read.get("routing/host").unwrap();
        assert_eq!(
            (host.level, host.model.clone(), host.exclusive),
            (Level::Must, Some("echo".parse().unwrap()), Exclusive::Gateway)
        );
        assert_eq!(host.case_names(), ["first", "second-one"]);
        assert_eq!(host.kills, ["ignores-host"]);
        assert_eq!(host.how, "asks for two hostnames, and looks who answered");
        assert!(host.counts_every_answer);
        assert_eq!(host.not_on[&PlaceName::Kind], "needs a second cluster");
        assert_eq!(host.not_with[&"vllm-cpu".parse::<ModelName>().unwrap()], "too slow");
        let route = read.get("guide-002/route").unwrap();
        assert_eq!((route.suite(), route.level), ("guide-002", Level::Info));
        assert_eq!(route.case_names(), ["-"]);
        assert_eq!(route.gateways, ["envoy-ai-gateway"]);
        assert!(read.get("routing/other").is_none());
        assert_eq!(read.near("routing/hots"), ["routing/host"]);
    }

    #[rstest]
    #[case::misspelt_key("levle: MUST", "level: MUST", &["line 4", "levle"])]
    #[case::unknown_level("level: MAY", "level: MUST", &["line 4", "MAY"])]
    #[case::id_form("check: Routing/Host", "check: routing/host", &["check Routing/Host", "suite/name"])]
    #[case::id_twice("check: guide-002/route", "check: routing/host", &["check guide-002/route", "there are two"])]
    #[case::no_sentence("sentence: ' '", "sentence: a hostname selects its route", &["routing/host", "sentence is empty"])]
    #[case::no_source("source: ''", "source: Gateway API v1", &["routing/host", "source is empty"])]
    #[case::case_twice("cases: [first, first]", "cases: [first, second-one]", &["routing/host", "twice in cases"])]
    #[case::case_form("cases: [first, Second]", "cases: [first, second-one]", &["routing/host", "\"Second\""])]
    #[case::place("not-on: {moon: x}", "not-on: {kind: \"needs a second cluster\"}", &["line 14", "moon"])]
    #[case::no_reason("not-on: {kind: ''}", "not-on: {kind: \"needs a second cluster\"}", &["routing/host", "kind without a reason"])]
    fn refuses(#[case] wrong: &str, #[case] right: &str, #[case] said: &[&str]) {
        assert!(GOOD.contains(right), "the row replaces nothing");
        let message = Requirements::parse(&GOOD.replace(right, wrong)).unwrap_err().to_string();
        for word in said {
            assert!(message.contains(word), "{word:?} is not in: {message}");
        }
    }

    #[rstest]
    #[case("checks: []")]
    #[case("")]
    #[case("checks: 5")]
    fn refuses_nothing(#[case] text: &str) {
        assert!(Requirements::parse(text).is_err());
    }

    #[test]
    fn a_registry_and_a_file_read_as_they_were_written() {
        let all = Requirements::parse(GOOD).unwrap();
        assert_eq!(Requirements::from_registry(all.to_registry().unwrap().as_bytes()), Ok(all.clone()));
        let text = all.to_yaml().unwrap();
        assert_eq!(Requirements::parse(&text), Ok(all), "{text}");
        assert!(text.contains("  cases: [first, second-one]\n"), "{text}");
    }

    #[test]
    fn a_registry_of_another_version_is_refused() {
        let other = Requirements::parse(GOOD).unwrap().to_registry().unwrap().replace("registry/v1", "registry/v2");
        let error = Requirements::from_registry(other.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("is of igc.dev/registry/v2"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn any_sentence_is_quoted_where_it_must_be(sentence in "[^\\s\\p{C}]\\PC{0,60}", source in "\\PC{0,20}[^\\s\\p{C}]") {
            let mut all = Requirements::parse(GOOD).unwrap();
            all.checks[0].sentence = sentence;
            all.checks[1].source = source;
            proptest::prop_assert_eq!(Requirements::parse(&all.to_yaml().unwrap()), Ok(all));
        }
    }
}

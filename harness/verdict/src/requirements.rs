//! Requirements: what is required, from where, and at which level; read from `suites/requirements.yaml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::file::FileError;
use crate::names;
use crate::plan::{Exclusive, Level, ModelKind, Place};

/// Every requirement, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// The file they came from, for messages.
    pub path: PathBuf,
    /// At least one; ids are unique.
    pub checks: Vec<Requirement>,
}

/// What one check demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// `suite/name`.
    pub check: String,
    /// Its line in the file, counted from 1.
    pub line: u64,
    /// How much it matters.
    pub level: Level,
    /// What must hold, in one sentence.
    pub sentence: String,
    /// Where that is written.
    pub source: String,
    /// The capability of the gateway that it needs, if any.
    pub capability: Option<String>,
    /// The model that it needs, because it reads that model's records; otherwise the run's.
    pub model: Option<ModelKind>,
    /// Names of its cases; empty means that it has none.
    pub cases: Vec<String>,
    /// Mutants that it must expose.
    pub kills: Vec<String>,
    /// The gateways that it belongs to; empty means all.
    pub gateways: Vec<String>,
    /// What else may run beside it.
    pub exclusive: Exclusive,
    /// Retries are never allowed.
    pub counts_every_answer: bool,
    /// Places that cannot run it, with the reason.
    pub not_on: BTreeMap<Place, String>,
    /// Models that it cannot be run with, with the reason.
    pub not_with: BTreeMap<ModelKind, String>,
    /// Components that it is a statement about: where they are stand-ins it is not run.
    pub about: Vec<String>,
}

impl Requirement {
    /// The part of the id before the slash.
    pub fn suite(&self) -> &str {
        self.check.split('/').next().unwrap_or_default()
    }

    /// Its cases, `-` where it has none.
    pub fn case_names(&self) -> Vec<&str> {
        if self.cases.is_empty() { vec!["-"] } else { self.cases.iter().map(String::as_str).collect() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    checks: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    check: Spanned<String>,
    level: Level,
    sentence: String,
    source: String,
    capability: Option<String>,
    model: Option<ModelKind>,
    #[serde(default)]
    cases: Vec<Spanned<String>>,
    #[serde(default)]
    kills: Vec<Spanned<String>>,
    #[serde(default)]
    gateways: Vec<String>,
    #[serde(default)]
    exclusive: Exclusive,
    #[serde(default)]
    counts_every_answer: bool,
    #[serde(default)]
    not_on: BTreeMap<Place, String>,
    #[serde(default)]
    not_with: BTreeMap<ModelKind, String>,
    #[serde(default)]
    about: Vec<String>,
}

impl Requirements {
    /// Reads the file. Errors name the line.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let advice = "; requirements belong in suites/requirements.yaml";
        let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
            advice,
        })?;
        Self::parse(&text, path)
    }

    /// Understands the text; the path is only for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        let file: File = serde_saphyr::from_str(text).map_err(|e| FileError::shape(path, e))?;
        let mut checks: Vec<Requirement> = Vec::new();
        let mut lines: BTreeMap<String, u64> = BTreeMap::new();
        for entry in file.checks {
            let line = entry.check.referenced.line();
            let refuse = |line: u64, problem: String| FileError::entry(path, line, problem);
            if let Some(first) = lines.insert(entry.check.value.clone(), line) {
                let id = &entry.check.value;
                return Err(refuse(line, format!("check {id} is there already, in line {first}; remove one of them")));
            }
            entry.problem().map_or(Ok(()), |(line, problem)| Err(refuse(line, problem)))?;
            checks.push(entry.into_requirement(line));
        }
        if checks.is_empty() {
            return Err(FileError::entry(path, 1, "there is no check; a run without requirements proves nothing"));
        }
        Ok(Self { path: path.to_owned(), checks })
    }

    /// The requirement with this id.
    pub fn get(&self, check: &str) -> Option<&Requirement> {
        self.checks.iter().find(|r| r.check == check)
    }

    /// Known suites and checks that look like this one, the nearest first.
    pub fn near(&self, wanted: &str) -> Vec<String> {
        let suites = self.checks.iter().map(Requirement::suite);
        names::near(wanted, suites.chain(self.checks.iter().map(|r| r.check.as_str())))
    }
}

impl Entry {
    /// The first thing that is wrong with it, and its line.
    fn problem(&self) -> Option<(u64, String)> {
        let id = &self.check.value;
        let line = self.check.referenced.line();
        if !names::is_check_id(id) {
            return Some((line, format!("{id:?} is not suite/name in lower-case words joined by dashes")));
        }
        for (field, text) in [("sentence", &self.sentence), ("source", &self.source)] {
            if text.trim().is_empty() {
                return Some((
                    line,
                    format!(
                        "check {id} has an empty {field}; say {}",
                        match field {
                            "sentence" => "what must hold",
                            _ => "where that is written",
                        }
                    ),
                ));
            }
        }
        for (field, values) in [("cases", &self.cases), ("kills", &self.kills)] {
            let mut seen = std::collections::BTreeSet::new();
            for value in values {
                let line = value.referenced.line();
                if !names::is_kebab(&value.value) {
                    let word = &value.value;
                    return Some((
                        line,
                        format!("{word:?} in {field} of {id} is not lower-case words joined by dashes"),
                    ));
                }
                if !seen.insert(&value.value) {
                    return Some((line, format!("{} is twice in {field} of {id}; remove one", value.value)));
                }
            }
        }
        let places = self.not_on.iter().map(|(k, v)| (k.word(), v));
        let models = self.not_with.iter().map(|(k, v)| (k.word(), v));
        for (name, reason) in places.chain(models) {
            if reason.trim().is_empty() {
                return Some((line, format!("check {id} excludes {name} without a reason; say why")));
            }
        }
        None
    }

    fn into_requirement(self, line: u64) -> Requirement {
        Requirement {
            check: self.check.value,
            line,
            level: self.level,
            sentence: self.sentence,
            source: self.source,
            capability: self.capability,
            model: self.model,
            cases: self.cases.into_iter().map(|c| c.value).collect(),
            kills: self.kills.into_iter().map(|c| c.value).collect(),
            gateways: self.gateways,
            exclusive: self.exclusive,
            counts_every_answer: self.counts_every_answer,
            not_on: self.not_on,
            not_with: self.not_with,
            about: self.about,
        }
    }
}

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

    fn parse(text: &str) -> Result<Requirements, FileError> {
        Requirements::parse(text, Path::new("suites/requirements.yaml"))
    }

    #[test]
    fn reads_every_field() {
        let read = parse(GOOD).unwrap();
        let host = read.get("routing/host").unwrap();
        assert_eq!(host.line, 3);
        assert_eq!((host.level, host.model, host.exclusive), (Level::Must, Some(ModelKind::Echo), Exclusive::Gateway));
        assert_eq!(host.case_names(), ["first", "second-one"]);
        assert_eq!(host.kills, ["ignores-host"]);
        assert!(host.counts_every_answer);
        assert_eq!(host.not_on[&Place::Kind], "needs a second cluster");
        assert_eq!(host.not_with[&ModelKind::VllmCpu], "too slow");
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
    #[case::id_form("check: Routing/Host", "check: routing/host", &["line 3", "suite/name"])]
    #[case::id_twice("check: guide-002/route", "check: routing/host", &["line 16", "line 3", "already"])]
    #[case::no_sentence("sentence: ' '", "sentence: a hostname selects its route", &["line 3", "empty sentence"])]
    #[case::no_source("source: ''", "source: Gateway API v1", &["line 3", "empty source"])]
    #[case::case_twice("cases: [first, first]", "cases: [first, second-one]", &["line 9", "twice"])]
    #[case::case_form("cases: [first, Second]", "cases: [first, second-one]", &["line 9", "\"Second\""])]
    #[case::place("not-on: {moon: x}", "not-on: {kind: \"needs a second cluster\"}", &["line 13", "moon"])]
    #[case::no_reason("not-on: {kind: ''}", "not-on: {kind: \"needs a second cluster\"}", &["line 3", "without a reason"])]
    fn refuses(#[case] wrong: &str, #[case] right: &str, #[case] said: &[&str]) {
        assert!(GOOD.contains(right), "the row replaces nothing");
        let message = parse(&GOOD.replace(right, wrong)).unwrap_err().to_string();
        for word in said.iter().chain(&["suites/requirements.yaml"]) {
            assert!(message.contains(word), "{word:?} is not in: {message}");
        }
    }

    #[rstest]
    #[case("checks: []")]
    #[case("")]
    #[case("checks: 5")]
    fn refuses_nothing(#[case] text: &str) {
        assert!(parse(text).is_err());
    }

    #[test]
    fn the_projects_own_file_is_good() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../suites/requirements.yaml");
        let read = Requirements::read(&path).unwrap();
        assert!(read.get("routing/host").is_some());
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = Requirements::read(Path::new("no/such.yaml")).unwrap_err().to_string();
        assert!(message.contains("no/such.yaml"), "{message}");
    }
}

//! Cases: what was recorded at a real gateway, written down in YAML. The README of `harness/rehearsal/fidelity` is for
//! those who write them.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::{
    exchange::{Reply, Request},
    looks::Looks,
    rules::TextRule,
};
use crate::dialects;

#[derive(Clone, Debug)]
pub struct Case {
    /// `<file>/<name>`, or the file's name where it holds one case without a name.
    pub id: String,
    pub file: PathBuf,
    /// Its line in the file, counted from 1.
    pub line: u64,
    pub about: Option<String>,
    pub recording: Recording,
    /// What was recorded: a gateway that has a dialect, or [`MODEL`].
    pub gateway: String,
    pub version: String,
    pub without: Vec<String>,
    /// The namespace of objects that name none.
    pub namespace: String,
    pub kserve: Kserve,
    pub manifests: Vec<Value>,
    pub steps: Vec<Step>,
}

/// The name that stands for the model alone, where a recording has no gateway.
pub const MODEL: &str = "llm-d-sim";

/// The gateway in the world of a case; for the model alone any will do.
pub(super) fn gateway_of(recorded: &str) -> &str {
    if recorded == MODEL { dialects::names().next().unwrap_or(MODEL) } else { recorded }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    pub name: String,
    pub place: String,
    /// When. Noon (UTC) where only the day is known; the world's clock begins there.
    pub at: jiff::Timestamp,
}

impl Recording {
    /// The day, as `2026-11-21`.
    pub fn date(&self) -> String {
        self.at.strftime("%Y-%m-%d").to_string()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kserve {
    /// `namespace/name` of the Gateway that its routes attach to.
    pub gateway: String,
    pub domain: String,
}

impl Default for Kserve {
    fn default() -> Self {
        Self { gateway: "kserve/kserve-ingress-gateway".to_owned(), domain: "example.com".to_owned() }
    }
}

#[derive(Clone, Debug)]
pub struct Step {
    pub line: u64,
    pub action: Action,
}

#[derive(Clone, Debug)]
pub enum Action {
    Apply(Apply, Option<Admitted>),
    Delete(Reference),
    Patch(Patch, Option<Admitted>),
    Advance(Duration),
    Request(Box<Request>, Vec<Reply>),
    Object(Reference, Box<Looks>),
}

#[derive(Clone, Debug)]
pub struct Apply {
    pub manifests: Vec<Value>,
    pub dry_run: bool,
    pub validation: Validation,
}

/// `--validate` of kubectl.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Validation {
    #[default]
    Strict,
    Warn,
    Ignore,
}

impl Validation {
    pub fn word(self) -> &'static str {
        match self {
            Validation::Strict => "Strict",
            Validation::Warn => "Warn",
            Validation::Ignore => "Ignore",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Admitted {
    pub accepted: Option<bool>,
    /// It did not, and said this: as kubectl prints it, as the message of the Status, or as the list of its causes.
    pub refused: Option<Refusal>,
    pub code: Option<u16>,
    pub reason: Option<String>,
    /// Every warning, in order.
    pub warnings: Option<Vec<String>>,
    /// What the object has that it answered with.
    pub object: Option<Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    Said(Vec<String>),
    Rule(TextRule),
}

impl<'de> Deserialize<'de> for Refusal {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Refusal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the words of the refusal, a list of its causes, or a mapping such as {contains: ...}")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Refusal, E> {
                Ok(Refusal::Said(vec![text.to_owned()]))
            }
            fn visit_bool<E: de::Error>(self, yes: bool) -> Result<Refusal, E> {
                if yes { Ok(Refusal::Rule(TextRule::default())) } else { Err(E::custom("write `accepted: true`")) }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Refusal, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(Refusal::Said)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Refusal, A::Error> {
                TextRule::deserialize(de::value::MapAccessDeserializer::new(map)).map(Refusal::Rule)
            }
        }
        from.deserialize_any(Words)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Reference {
    /// Needed where several groups have the kind.
    pub api_version: Option<String>,
    pub kind: String,
    /// The case's namespace where it is absent.
    pub namespace: Option<String>,
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Patch {
    pub api_version: Option<String>,
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
    /// A JSON merge patch.
    pub merge: Value,
}

impl Patch {
    pub fn reference(&self) -> Reference {
        Reference {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

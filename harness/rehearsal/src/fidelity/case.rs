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

/// A recording, written down.
#[derive(Clone, Debug)]
pub struct Case {
    /// `<file>/<name>`, or the file's name where it holds one case without a name.
    pub id: String,
    /// Where it stands.
    pub file: PathBuf,
    /// Its line in the file, counted from 1.
    pub line: u64,
    /// What it shows, in a sentence.
    pub about: Option<String>,
    /// What it was written from.
    pub recording: Recording,
    /// What was recorded: a gateway that has a dialect, or [`MODEL`].
    pub gateway: String,
    /// Its version.
    pub version: String,
    /// Parts of the installation that were not there.
    pub without: Vec<String>,
    /// The namespace of objects that name none.
    pub namespace: String,
    /// The Gateway of KServe's routes, and the domain that it publishes under.
    pub kserve: Kserve,
    /// What was there before the first step.
    pub manifests: Vec<Value>,
    /// What was done, and what came of it.
    pub steps: Vec<Step>,
}

/// The name that stands for the model alone, where a recording has no gateway.
pub const MODEL: &str = "llm-d-sim";

/// The gateway in the world of a case; for the model alone any will do.
pub(super) fn gateway_of(recorded: &str) -> &str {
    if recorded == MODEL { dialects::names().next().unwrap_or(MODEL) } else { recorded }
}

/// What a case was written from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Its name.
    pub name: String,
    /// Where it was recorded, for example `kind`.
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

/// How KServe was set up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kserve {
    /// `namespace/name` of the Gateway that its routes attach to.
    #[serde(default = "kserve_gateway")]
    pub gateway: String,
    /// The domain of its hostnames.
    #[serde(default = "kserve_domain")]
    pub domain: String,
}

impl Default for Kserve {
    fn default() -> Self {
        Self { gateway: kserve_gateway(), domain: kserve_domain() }
    }
}

fn kserve_gateway() -> String {
    "kserve/kserve-ingress-gateway".to_owned()
}

fn kserve_domain() -> String {
    "example.com".to_owned()
}

/// One thing that was done, with what came of it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its line in the file, counted from 1.
    pub line: u64,
    /// What was done.
    pub action: Action,
}

/// What was done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Manifests were given to the API server.
    Apply(Apply, Option<Admitted>),
    /// An object was deleted.
    Delete(Reference),
    /// An object was patched.
    Patch(Patch, Option<Admitted>),
    /// Time went by.
    Advance(Duration),
    /// Requests were sent.
    Request(Box<Request>, Vec<Reply>),
    /// An object was looked at.
    Object(Reference, Box<Looks>),
}

/// How manifests were given.
#[derive(Clone, Debug)]
pub struct Apply {
    /// The objects.
    pub manifests: Vec<Value>,
    /// Whether nothing was to be stored.
    pub dry_run: bool,
    /// What was to be done about unknown fields.
    pub validation: Validation,
}

/// `--validate` of kubectl.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Validation {
    /// Refuse them.
    #[default]
    Strict,
    /// Drop them and say so.
    Warn,
    /// Drop them.
    Ignore,
}

impl Validation {
    /// As the API writes it.
    pub fn word(self) -> &'static str {
        match self {
            Validation::Strict => "Strict",
            Validation::Warn => "Warn",
            Validation::Ignore => "Ignore",
        }
    }
}

/// What the API server said.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Admitted {
    /// It took it.
    pub accepted: Option<bool>,
    /// It did not, and said this: as kubectl prints it, as the message of the Status, or as the list of its causes.
    pub refused: Option<Refusal>,
    /// The HTTP status code.
    pub code: Option<u16>,
    /// The reason of the Status, for example `Invalid`.
    pub reason: Option<String>,
    /// Every warning, in order.
    pub warnings: Option<Vec<String>>,
    /// What the object has that it answered with.
    pub object: Option<Value>,
}

/// Words of a refusal.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// These.
    Said(Vec<String>),
    /// Words that follow a rule.
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

/// An object by its name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Reference {
    /// Needed where several groups have the kind.
    pub api_version: Option<String>,
    /// For example `HTTPRoute`.
    pub kind: String,
    /// The case's namespace where it is absent.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// A change of an object.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Patch {
    /// Needed where several groups have the kind.
    pub api_version: Option<String>,
    /// For example `InferencePool`.
    pub kind: String,
    /// The case's namespace where it is absent.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// A JSON merge patch.
    pub merge: Value,
}

impl Patch {
    /// What is patched.
    pub fn reference(&self) -> Reference {
        Reference {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

//! Cases: what was recorded at a real gateway, written down in YAML. The README of `harness/rehearsal/fidelity` is for
//! those who write them.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::Spanned;
use verdict::names;

use super::rules::{self, BodyRule, Many, Rule, TextRule};
use crate::world::{GATEWAYS, WorldConfig};

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

/// The dialect that lives in the world of a case.
pub(super) fn gateway_of(recorded: &str) -> &str {
    if recorded == MODEL { GATEWAYS[0] } else { recorded }
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

/// A day, or a moment.
fn moment(text: &str) -> Option<jiff::Timestamp> {
    let noon = |day: jiff::civil::Date| day.at(12, 0, 0, 0).in_tz("UTC").ok().map(|noon| noon.timestamp());
    let at = text.parse().ok().or_else(|| text.parse().ok().and_then(noon))?;
    (at >= jiff::Timestamp::UNIX_EPOCH).then_some(at)
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

/// A request, sent once or several times.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Request {
    /// Where it is sent; the only Gateway where it is absent.
    #[serde(default)]
    pub to: To,
    /// POST where there is a body, GET where there is none.
    pub method: Option<String>,
    /// Path and query.
    pub path: String,
    /// The Host header; the address where it is absent.
    pub host: Option<String>,
    /// More headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Many<String>>,
    /// The body, as JSON.
    pub json: Option<Value>,
    /// The body, as text; without a `content-type` header it is sent as `application/json`. A mapping is JSON.
    pub body: Option<Value>,
    /// Makes the JSON body large.
    pub pad: Option<Pad>,
    /// What the model is told to reply: the headers of `harness/model/src/script.rs` without `x-igc-`.
    #[serde(default)]
    pub script: BTreeMap<String, Many<String>>,
    /// The client leaves after so much of the reply.
    pub leave_after: Option<Leave>,
    /// HTTP/2 with prior knowledge.
    #[serde(default)]
    pub http2: bool,
    /// Time that goes by while the reply is waited for.
    pub meanwhile: Option<Span>,
    /// How many times.
    #[serde(skip)]
    pub times: Option<usize>,
    /// All of them at once.
    #[serde(skip)]
    pub at_once: bool,
}

/// Where a request goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct To {
    /// `namespace/name` of a Gateway.
    pub gateway: Option<String>,
    /// `namespace/name` of a Service, instead of a Gateway.
    pub service: Option<String>,
    /// The port; of a Gateway its first listener's where it is absent, of a Service its first.
    pub port: Option<u16>,
}

/// A text of so many bytes in a JSON body.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pad {
    /// Where, as a JSON pointer: `/user`.
    pub at: String,
    /// How many.
    pub bytes: usize,
    /// What is repeated.
    #[serde(default = "pad_text")]
    pub of: String,
}

fn pad_text() -> String {
    "x".to_owned()
}

/// When a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leave {
    /// After the head.
    Head,
    /// After so many pieces of the body.
    Chunks(usize),
    /// After so many bytes of the body.
    Bytes(u64),
}

/// A time such as `60s` or `1m 30s`; a number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let seconds = text.parse::<u64>().ok().map(Duration::from_secs);
        let spelled = || text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        seconds
            .or_else(spelled)
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is no time; write for example 60s, 1m 30s or 1h")))
    }
}

/// What came back.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Reply {
    /// In a list of replies: how many of them in a row are like this; 1 where it is absent.
    pub times: Option<usize>,
    /// The status, or several of which each is right.
    pub status: Option<Many<u16>>,
    /// The statuses of all replies in order: `10 x 200 then 2 x 429`.
    pub statuses: Option<Statuses>,
    /// Headers by name, whatever their case.
    #[serde(default)]
    pub headers: BTreeMap<String, Rule<TextRule>>,
    /// The names of all headers, spelled as on the wire.
    pub header_names: Option<Vec<String>>,
    /// The body.
    pub body: Option<Rule<BodyRule>>,
    /// The data of all server-sent events in order.
    pub events: Option<Vec<Rule<BodyRule>>>,
    /// How the body ended.
    pub ended: Option<Ended>,
    /// Nobody answered.
    pub no_response: Option<bool>,
    /// What arrived at the model.
    pub upstream: Option<Upstream>,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// As its framing promised.
    Complete,
    /// The connection ended before.
    Truncated,
    /// The client left.
    Abandoned,
}

/// What arrived at models because of a request.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// Nothing.
    Nothing,
    /// One request.
    Arrived(Box<Arrived>),
}

/// A request as a model saw it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Arrived {
    /// The name of the pod.
    pub pod: Option<Rule<TextRule>>,
    /// The method.
    pub method: Option<String>,
    /// Path and query.
    pub path: Option<Rule<TextRule>>,
    /// Headers by name.
    #[serde(default)]
    pub headers: BTreeMap<String, Rule<TextRule>>,
    /// The names of all headers, in lower case.
    pub header_names: Option<Vec<String>>,
    /// The body.
    pub body: Option<Rule<BodyRule>>,
    /// Whether the model's reply was taken whole.
    pub finished: Option<bool>,
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct What;
        impl<'de> Visitor<'de> for What {
            type Value = Upstream;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`nothing`, or a mapping such as {path: /v1/chat/completions}")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Upstream, E> {
                match text {
                    "nothing" | "none" => Ok(Upstream::Nothing),
                    "something" | "any" => Ok(Upstream::Arrived(Box::default())),
                    other => Err(E::custom(format!("upstream is nothing, something or a mapping, not {other:?}"))),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Upstream, A::Error> {
                let arrived = Arrived::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Upstream::Arrived(Box::new(arrived)))
            }
        }
        from.deserialize_any(What)
    }
}

/// Statuses in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(pub Vec<u16>);

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let runs = Many::<String>::deserialize(from)?;
        let text = runs.0.join(" then ");
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!("{text:?} is no row of statuses; write for example \"10 x 200 then 2 x 429\""))
        })
    }
}

impl Statuses {
    fn parse(text: &str) -> Option<Self> {
        let mut all = Vec::new();
        for run in text.split("then").flat_map(|part| part.split(',')) {
            let (times, status) = run.split_once(['x', '×']).unwrap_or(("1", run));
            let (times, status) = (times.trim().parse::<usize>().ok()?, status.trim().parse::<u16>().ok()?);
            (times <= 10_000).then(|| all.extend(std::iter::repeat_n(status, times)))?;
        }
        Some(Self(all))
    }

    /// `10 x 200 then 2 x 429`.
    pub fn words(statuses: &[String]) -> String {
        let runs: Vec<String> = statuses
            .chunk_by(|a, b| a == b)
            .map(|run| if run.len() == 1 { run[0].clone() } else { format!("{} x {}", run.len(), run[0]) })
            .collect();
        runs.join(" then ")
    }
}

/// How an object looks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Looks {
    /// It is not there.
    pub absent: Option<bool>,
    /// Conditions: of its status, or of the one parent or ancestor there.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Every entry of `status.parents`.
    pub parents: Option<Vec<Part>>,
    /// Every entry of `status.ancestors`.
    pub ancestors: Option<Vec<Part>>,
    /// Every entry of `status.listeners`.
    pub listeners: Option<Vec<Part>>,
    /// What its status has; lists are whole.
    pub status: Option<Value>,
    /// What it has; lists are whole.
    #[serde(rename = "match")]
    pub has: Option<Value>,
}

/// A condition by its type.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: Option<Rule<TextRule>>,
    /// Its reason.
    pub reason: Option<Rule<TextRule>>,
    /// Its message.
    pub message: Option<Rule<TextRule>>,
    /// Whether it is of the object's newest generation.
    pub current: Option<bool>,
    /// There is no condition of this type.
    #[serde(default)]
    pub absent: bool,
}

/// An entry of a status: a parent, an ancestor, a listener.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Part {
    /// What `parentRef` or `ancestorRef` has.
    #[serde(rename = "ref")]
    pub reference: Option<Value>,
    /// The name of a listener.
    pub name: Option<String>,
    /// The controller that wrote it.
    pub controller_name: Option<Rule<TextRule>>,
    /// Routes of a listener.
    pub attached_routes: Option<u64>,
    /// Its conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// What is wrong with a file of cases.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// It cannot be read.
    #[error("failed to read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not YAML of the known shape.
    #[error("failed to understand {}: {message}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// A case says something that cannot be.
    #[error("failed to accept {} line {line}: {problem}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// A document of a file, or a case in its list of cases: the document's words hold for its cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<Spanned<String>>,
    about: Option<String>,
    recording: Option<String>,
    gateway: Option<Spanned<String>>,
    version: Option<Spanned<String>>,
    place: Option<String>,
    date: Option<Spanned<String>>,
    #[serde(default)]
    without: Vec<Spanned<String>>,
    namespace: Option<String>,
    kserve: Option<Kserve>,
    #[serde(default)]
    manifests: Manifests,
    steps: Option<Vec<Spanned<WrittenStep>>>,
    cases: Option<Vec<Spanned<Written>>>,
    #[serde(default, rename = "definitions")]
    _definitions: IgnoredAny,
}

/// Manifests as text of one or several documents, as mappings, or as a list of both.
#[derive(Clone, Debug, Default)]
struct Manifests(Vec<Value>);

impl<'de> Deserialize<'de> for Manifests {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Documents;
        impl<'de> Visitor<'de> for Documents {
            type Value = Manifests;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("manifests: YAML in a text, mappings, or a list of both")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Manifests, E> {
                let all: Vec<Value> = serde_saphyr::from_multiple(text)
                    .map_err(|error| E::custom(format!("the manifests in this text are no YAML: {}", plain(&error))))?;
                let all: Vec<Value> = all.into_iter().filter(|d| !d.is_null()).collect();
                all.iter().try_for_each(is_manifest).map_err(E::custom)?;
                Ok(Manifests(all))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Manifests, A::Error> {
                let one = Value::deserialize(de::value::MapAccessDeserializer::new(map))?;
                is_manifest(&one).map_err(de::Error::custom)?;
                Ok(Manifests(vec![one]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Manifests, A::Error> {
                let mut all = Vec::new();
                while let Some(Manifests(some)) = list.next_element()? {
                    all.extend(some);
                }
                Ok(Manifests(all))
            }
        }
        from.deserialize_any(Documents)
    }
}

fn is_manifest(object: &Value) -> Result<(), String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).is_some_and(|t| !t.is_empty());
    match ["/apiVersion", "/kind", "/metadata/name"].into_iter().find(|p| !text(p)) {
        Some(missing) => Err(format!("a manifest has no {}", missing[1..].replace('/', "."))),
        None => Ok(()),
    }
}

/// A step as it is written: what it expects depends on what it does, so that must come first.
struct WrittenStep(Action);

const STEP_FIELDS: &[&str] = &[
    "note",
    "apply",
    "delete",
    "patch",
    "advance",
    "request",
    "object",
    "expect",
    "dry-run",
    "validation",
    "times",
    "at-once",
];

impl<'de> Deserialize<'de> for WrittenStep {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(StepVisitor)
    }
}

struct StepVisitor;

impl<'de> Visitor<'de> for StepVisitor {
    type Value = WrittenStep;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a step: apply, delete, patch, advance, request or object, and then expect")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WrittenStep, A::Error> {
        let mut action: Option<Action> = None;
        let (mut dry_run, mut validation, mut times, mut at_once) = (None, None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let done = match key.as_str() {
                "note" => {
                    map.next_value::<String>()?;
                    None
                }
                "dry-run" => {
                    dry_run = Some(map.next_value::<bool>()?);
                    None
                }
                "validation" => {
                    validation = Some(map.next_value::<Validation>()?);
                    None
                }
                "times" => {
                    times = Some(map.next_value::<usize>()?);
                    None
                }
                "at-once" => {
                    at_once = Some(map.next_value::<bool>()?);
                    None
                }
                "expect" => {
                    match &mut action {
                        Some(Action::Apply(_, said) | Action::Patch(_, said)) => *said = Some(map.next_value()?),
                        Some(Action::Request(_, replies)) => *replies = map.next_value::<Many<Reply>>()?.0,
                        Some(Action::Object(_, looks)) => **looks = map.next_value()?,
                        Some(Action::Delete(_)) => return Err(de::Error::custom("a deletion expects nothing")),
                        Some(Action::Advance(_)) => return Err(de::Error::custom("advance expects nothing")),
                        None => return Err(de::Error::custom("write what is done before `expect`")),
                    }
                    None
                }
                "apply" => {
                    let Manifests(manifests) = map.next_value()?;
                    Some(Action::Apply(Apply { manifests, dry_run: false, validation: Validation::Strict }, None))
                }
                "delete" => Some(Action::Delete(map.next_value()?)),
                "patch" => Some(Action::Patch(map.next_value()?, None)),
                "advance" => Some(Action::Advance(map.next_value::<Span>()?.0)),
                "request" => {
                    let mut request: Box<Request> = Box::new(map.next_value()?);
                    if request.json.is_none() && request.body.as_ref().is_some_and(|b| b.is_object() || b.is_array()) {
                        request.json = request.body.take();
                    }
                    Some(Action::Request(request, vec![]))
                }
                "object" => Some(Action::Object(map.next_value()?, Box::default())),
                other => return Err(de::Error::unknown_field(other, STEP_FIELDS)),
            };
            if done.is_some() && action.is_some() {
                return Err(de::Error::custom(format!("a step does one thing: write `{key}` in a step of its own")));
            }
            action = done.or(action);
        }
        let Some(mut action) = action else {
            return Err(de::Error::custom("a step does one of apply, delete, patch, advance, request, object"));
        };
        let misplaced = match &mut action {
            Action::Apply(apply, _) => {
                apply.dry_run = dry_run.unwrap_or_default();
                apply.validation = validation.unwrap_or_default();
                [("times", times.is_some()), ("at-once", at_once.is_some())]
            }
            Action::Request(request, _) => {
                request.times = times;
                request.at_once = at_once.unwrap_or_default();
                [("dry-run", dry_run.is_some()), ("validation", validation.is_some())]
            }
            _ => [
                ("dry-run or validation", dry_run.is_some() || validation.is_some()),
                ("times or at-once", times.is_some() || at_once.is_some()),
            ],
        };
        match misplaced.iter().find(|(_, there)| *there) {
            Some((what, _)) => Err(de::Error::custom(format!("{what} does not belong to this step"))),
            None => Ok(WrittenStep(action)),
        }
    }
}

/// Reads a file of cases.
///
/// # Errors
/// See [`CaseError`]: what is wrong, in which file and line, and what to do.
pub fn read(path: &Path) -> Result<Vec<Case>, CaseError> {
    let text = std::fs::read_to_string(path).map_err(|source| CaseError::Read { path: path.to_owned(), source })?;
    parse(&text, path)
}

/// Understands a file of cases; the path gives names and is for messages.
///
/// # Errors
/// See [`CaseError`].
pub fn parse(text: &str, path: &Path) -> Result<Vec<Case>, CaseError> {
    let documents: Vec<Option<Spanned<Written>>> = serde_saphyr::from_multiple(text)
        .map_err(|error| CaseError::Shape { path: path.to_owned(), message: with_near_names(&plain(&error)) })?;
    let mut cases: Vec<Case> = Vec::new();
    for Spanned { value: document, referenced, .. } in documents.into_iter().flatten() {
        let line = referenced.line();
        let refused = |line: u64, problem: String| CaseError::Entry { path: path.to_owned(), line, problem };
        match &document.cases {
            Some(list) if document.steps.is_some() => {
                let line = list.first().map_or(line, |c| c.referenced.line());
                return Err(refused(line, "a document has steps or cases, not both".to_owned()));
            }
            Some(list) if list.is_empty() => return Err(refused(line, "cases is an empty list".to_owned())),
            Some(list) => {
                for case in list {
                    let line = case.referenced.line();
                    let made = Case::of(&case.value, Some(&document), path, line);
                    cases.push(made.map_err(|(line, problem)| refused(line, problem))?);
                }
            }
            None => {
                let made = Case::of(&document, None, path, line);
                cases.push(made.map_err(|(line, problem)| refused(line, problem))?);
            }
        }
    }
    if cases.is_empty() {
        let problem = "there is no case in it; harness/rehearsal/fidelity/README.md shows one".to_owned();
        return Err(CaseError::Entry { path: path.to_owned(), line: 1, problem });
    }
    for (at, case) in cases.iter().enumerate() {
        if cases[..at].iter().any(|other| other.id == case.id) {
            let problem = format!("{} is there twice; give each case of a file its own name", case.id);
            return Err(CaseError::Entry { path: path.to_owned(), line: case.line, problem });
        }
    }
    Ok(cases)
}

/// The message of an error on one line.
fn plain(error: &serde_saphyr::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Adds what a misspelt field may have meant.
fn with_near_names(message: &str) -> String {
    let wrong = message.split_once("unknown field `").and_then(|(_, rest)| rest.split_once('`'));
    let Some((wrong, known)) = wrong else { return message.to_owned() };
    let known = known.trim_start_matches(", expected ").trim_start_matches("one of ");
    let known = known.split([',', ' ']).map(|name| name.trim_matches('`')).filter(|name| !name.is_empty());
    format!("{message}{}", names::suggestion(&names::near(wrong, known)))
}

/// What is wrong, and in which line.
type Refused = (u64, String);

impl Case {
    fn of(case: &Written, document: Option<&Written>, path: &Path, line: u64) -> Result<Self, Refused> {
        let refuse = |problem: &str| (line, problem.to_owned());
        let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let id = match (&case.name, document) {
            (Some(name), _) if name.value.trim().is_empty() => {
                return Err((name.referenced.line(), "an empty name".into()));
            }
            (Some(name), _) => format!("{stem}/{}", name.value),
            (None, None) => stem,
            (None, Some(_)) => return Err(refuse("a case of a list needs a name")),
        };
        if document.is_some() && case.cases.is_some() {
            return Err(refuse("a case has steps, not cases"));
        }
        let of_both = |pick: fn(&Written) -> Option<&Spanned<String>>| pick(case).or_else(|| document.and_then(pick));
        let said = |pick: fn(&Written) -> Option<&String>| {
            pick(case).or_else(|| document.and_then(pick)).filter(|text| !text.trim().is_empty()).cloned()
        };
        let gateway = of_both(|w| w.gateway.as_ref())
            .ok_or_else(|| refuse("gateway is missing: what was recorded, for example agentgateway"))?;
        let known: Vec<&str> = GATEWAYS.into_iter().chain([MODEL]).collect();
        if !known.contains(&gateway.value.as_str()) {
            let near = names::suggestion(&names::near(&gateway.value, known.iter().copied()));
            let problem = format!("gateway {:?} cannot be rehearsed{near}; known: {}", gateway.value, known.join(", "));
            return Err((gateway.referenced.line(), problem));
        }
        let version = of_both(|w| w.version.as_ref())
            .ok_or_else(|| refuse("version is missing: of the gateway, for example v1.3.1"))?;
        let world = WorldConfig::new(gateway_of(&gateway.value), &version.value)
            .map_err(|error| (version.referenced.line(), format!("failed to {error}")))?;
        let date = of_both(|w| w.date.as_ref())
            .ok_or_else(|| refuse("date is missing: when it was recorded, for example 2026-11-21"))?;
        let at = moment(&date.value).ok_or_else(|| {
            let example = "2026-11-21 or 2026-11-21T07:23:19Z";
            (date.referenced.line(), format!("{:?} is no date; write for example {example}", date.value))
        })?;
        let recording = Recording {
            name: said(|w| w.recording.as_ref())
                .ok_or_else(|| refuse("recording is missing: the name of what this was written from"))?,
            place: said(|w| w.place.as_ref())
                .ok_or_else(|| refuse("place is missing: where it was recorded, for example kind"))?,
            at,
        };
        let mut without = Vec::new();
        for part in document.into_iter().flat_map(|d| &d.without).chain(&case.without) {
            let parts = world.dialect.parts();
            if !parts.contains(&part.value.as_str()) {
                let known = if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") };
                let problem = format!("{} cannot be without {:?}, only without {known}", gateway.value, part.value);
                return Err((part.referenced.line(), problem));
            }
            without.push(part.value.clone());
        }
        let steps: Vec<Step> = case
            .steps
            .iter()
            .flatten()
            .map(|step| Step { line: step.referenced.line(), action: step.value.0.clone() })
            .collect();
        let mut manifests = document.map(|d| d.manifests.0.clone()).unwrap_or_default();
        manifests.extend(case.manifests.0.iter().cloned());
        let made = Self {
            id,
            file: path.to_owned(),
            line,
            about: said(|w| w.about.as_ref()),
            recording,
            gateway: gateway.value.clone(),
            version: version.value.clone(),
            without,
            namespace: said(|w| w.namespace.as_ref()).unwrap_or_else(|| "default".to_owned()),
            kserve: case.kserve.clone().or_else(|| document.and_then(|d| d.kserve.clone())).unwrap_or_default(),
            manifests,
            steps,
        };
        made.check()?;
        Ok(made)
    }

    /// Refuses what could never differ, and what makes no sense.
    fn check(&self) -> Result<(), Refused> {
        if self.kserve.gateway.split_once('/').is_none_or(|(home, name)| home.is_empty() || name.is_empty()) {
            return Err((self.line, format!("kserve.gateway {:?} is not namespace/name", self.kserve.gateway)));
        }
        let mut expectations = 0;
        for step in &self.steps {
            expectations += step.check().map_err(|problem| (step.line, problem))?;
        }
        if expectations == 0 {
            let problem = "it expects nothing, so that it would agree with everything: add a step with `expect`";
            return Err((self.line, problem.to_owned()));
        }
        Ok(())
    }
}

impl Step {
    /// How much it expects.
    fn check(&self) -> Result<usize, String> {
        match &self.action {
            Action::Apply(apply, said) => {
                if apply.manifests.is_empty() {
                    return Err("apply has no manifest".to_owned());
                }
                check_admitted(said.as_ref(), apply.manifests.len())
            }
            Action::Patch(_, said) => check_admitted(said.as_ref(), 1),
            Action::Delete(_) | Action::Advance(_) => Ok(0),
            Action::Object(_, looks) => looks.check(),
            Action::Request(request, replies) => request.check(replies),
        }
    }
}

fn check_admitted(said: Option<&Admitted>, objects: usize) -> Result<usize, String> {
    let Some(said) = said else { return Ok(0) };
    let refused =
        said.refused.is_some() || said.accepted == Some(false) || said.code.is_some() || said.reason.is_some();
    if said.accepted == Some(true) && (said.refused.is_some() || said.reason.is_some()) {
        return Err("it is accepted or refused, not both".to_owned());
    }
    if said.accepted.is_none() && !refused && said.warnings.is_none() && said.object.is_none() {
        return Err("expect is empty: write accepted, refused, warnings or object".to_owned());
    }
    if refused && objects > 1 {
        return Err("which of the objects is refused? apply that one in a step of its own".to_owned());
    }
    said.object.as_ref().and_then(rules::unusable).map_or(Ok(1), Err)
}

impl Request {
    fn check(&self, replies: &[Reply]) -> Result<usize, String> {
        if !self.path.starts_with('/') {
            return Err(format!("path {:?} does not begin with /", self.path));
        }
        if self.json.is_some() && self.body.is_some() {
            return Err("a request has a json or a body, not both".to_owned());
        }
        if let Some(pad) = &self.pad {
            let parent = pad.at.rsplit_once('/').map(|(parent, _)| parent);
            let there = parent.and_then(|p| self.json.as_ref()?.pointer(p)).is_some_and(Value::is_object);
            if !there || pad.of.is_empty() || pad.bytes > 64 * 1024 * 1024 {
                return Err(format!(
                    "pad needs a json body with an object above {}, a text, and at most 64 MiB",
                    pad.at
                ));
            }
        }
        if self.to.gateway.is_some() && self.to.service.is_some() {
            return Err("a request goes to a gateway or to a service, not both".to_owned());
        }
        for name in self.to.gateway.iter().chain(&self.to.service) {
            if name.split_once('/').is_none_or(|(home, name)| home.is_empty() || name.is_empty()) {
                return Err(format!("{name:?} is not namespace/name"));
            }
        }
        if let Some(name) =
            self.script.keys().find(|k| !model::script::HEADERS.contains(&format!("x-igc-{k}").as_str()))
        {
            let known = model::script::HEADERS.map(|h| h.trim_start_matches("x-igc-"));
            let near = names::suggestion(&names::near(name, known));
            return Err(format!("a model's script has no {name:?}{near}; there are {}", known.join(", ")));
        }
        if replies.is_empty() {
            return Err("a request without `expect` says nothing: write what came back".to_owned());
        }
        let counted: usize = replies.iter().map(|r| r.times.unwrap_or(1)).sum();
        if replies.iter().any(|r| r.times == Some(0)) || self.times == Some(0) {
            return Err("0 times is never".to_owned());
        }
        if replies.len() > 1 && self.times.is_some_and(|times| times != counted) {
            return Err(format!("{} requests are sent, and {counted} replies expected", self.times.unwrap_or(1)));
        }
        if replies.len() > 1 && replies.iter().any(|r| r.statuses.is_some()) {
            return Err("statuses is of all replies: write it without a list".to_owned());
        }
        if let ([one], Some(times)) = (replies, self.times) {
            let other =
                one.times.filter(|t| *t != times).or(one.statuses.as_ref().map(|s| s.0.len()).filter(|n| *n != times));
            if let Some(other) = other {
                return Err(format!("{times} requests are sent, and {other} replies expected"));
            }
        }
        replies.iter().try_for_each(Reply::check)?;
        Ok(replies.len())
    }

    /// How many requests are sent.
    pub fn count(&self, replies: &[Reply]) -> usize {
        match replies {
            [one] => self.times.or(one.times).or(one.statuses.as_ref().map(|s| s.0.len())).unwrap_or(1),
            many => many.iter().map(|r| r.times.unwrap_or(1)).sum(),
        }
    }
}

impl Reply {
    fn check(&self) -> Result<(), String> {
        let nothing = self.status.is_none()
            && self.statuses.is_none()
            && self.headers.is_empty()
            && self.header_names.is_none()
            && self.body.is_none()
            && self.events.is_none()
            && self.ended.is_none()
            && self.no_response.is_none()
            && self.upstream.is_none();
        if nothing {
            return Err("expect is empty: write status, headers, body or upstream".to_owned());
        }
        if self.status.as_ref().is_some_and(|s| s.0.is_empty())
            || self.statuses.as_ref().is_some_and(|s| s.0.is_empty())
        {
            return Err("status is an empty list".to_owned());
        }
        if self.no_response == Some(true) && (self.status.is_some() || self.statuses.is_some() || self.body.is_some()) {
            return Err("no-response has neither status nor body".to_owned());
        }
        check_headers(&self.headers)?;
        self.body.iter().chain(self.events.iter().flatten()).try_for_each(check_body)?;
        if let Some(Upstream::Arrived(arrived)) = &self.upstream {
            check_headers(&arrived.headers)?;
            arrived.body.iter().try_for_each(check_body)?;
        }
        Ok(())
    }
}

fn check_headers(headers: &BTreeMap<String, Rule<TextRule>>) -> Result<(), String> {
    match headers.iter().find(|(_, rule)| rule.0.is_empty()) {
        Some((name, _)) => Err(format!("header {name}: an empty rule; write {{present: true}}")),
        None => Ok(()),
    }
}

fn check_body(body: &Rule<BodyRule>) -> Result<(), String> {
    if body.0.is_empty() {
        return Err("body: an empty rule; write the text, or {json: ...}".to_owned());
    }
    body.0.json.iter().chain(&body.0.json_exactly).find_map(rules::unusable).map_or(Ok(()), Err)
}

impl Looks {
    fn check(&self) -> Result<usize, String> {
        let parts = [&self.parents, &self.ancestors, &self.listeners];
        let nothing = self.absent.is_none()
            && self.conditions.is_empty()
            && parts.iter().all(|p| p.is_none())
            && self.status.is_none()
            && self.has.is_none();
        if nothing {
            return Err("an object without `expect` says nothing: write conditions, status, match or absent".to_owned());
        }
        for condition in
            self.conditions.iter().chain(parts.iter().filter_map(|p| p.as_ref()).flatten().flat_map(|p| &p.conditions))
        {
            let says = condition.status.is_some() || condition.reason.is_some() || condition.message.is_some();
            if !says && condition.current.is_none() && !condition.absent {
                return Err(format!("condition {}: write status, reason, message or absent: true", condition.kind));
            }
        }
        self.status.iter().chain(&self.has).find_map(rules::unusable).map_or(Ok(1), Err)
    }
}

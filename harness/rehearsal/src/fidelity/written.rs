//! Writing: how cases are read from files, and what is said of a file that cannot be understood.

use std::{fmt, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::Spanned;
use verdict::{file::FileError, guides, names};

use super::{
    case::{Action, Apply, Case, Kserve, MODEL, Recording, Step, Validation, gateway_of},
    exchange::{Reply, Request, Span},
    rules::Many,
};
use crate::{dialects, world::WorldConfig};

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
                f.write_str("manifests: YAML in a text, mappings, `guide: <guide>/<name>`, or a list of these")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Manifests, E> {
                documents(text).map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Manifests, A::Error> {
                let one = Value::deserialize(de::value::MapAccessDeserializer::new(map))?;
                if let Some(name) = one.get("guide").and_then(Value::as_str) {
                    let none = |near: Vec<String>| {
                        format!("no guide prints a manifest called {name}{}", names::suggestion(&near))
                    };
                    return guides::printed(name).map_err(none).and_then(documents).map_err(de::Error::custom);
                }
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

fn documents(text: &str) -> Result<Manifests, String> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| format!("the manifests in this text are no YAML: {}", plain(&error)))?;
    let all: Vec<Value> = all.into_iter().filter(|d| !d.is_null()).collect();
    all.iter().try_for_each(is_manifest)?;
    Ok(Manifests(all))
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
        let (mut dry_run, mut validation): (Option<bool>, Option<Validation>) = (None, None);
        let (mut times, mut at_once): (Option<usize>, Option<bool>) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            let begun = match key.as_str() {
                "apply" => {
                    let Manifests(manifests) = map.next_value()?;
                    Action::Apply(Apply { manifests, dry_run: false, validation: Validation::Strict }, None)
                }
                "delete" => Action::Delete(map.next_value()?),
                "patch" => Action::Patch(map.next_value()?, None),
                "advance" => Action::Advance(map.next_value::<Span>()?.0),
                "request" => {
                    let mut request: Box<Request> = Box::new(map.next_value()?);
                    if request.json.is_none() && request.body.as_ref().is_some_and(|b| b.is_object() || b.is_array()) {
                        request.json = request.body.take();
                    }
                    Action::Request(request, vec![])
                }
                "object" => Action::Object(map.next_value()?, Box::default()),
                other => {
                    match (other, &mut action) {
                        ("note", _) => _ = map.next_value::<String>()?,
                        ("dry-run", _) => dry_run = Some(map.next_value()?),
                        ("validation", _) => validation = Some(map.next_value()?),
                        ("times", _) => times = Some(map.next_value()?),
                        ("at-once", _) => at_once = Some(map.next_value()?),
                        ("expect", Some(Action::Apply(_, said) | Action::Patch(_, said))) => {
                            *said = Some(map.next_value()?);
                        }
                        ("expect", Some(Action::Request(_, replies))) => *replies = map.next_value::<Many<Reply>>()?.0,
                        ("expect", Some(Action::Object(_, looks))) => **looks = map.next_value()?,
                        ("expect", Some(Action::Delete(_))) => {
                            return Err(de::Error::custom("a deletion expects nothing"));
                        }
                        ("expect", Some(Action::Advance(_))) => {
                            return Err(de::Error::custom("advance expects nothing"));
                        }
                        ("expect", None) => return Err(de::Error::custom("write what is done before `expect`")),
                        _ => return Err(de::Error::unknown_field(other, STEP_FIELDS)),
                    }
                    continue;
                }
            };
            if action.replace(begun).is_some() {
                return Err(de::Error::custom(format!("a step does one thing: write `{key}` in a step of its own")));
            }
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

pub fn read(path: &Path) -> Result<Vec<Case>, FileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FileError::read(path, source))?;
    parse(&text, path)
}

/// The path gives the cases their names, and is for messages.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Case>, FileError> {
    let documents: Vec<Option<Spanned<Written>>> =
        serde_saphyr::from_multiple(text).map_err(|error| FileError::shape(path, with_near_names(&plain(&error))))?;
    let mut cases: Vec<Case> = Vec::new();
    for Spanned { value: document, referenced, .. } in documents.into_iter().flatten() {
        let line = referenced.line();
        let refused = |line: u64, problem: String| FileError::entry(path, line, problem);
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
        let problem = "there is no case in it; harness/rehearsal/fidelity/README.md shows one";
        return Err(FileError::entry(path, 1, problem));
    }
    for (at, case) in cases.iter().enumerate() {
        if cases[..at].iter().any(|other| other.id == case.id) {
            let problem = format!("{} is there twice; give each case of a file its own name", case.id);
            return Err(FileError::entry(path, case.line, problem));
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

fn moment(text: &str) -> Option<jiff::Timestamp> {
    let noon = |day: jiff::civil::Date| day.at(12, 0, 0, 0).in_tz("UTC").ok().map(|noon| noon.timestamp());
    let at = text.parse().ok().or_else(|| text.parse().ok().and_then(noon))?;
    (at >= jiff::Timestamp::UNIX_EPOCH).then_some(at)
}

/// What is wrong, and in which line.
pub(super) type Refused = (u64, String);

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
        let known: Vec<&str> = dialects::names().chain([MODEL]).collect();
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
            let parts = world.gateway.parts();
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
}

//! Observation: the canonical form of a history, the same for every run of the same behaviour. Golden files hold it.
//!
//! Names, ids, times and addresses that differ from run to run are replaced by placeholders such as `<namespace>`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::history::{Admission, Ended, Exchange, History, Outcome};
use crate::{canary, change::OF_A_CONNECTION, redact};

mod body;
mod placeholders;

use placeholders::Placeholders;

/// How many characters of a body that is not JSON are kept.
const TEXT_KEPT: usize = 500;

/// Headers whose values mean something to a client.
const VALUE_HEADERS: [&str; 13] = [
    "allow",
    "cache-control",
    "content-encoding",
    "content-type",
    "location",
    "ratelimit-limit",
    "ratelimit-policy",
    "www-authenticate",
    "x-envoy-ratelimited",
    "x-ratelimit-limit",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-should-retry",
];

/// Headers whose values change from request to request, so that only their presence and form are kept.
const FORM_HEADERS: [&str; 9] = [
    "ratelimit-remaining",
    "ratelimit-reset",
    "retry-after",
    "x-ratelimit-remaining",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
];

/// The observation of a whole history. Checks of bursts and budgets build their own with an [`Observer`].
pub fn observe(history: &History) -> Value {
    Observer::new(history).all()
}

#[derive(Clone, Debug)]
pub struct Observer<'h> {
    history: &'h History,
    placeholders: Placeholders,
    values: BTreeSet<String>,
}

impl<'h> Observer<'h> {
    pub fn new(history: &'h History) -> Self {
        Self {
            history,
            placeholders: Placeholders::of(history),
            values: VALUE_HEADERS.iter().map(|&h| h.to_owned()).collect(),
        }
    }

    /// Keeps the values of these response headers too: what a transformation sets, for example.
    pub fn with_values_of(mut self, headers: &[&str]) -> Self {
        self.values.extend(headers.iter().map(|h| h.to_ascii_lowercase()));
        self
    }

    pub fn all(&self) -> Value {
        let exchanges = self.exchanges(self.history.exchanges.iter());
        let all = [("admissions", self.admissions()), ("conditions", self.conditions()), ("exchanges", exchanges)];
        let there = all.into_iter().filter(|(_, value)| value.as_object().is_some_and(|map| !map.is_empty()));
        there.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// These exchanges by label, in order within each; neighbours that look the same are one entry with `times`.
    ///
    /// What order labels came in is up to the drive. A check whose point it is observes that itself.
    fn exchanges<'e>(&self, exchanges: impl IntoIterator<Item = &'e Exchange>) -> Value {
        grouped(
            exchanges
                .into_iter()
                .map(|exchange| (self.placeholders.apply(&exchange.label), self.exchange(exchange), 1)),
        )
    }

    /// Outcomes of these exchanges counted by status (or by what failed), for checks where order is chance.
    pub fn statuses<'e>(&self, exchanges: impl IntoIterator<Item = &'e Exchange>) -> Value {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for exchange in exchanges {
            let outcome = match &exchange.outcome {
                Outcome::Response(response) => response.status.to_string(),
                Outcome::Failed { stage, .. } => format!("failed to {stage}"),
            };
            *counts.entry(outcome).or_default() += 1;
        }
        json!(counts)
    }

    fn exchange(&self, exchange: &Exchange) -> Value {
        let line = format!("{} {}", exchange.request.method, exchange.request.target);
        let mut seen = vec![("request", Some(json!(self.text(&line))))];
        match &exchange.outcome {
            Outcome::Response(response) => {
                let values = self.header_values(&response.headers);
                let content_type = response.header("content-type").unwrap_or_default();
                seen.extend([
                    ("status", Some(json!(response.status))),
                    ("headers", Some(json!(header_names(&response.headers)))),
                    ("values", (!values.is_empty()).then(|| json!(values))),
                    ("body", self.body(&response.body, content_type)),
                    ("ended", (response.ended != Ended::Complete).then(|| json!(response.ended))),
                ]);
            }
            Outcome::Failed { stage, .. } => seen.push(("failed", Some(json!(stage)))),
        }
        seen.push(("reached", self.reached(exchange)));
        seen.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// Models that recorded this exchange, each as often as it did. Nothing where no model keeps records.
    ///
    /// `unproven` where none did and the records are not whole.
    fn reached(&self, exchange: &Exchange) -> Option<Value> {
        if self.history.models.is_empty() {
            return None;
        }
        let mut reached: Vec<String> =
            self.history.reached(exchange).iter().map(|(model, _)| self.placeholders.apply(model)).collect();
        reached.sort();
        if reached.is_empty() && !self.history.models.values().all(crate::history::ModelLog::is_whole) {
            return Some(json!("unproven"));
        }
        Some(json!(reached))
    }

    fn header_values(&self, headers: &[(String, String)]) -> BTreeMap<String, String> {
        let mut kept: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            let value = if self.values.contains(&name) {
                self.text(&redact::header(&name, value))
            } else if FORM_HEADERS.contains(&name.as_str()) {
                form(value).to_owned()
            } else {
                continue;
            };
            kept.entry(name).or_default().push(value);
        }
        kept.into_iter().map(|(name, values)| (name, values.join(", "))).collect()
    }

    fn admissions(&self) -> Value {
        let said = self.history.admissions.iter().map(|(name, admission)| {
            let said = match admission {
                Admission::Accepted { warnings } if warnings.is_empty() => json!("accepted"),
                Admission::Accepted { warnings } => {
                    json!({"accepted with warnings": warnings.iter().map(|w| self.text(w)).collect::<Vec<_>>()})
                }
                Admission::Refused { code, reason, message } => {
                    json!({"refused": {"code": code, "reason": reason, "message": self.text(message)}})
                }
            };
            (self.placeholders.apply(name), said)
        });
        Value::Object(said.collect())
    }

    pub fn conditions(&self) -> Value {
        let mut of_objects = Map::new();
        for (name, object) in &self.history.objects {
            let found = self.conditions_of(object);
            if found.as_object().is_some_and(|m| !m.is_empty()) {
                of_objects.insert(self.placeholders.apply(name), found);
            }
        }
        Value::Object(of_objects)
    }

    /// Conditions of one object: place in its status -> type, status, reason and message of each.
    fn conditions_of(&self, object: &Value) -> Value {
        let mut found = Map::new();
        if let Some(status) = object.get("status") {
            self.collect_conditions(status, "status", &mut found);
        }
        Value::Object(found)
    }

    fn collect_conditions(&self, value: &Value, place: &str, found: &mut Map<String, Value>) {
        match value {
            Value::Object(map) => {
                for (name, inner) in map {
                    match inner {
                        Value::Array(list) if name == "conditions" => {
                            let mut list: Vec<Value> = list.iter().map(|c| self.condition(c)).collect();
                            list.sort_by_key(|c| c["type"].as_str().unwrap_or_default().to_owned());
                            found.insert(place.to_owned(), Value::Array(list));
                        }
                        _ => self.collect_conditions(inner, &format!("{place}.{name}"), found),
                    }
                }
            }
            Value::Array(list) => {
                for (index, inner) in list.iter().enumerate() {
                    let name = self.name_of(inner).unwrap_or_else(|| index.to_string());
                    let mut place = format!("{place}[{name}]");
                    while found.contains_key(&place) {
                        place.push('\''); // two entries of the same name are both kept
                    }
                    self.collect_conditions(inner, &place, found);
                }
            }
            _ => {}
        }
    }

    /// What tells an entry of a list in a status from the others: its name, or parent and controller.
    fn name_of(&self, entry: &Value) -> Option<String> {
        if let Some(name) = entry.get("name").and_then(Value::as_str) {
            return Some(self.placeholders.apply(name));
        }
        let reference = ["parentRef", "ancestorRef"].iter().find_map(|r| entry.get(*r))?;
        let text = |name: &str| reference.get(name).and_then(Value::as_str).unwrap_or_default();
        let section = reference.get("sectionName").and_then(Value::as_str).map(|s| format!("/{s}")).unwrap_or_default();
        let kind = reference.get("kind").and_then(Value::as_str).unwrap_or("Gateway");
        let controller = entry.get("controllerName").and_then(Value::as_str).unwrap_or("?");
        Some(self.placeholders.apply(&format!("{kind} {}{section} by {controller}", text("name"))))
    }

    fn condition(&self, condition: &Value) -> Value {
        let mut kept = Map::new();
        for name in ["type", "status", "reason", "message"] {
            if let Some(text) = condition.get(name).and_then(Value::as_str) {
                kept.insert(name.to_owned(), json!(self.text(text)));
            }
        }
        Value::Object(kept)
    }

    /// Text without secrets and without what differs from run to run.
    fn text(&self, text: &str) -> String {
        self.placeholders.apply(&redact::text(text))
    }

    /// JSON without what differs from run to run: ids, times, fingerprints, names of pods.
    fn json(&self, value: &Value) -> Value {
        body::canonical(&redact::object(value), &self.placeholders)
    }

    /// A body: JSON as canonical JSON, a stream as its events, else text. Nothing where it is empty.
    fn body(&self, body: &crate::history::Body, content_type: &str) -> Option<Value> {
        body::observed(body, content_type, self)
    }
}

/// Entries of (label, what was seen, how often) by label.
fn grouped(entries: impl IntoIterator<Item = (String, Value, u64)>) -> Value {
    let mut groups: BTreeMap<String, Vec<(Value, u64)>> = BTreeMap::new();
    for (label, seen, times) in entries {
        let group = groups.entry(label).or_default();
        match group.last_mut() {
            Some((last, count)) if *last == seen => *count += times,
            _ => group.push((seen, times)),
        }
    }
    let with_times = |(mut seen, times): (Value, u64)| {
        if let (Value::Object(map), true) = (&mut seen, times > 1) {
            map.insert("times".to_owned(), json!(times));
        }
        seen
    };
    let groups = groups.into_iter().map(|(label, group)| (label, group.into_iter().map(with_times).collect()));
    Value::Object(groups.collect())
}

/// An observation as it is made today, of one whose exchanges are a list in which each names its label.
pub fn by_label(mut observation: Value) -> Value {
    let named = |exchanges: &Vec<Value>| exchanges.iter().all(|entry| entry["label"].is_string());
    if let Some(Value::Array(exchanges)) = observation.get_mut("exchanges").filter(|e| e.as_array().is_some_and(named))
    {
        let entries = std::mem::take(exchanges).into_iter().map(|mut entry| {
            let mut take = |name: &str| entry.as_object_mut().and_then(|map| map.remove(name));
            let label = take("label").and_then(|label| label.as_str().map(str::to_owned)).unwrap_or_default();
            let times = take("times").and_then(|times| times.as_u64()).unwrap_or(1);
            (label, entry, times)
        });
        observation["exchanges"] = grouped(entries.collect::<Vec<_>>());
    }
    observation
}

/// Names in lower case, sorted, each once, those of framing and canaries left out.
fn header_names(headers: &[(String, String)]) -> BTreeSet<String> {
    let names = headers.iter().map(|(name, _)| name.to_ascii_lowercase());
    // Whether those are there depends on framing and not on behaviour.
    let of_framing = |name: &str| name == "date" || OF_A_CONNECTION.contains(&name);
    names.filter(|name| !of_framing(name) && !canary::is_header(name)).collect()
}

fn form(value: &str) -> &'static str {
    match value.trim().parse::<f64>() {
        Ok(number) if number < 0.0 => "<negative number>",
        Ok(_) => "<number>",
        Err(_) if value.trim().is_empty() => "<empty>",
        Err(_) => "<text>",
    }
}

#[cfg(test)]
mod tests;

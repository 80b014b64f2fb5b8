//! Objects of a history: what they are, and what their conditions say.

use serde::Serialize;
use serde_json::Value;

use crate::history::{Admission, History};

use super::super::{Lines, inert};
use super::line;

/// Conditions of one object that are shown.
const CONDITIONS: usize = 24;
/// Longest text of an object.
const TEXT: usize = 3_000;

#[derive(Serialize)]
pub struct Object {
    name: String,
    kind: String,
    conditions: Vec<Condition>,
    text: String,
}

#[derive(Serialize)]
struct Condition {
    of: String,
    kind: String,
    status: String,
    reason: String,
    message: String,
}

/// What the API server said to a manifest.
#[derive(Serialize)]
pub struct Said {
    name: String,
    class: &'static str,
    words: String,
}

pub fn with_conditions(history: &History) -> Vec<Object> {
    history.objects.iter().map(|(name, object)| Object::of(name, object)).collect()
}

pub fn admissions(history: &History) -> Vec<Said> {
    let said = |(name, admission): (&String, &Admission)| {
        let (class, words) = match admission {
            Admission::Accepted { warnings } if warnings.is_empty() => ("answer", "accepted".to_owned()),
            Admission::Accepted { warnings } => ("answer", format!("accepted, with warnings: {}", warnings.join("; "))),
            Admission::Refused { code, reason, message } => ("refusal", format!("{code} {reason}: {message}")),
        };
        Said { name: line(name), class, words: inert(&words, TEXT, Lines::Joined) }
    };
    history.admissions.iter().map(said).collect()
}

impl Object {
    fn of(name: &str, object: &Value) -> Self {
        let word = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let mut conditions = Vec::new();
        collect(&object["status"], "", &mut conditions);
        conditions.truncate(CONDITIONS);
        Self {
            name: line(name),
            kind: line(&format!("{} {}/{}", word("/kind"), word("/metadata/namespace"), word("/metadata/name"))),
            conditions,
            text: inert(&serde_json::to_string_pretty(object).unwrap_or_default(), TEXT, Lines::Kept),
        }
    }
}

/// Every list named `conditions` below a status, with the name of what it belongs to.
fn collect(value: &Value, of: &str, found: &mut Vec<Condition>) {
    match value {
        Value::Object(fields) => {
            let own = ["name", "controllerName"].iter().find_map(|f| fields.get(*f).and_then(Value::as_str));
            let parent = ["parentRef", "ancestorRef"].iter().find_map(|f| fields.get(*f)?["name"].as_str());
            let of = parent.or(own).unwrap_or(of);
            for (name, field) in fields {
                match field.as_array() {
                    Some(list) if name == "conditions" => found.extend(list.iter().map(|c| Condition::of(of, c))),
                    _ => collect(field, of, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, of, found)),
        _ => {}
    }
}

impl Condition {
    fn of(of: &str, condition: &Value) -> Self {
        let word = |name: &str| line(condition[name].as_str().unwrap_or_default());
        Self {
            of: line(of),
            kind: word("type"),
            status: word("status"),
            reason: word("reason"),
            message: word("message"),
        }
    }
}

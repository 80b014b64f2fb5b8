//! Objects of a history: what they are, and what their conditions say.

use serde_json::{Value, json};

use crate::history::{Admission, History};

use super::super::{Lines, inert};
use super::line;

const CONDITIONS: usize = 24;
const TEXT: usize = 3_000;

pub fn with_conditions(history: &History) -> Vec<Value> {
    history.objects.iter().map(|(name, object)| described(name, object)).collect()
}

pub fn admissions(history: &History) -> Vec<Value> {
    let of = |(name, admission): (&String, &Admission)| {
        let (class, answer) = match admission {
            Admission::Accepted { warnings } if warnings.is_empty() => ("answer", "accepted".to_owned()),
            Admission::Accepted { warnings } => ("answer", format!("accepted, with warnings: {}", warnings.join("; "))),
            Admission::Refused { code, reason, message } => ("refusal", format!("{code} {reason}: {message}")),
        };
        json!({"name": line(name), "class": class, "answer": inert(&answer, TEXT, Lines::Joined)})
    };
    history.admissions.iter().map(of).collect()
}

fn described(name: &str, object: &Value) -> Value {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let mut conditions = Vec::new();
    collect(&object["status"], "", &mut conditions);
    conditions.truncate(CONDITIONS);
    json!({
        "name": line(name),
        "kind": line(&format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))),
        "conditions": conditions,
        "text": inert(&serde_json::to_string_pretty(object).unwrap_or_default(), TEXT, Lines::Kept),
    })
}

/// Every list named `conditions` below a status, with the name of what it belongs to.
fn collect(value: &Value, of: &str, found: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            let own = ["name", "controllerName"].iter().find_map(|f| fields.get(*f).and_then(Value::as_str));
            let parent = ["parentRef", "ancestorRef"].iter().find_map(|f| fields.get(*f)?["name"].as_str());
            let of = parent.or(own).unwrap_or(of);
            for (name, field) in fields {
                match field.as_array() {
                    Some(list) if name == "conditions" => found.extend(list.iter().map(|c| condition(of, c))),
                    _ => collect(field, of, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, of, found)),
        _ => {}
    }
}

fn condition(of: &str, condition: &Value) -> Value {
    let text = |name: &str| line(condition[name].as_str().unwrap_or_default());
    json!({
        "of": line(of),
        "kind": text("type"),
        "status": text("status"),
        "reason": text("reason"),
        "message": text("message"),
    })
}

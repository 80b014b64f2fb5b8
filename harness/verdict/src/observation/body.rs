//! Bodies in canonical form: JSON without ids and times, streams as the shape of their events, text bounded.

use serde_json::{Map, Value, json};

use super::{Observer, Placeholders, TEXT_KEPT};
use crate::history::Body;

/// JSON fields that differ from reply to reply, and what stands for them.
const FIELDS: [(&str, &str); 12] = [
    ("id", "<id>"),
    ("request_id", "<id>"),
    ("requestId", "<id>"),
    ("tool_call_id", "<id>"),
    ("uid", "<id>"),
    ("created", "<time>"),
    ("created_at", "<time>"),
    ("timestamp", "<time>"),
    ("system_fingerprint", "<fingerprint>"),
    ("resourceVersion", "<id>"),
    ("pod", "<pod>"),
    ("pod_name", "<pod>"),
];

/// Fields of a stream's events whose values are kept; of others only the type is.
const STREAM_VALUES: [&str; 6] = ["object", "model", "role", "finish_reason", "usage", "error"];

pub(super) fn observed(body: &Body, content_type: &str, observer: &Observer<'_>) -> Option<Value> {
    if body.bytes == 0 {
        return None;
    }
    let Some(text) = &body.text else {
        return Some(json!({"binary": body.bytes}));
    };
    if content_type.to_ascii_lowercase().starts_with("text/event-stream") {
        return Some(stream(text, observer));
    }
    if !body.truncated
        && let Ok(value) = serde_json::from_str::<Value>(text)
        && (value.is_object() || value.is_array())
    {
        return Some(json!({"json": observer.json(&value)}));
    }
    let kept = observer.text(text);
    if kept.chars().count() > TEXT_KEPT || body.truncated {
        let begins: String = kept.chars().take(TEXT_KEPT).collect();
        return Some(json!({"begins": begins, "long": true}));
    }
    Some(json!({"text": kept}))
}

pub(super) fn canonical(value: &Value, placeholders: &Placeholders) -> Value {
    match value {
        Value::String(text) => Value::String(placeholders.apply(text)),
        Value::Array(items) => Value::Array(items.iter().map(|v| canonical(v, placeholders)).collect()),
        Value::Object(map) => {
            // In a list of models the id is the model's name.
            let is_model = map.get("object").and_then(Value::as_str) == Some("model");
            let field = |(name, value): (&String, &Value)| {
                let placeholder = FIELDS.iter().find(|(field, _)| field == name).map(|(_, p)| *p);
                let kept = match (placeholder, value) {
                    (Some("<id>"), Value::String(id)) if is_model && name == "id" => json!(placeholders.apply(id)),
                    (Some(placeholder), Value::String(_) | Value::Number(_)) => json!(placeholder),
                    _ => canonical(value, placeholders),
                };
                (name.clone(), kept)
            };
            Value::Object(map.iter().map(field).collect())
        }
        other => other.clone(),
    }
}

/// Events of a stream: their shapes in order, neighbours of one shape counted, and whether it ended with `[DONE]`.
fn stream(text: &str, observer: &Observer<'_>) -> Value {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut shapes: Vec<(Value, u64)> = Vec::new();
    let mut count: u64 = 0;
    let mut last = None;
    let mut pieces = text.split("\n\n").collect::<Vec<_>>();
    let rest = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let event = event(piece, observer);
        let Some(event) = event else { continue };
        count += 1;
        last = Some(event.clone());
        match shapes.last_mut() {
            Some((shape, times)) if *shape == event => *times += 1,
            _ => shapes.push((event, 1)),
        }
    }
    let shapes: Vec<Value> = shapes.into_iter().map(|(shape, times)| json!({"shape": shape, "times": times})).collect();
    let mut seen = Map::new();
    seen.insert("events".into(), json!(count));
    seen.insert("shapes".into(), Value::Array(shapes));
    seen.insert("done".into(), json!(last == Some(json!("[DONE]"))));
    if !rest.trim().is_empty() {
        seen.insert("unfinished".into(), json!(observer.text(rest).chars().take(TEXT_KEPT).collect::<String>()));
    }
    json!({"stream": seen})
}

fn event(piece: &str, observer: &Observer<'_>) -> Option<Value> {
    let mut data: Vec<&str> = Vec::new();
    let mut fields = Map::new();
    for line in piece.lines().filter(|l| !l.is_empty() && !l.starts_with(':')) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => data.push(value),
            "id" => {
                fields.insert(name.to_owned(), json!("<id>"));
            }
            _ => {
                fields.insert(name.to_owned(), json!(observer.text(value)));
            }
        }
    }
    if data.is_empty() && fields.is_empty() {
        return None;
    }
    let data = data.join("\n");
    let shape = match serde_json::from_str::<Value>(&data) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => shape(&observer.json(&value)),
        _ => json!(observer.text(&data)),
    };
    if fields.is_empty() {
        return Some(shape);
    }
    fields.insert("data".into(), shape);
    Some(Value::Object(fields))
}

/// Names and types; values only of the fields that mean something.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let field = |(name, value): (&String, &Value)| {
                let kept = if STREAM_VALUES.contains(&name.as_str()) { value.clone() } else { shape(value) };
                (name.clone(), kept)
            };
            Value::Object(map.iter().map(field).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(shape).collect()),
        Value::String(text) if text.starts_with('<') && text.ends_with('>') => json!(text),
        Value::String(_) => json!("<text>"),
        Value::Number(_) => json!("<number>"),
        Value::Bool(_) => json!("<boolean>"),
        Value::Null => Value::Null,
    }
}

//! Validation: a value against a schema, with the API's messages.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::compiled::{Bound, ListType, Schema, Type};
use super::field_path::join;
use crate::failure::{Cause, reason};

/// Whether a cause keeps the rules from being evaluated.
pub(crate) fn blocks(cause: &Cause) -> bool {
    [reason::TYPE, reason::REQUIRED, reason::UNSUPPORTED, reason::TOO_LONG, reason::TOO_MANY].contains(&cause.reason)
}

/// What is wrong with a value. Parts that equal `old` are not looked at.
pub(crate) fn validate(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    node(schema, value, old, "", &mut causes);
    causes
}

fn body(path: &str) -> String {
    format!("{path} in body")
}

fn cause(reason: &'static str, path: &str, message: String) -> Cause {
    Cause::new(reason, if path.is_empty() { "<nil>" } else { path }, message)
}

fn invalid(path: &str, value: impl std::fmt::Display, detail: &str) -> Cause {
    cause(reason::INVALID, path, format!("Invalid value: {value}: {} {detail}", body(path)))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_type(schema: &Schema, value: &Value) -> bool {
    if schema.int_or_string {
        return matches!(value, Value::String(_)) || whole(value);
    }
    match schema.kind {
        None => true,
        Some(Type::Object) => value.is_object(),
        Some(Type::Array) => value.is_array(),
        Some(Type::String) => value.is_string(),
        Some(Type::Boolean) => value.is_boolean(),
        Some(Type::Number) => value.is_number(),
        Some(Type::Integer) => whole(value),
    }
}

fn whole(value: &Value) -> bool {
    match value {
        Value::Number(n) => n.as_f64().is_none_or(|f| f.fract() == 0.0),
        _ => false,
    }
}

fn node(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    if old == Some(value) || (value.is_null() && schema.nullable) {
        return;
    }
    if !has_type(schema, value) {
        let (wanted, found) = (schema.type_name(), type_name(value));
        let why = format!("Invalid value: \"{found}\": {} must be of type {wanted}: \"{found}\"", body(path));
        causes.push(cause(reason::TYPE, path, why));
    }
    alternatives(schema, value, path, causes);
    match value {
        Value::String(text) => string(schema, text, path, causes),
        Value::Number(_) => number(schema, value, path, causes),
        Value::Array(items) => list(schema, items, old, path, causes),
        _ => {}
    }
    if let Some(values) = schema.values.as_ref().filter(|values| !values.contains(value)) {
        let supported: Vec<String> = values.iter().map(Value::to_string).collect();
        let why = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        causes.push(cause(reason::UNSUPPORTED, path, why));
    }
    if let Value::Object(map) = value {
        object(schema, map, old, path, causes);
    }
}

fn alternatives(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let tried = |branch: &Schema| {
        let mut below = Vec::new();
        node(branch, value, None, path, &mut below);
        below
    };
    let composite =
        |sentence: String| cause(reason::INVALID, path, format!("Invalid value: \"\": \"{path}\" {sentence}"));
    for branch in &schema.all_of {
        let below = tried(branch);
        if !below.is_empty() {
            causes.push(composite("must validate all the schemas (allOf)".into()));
            causes.extend(below);
        }
    }
    if !schema.any_of.is_empty() {
        let best = schema.any_of.iter().map(tried).min_by_key(Vec::len);
        if let Some(best) = best.filter(|b| !b.is_empty()) {
            causes.push(composite("must validate at least one schema (anyOf)".into()));
            causes.extend(best);
        }
    }
    if !schema.one_of.is_empty() {
        let valid = schema.one_of.iter().filter(|b| tried(b).is_empty()).count();
        if valid != 1 {
            let found =
                if valid == 0 { "Found none valid".to_owned() } else { format!("Found {valid} valid alternatives") };
            causes.push(composite(format!("must validate one and only one schema (oneOf). {found}")));
        }
    }
    if let Some(not) = &schema.not
        && tried(not).is_empty()
    {
        causes.push(composite("must not validate the schema (not)".into()));
    }
}

fn string(schema: &Schema, text: &str, path: &str, causes: &mut Vec<Cause>) {
    let shown = Value::from(text);
    let length = text.chars().count() as u64;
    if let Some(most) = schema.max_length.filter(|most| length > *most) {
        causes.push(cause(reason::TOO_LONG, path, format!("Too long: may not be more than {most} bytes")));
    }
    if let Some(least) = schema.min_length.filter(|least| length < *least) {
        causes.push(invalid(path, &shown, &format!("should be at least {least} chars long")));
    }
    if let Some(pattern) = schema.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
        causes.push(invalid(path, &shown, &format!("should match '{}'", pattern.text)));
    }
    if let Some(format) = schema.format.as_ref().filter(|format| !has_format(format, text)) {
        let why = format!("Invalid value: {shown}: {} must be of type {format}: {shown}", body(path));
        causes.push(cause(reason::TYPE, path, why));
    }
}

/// Formats that are checked; others are not.
fn has_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "byte" => base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).is_ok(),
        "uri" => text.parse::<http::Uri>().is_ok(),
        _ => true,
    }
}

fn number(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(number) = value.as_f64() else { return };
    let bounds = [(&schema.maximum, Ordering::Greater, "less"), (&schema.minimum, Ordering::Less, "greater")];
    for (bound, outside, than) in bounds {
        let Some(Bound { value: edge, exclusive }) = bound else { continue };
        let order = number.partial_cmp(&edge.as_f64().unwrap_or(0.0));
        if order == Some(outside) || (order == Some(Ordering::Equal) && *exclusive) {
            let or = if *exclusive { "" } else { "or equal to " };
            causes.push(invalid(path, value, &format!("should be {than} than {or}{edge}")));
        }
    }
    if let Some(step) = schema.multiple_of.filter(|step| *step > 0.0 && (number / step).fract() != 0.0) {
        causes.push(invalid(path, value, &format!("should be a multiple of {step}")));
    }
}

fn list(schema: &Schema, items: &[Value], old: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    if let Some(below) = &schema.items {
        for (at, item) in items.iter().enumerate() {
            let before = schema.list.earlier(old, item);
            node(below, item, before, &format!("{path}[{at}]"), causes);
        }
    }
    size(path, items.len() as u64, (schema.min_items, "items"), schema.max_items, causes);
    if schema.unique_items && (1..items.len()).any(|at| items[..at].contains(&items[at])) {
        causes.push(invalid(path, "\"array\"", "shouldn't contain duplicates"));
    }
}

fn size(path: &str, size: u64, (least, unit): (Option<u64>, &str), most: Option<u64>, causes: &mut Vec<Cause>) {
    if let Some(least) = least.filter(|least| size < *least) {
        causes.push(invalid(path, size, &format!("should have at least {least} {unit}")));
    }
    if let Some(most) = most.filter(|most| size > *most) {
        causes.push(cause(reason::TOO_MANY, path, format!("Too many: {size}: must have at most {most} items")));
    }
}

fn object(schema: &Schema, map: &Map<String, Value>, old: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    size(path, map.len() as u64, (schema.min_properties, "properties"), schema.max_properties, causes);
    for (key, value) in map {
        if path.is_empty() && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            continue; // judged apart
        }
        if let Some(below) = schema.field(key) {
            node(below, value, old.and_then(|o| o.get(key)), &join(path, key), causes);
        }
    }
    for key in &schema.required {
        if !map.contains_key(key) {
            causes.push(cause(reason::REQUIRED, &join(path, key), "Required value".into()));
        }
    }
}

/// Items that a list of type set or map holds twice.
pub(crate) fn duplicates(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    match value {
        Value::Array(items) => {
            let identity = |item: &Value| match &schema.list {
                ListType::Atomic => None,
                ListType::Set => Some(item.clone()),
                ListType::Map(keys) => {
                    Some(keys.iter().filter_map(|k| Some((k.clone(), item.get(k)?.clone()))).collect())
                }
            };
            let mut seen: Vec<Value> = Vec::new();
            for (at, item) in items.iter().enumerate() {
                let here = format!("{path}[{at}]");
                if let Some(identity) = identity(item) {
                    if seen.contains(&identity) {
                        causes.push(cause(reason::DUPLICATE, &here, format!("Duplicate value: {identity}")));
                    }
                    seen.push(identity);
                }
                if let Some(below) = &schema.items {
                    duplicates(below, item, &here, causes);
                }
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(below) = schema.field(key) {
                    duplicates(below, value, &join(path, key), causes);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn said(schema: Value, value: Value) -> Vec<String> {
        let schema = Schema::compile(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": schema}}}}),
        );
        validate(&schema, &json!({"spec": {"x": value}}), None)
            .into_iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    }

    #[rstest]
    #[case::type_of_number(json!({"type": "integer"}), json!("70"),
        "spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\"")]
    #[case::null(json!({"type": "string"}), json!(null),
        "spec.x: Invalid value: \"null\": spec.x in body must be of type string: \"null\"")]
    #[case::fraction(json!({"type": "integer"}), json!(1.5),
        "spec.x: Invalid value: \"number\": spec.x in body must be of type integer: \"number\"")]
    #[case::values(json!({"type": "string", "enum": ["A", "B"]}), json!("C"),
        "spec.x: Unsupported value: \"C\": supported values: \"A\", \"B\"")]
    #[case::minimum(json!({"type": "integer", "minimum": 1}), json!(0),
        "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1")]
    #[case::maximum(json!({"type": "integer", "maximum": 65535}), json!(70000),
        "spec.x: Invalid value: 70000: spec.x in body should be less than or equal to 65535")]
    #[case::exclusive(json!({"type": "integer", "maximum": 5, "exclusiveMaximum": true}), json!(5),
        "spec.x: Invalid value: 5: spec.x in body should be less than 5")]
    #[case::length(json!({"type": "string", "minLength": 1}), json!(""),
        "spec.x: Invalid value: \"\": spec.x in body should be at least 1 chars long")]
    #[case::too_long(json!({"type": "string", "maxLength": 2}), json!("abc"),
        "spec.x: Too long: may not be more than 2 bytes")]
    #[case::pattern(json!({"type": "string", "pattern": "^a+$"}), json!("b"),
        "spec.x: Invalid value: \"b\": spec.x in body should match '^a+$'")]
    #[case::items(json!({"type": "array", "minItems": 1}), json!([]),
        "spec.x: Invalid value: 0: spec.x in body should have at least 1 items")]
    #[case::too_many(json!({"type": "array", "maxItems": 1}), json!([1, 2]),
        "spec.x: Too many: 2: must have at most 1 items")]
    #[case::properties(json!({"type": "object", "minProperties": 1}), json!({}),
        "spec.x: Invalid value: 0: spec.x in body should have at least 1 properties")]
    #[case::required(json!({"type": "object", "required": ["y"]}), json!({}),
        "spec.x.y: Required value")]
    #[case::address(json!({"type": "string", "format": "ipv4"}), json!("a"),
        "spec.x: Invalid value: \"a\": spec.x in body must be of type ipv4: \"a\"")]
    #[case::one_of(json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}), json!({}),
        "spec.x: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found none valid")]
    fn refusals_in_the_words_of_the_api(#[case] schema: Value, #[case] value: Value, #[case] sentence: &str) {
        assert_eq!(said(schema, value), [sentence]);
    }

    #[rstest]
    #[case(json!({"type": "integer"}), json!(70))]
    #[case(json!({"type": "integer"}), json!(70.0))]
    #[case(json!({"type": "string", "nullable": true}), json!(null))]
    #[case(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}), json!("50%"))]
    #[case(json!({"x-kubernetes-int-or-string": true}), json!(50))]
    #[case(json!({"type": "number"}), json!(1))]
    fn what_fits_is_taken(#[case] schema: Value, #[case] value: Value) {
        assert_eq!(said(schema, value), Vec::<String>::new());
    }

    #[test]
    fn what_was_wrong_before_is_tolerated() {
        let schema = Schema::compile(&json!({"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}));
        let old = json!({"a": "x", "b": 1});
        let new = json!({"a": "x", "b": "y"});
        let causes = validate(&schema, &new, Some(&old));
        assert_eq!(causes.len(), 1);
        assert_eq!(causes[0].field, "b");
    }

    #[test]
    fn a_key_that_comes_twice_is_a_duplicate() {
        let schema = Schema::compile(&json!({"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object"}}));
        let (items, mut causes) = (json!([{"name": "a"}, {"name": "b"}, {"name": "a", "x": 1}]), Vec::new());
        duplicates(&schema, &items, "spec.listeners", &mut causes);
        let message = "Duplicate value: {\"name\":\"a\"}";
        assert_eq!(causes, [Cause::new(reason::DUPLICATE, "spec.listeners[2]", message)]);
    }
}

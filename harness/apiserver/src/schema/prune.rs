//! Pruning and defaults: fields that the schema does not know are dropped, fields that it fills in are filled in.

use serde_json::{Map, Value};

use super::{compiled::Schema, field_path::join};

/// Drops unknown fields; returns their paths, sorted.
pub(crate) fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(schema, object, true, "", &mut unknown);
    unknown.sort();
    unknown
}

fn walk(schema: &Schema, value: &mut Value, resource: bool, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| {
                let known = schema.open
                    || schema.field(key).is_some()
                    || ((resource || schema.embedded) && matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
                if !known {
                    unknown.push(join(path, key));
                }
                known
            });
            for (key, value) in map.iter_mut() {
                if (resource || schema.embedded) && key == "metadata" {
                    continue; // has a schema of its own
                }
                if let Some(below) = schema.field(key) {
                    walk(below, value, false, &join(path, key), unknown);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = &schema.items {
                for (at, item) in items.iter_mut().enumerate() {
                    walk(below, item, false, &format!("{path}[{at}]"), unknown);
                }
            }
        }
        _ => {}
    }
}

pub(crate) fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, below) in &schema.properties {
                let Some(default) = &below.default else { continue };
                let absent = match map.get(name) {
                    None => true,
                    Some(Value::Null) => !below.nullable,
                    Some(_) => false,
                };
                if absent {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (key, value) in map.iter_mut() {
                if let Some(below) = schema.field(key) {
                    self::default(below, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = &schema.items {
                for item in items {
                    self::default(below, item);
                }
            }
        }
        _ => {}
    }
}

/// Drops nulls, which for built-in kinds say that a field is absent.
pub(crate) fn drop_nulls(map: &mut Map<String, Value>) {
    map.retain(|_, value| !value.is_null());
    for value in map.values_mut() {
        drop_below(value);
    }
}

fn drop_below(value: &mut Value) {
    match value {
        Value::Object(map) => drop_nulls(map),
        Value::Array(items) => items.iter_mut().for_each(drop_below),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn schema() -> Schema {
        Schema::compile(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "known": {"type": "string"},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"part": {"type": "object", "properties": {"a": {"type": "integer", "default": 3}}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string", "default": "d"}}}},
            }},
        }}))
    }

    #[test]
    fn unknown_fields_are_named_in_order_and_dropped() {
        let mut object = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "n"},
            "spec": {"zebra": 1, "known": "k", "apple": {}, "labels": {"any": "thing"},
                "open": {"kept": 1, "part": {"b": 1}}, "list": [{"x": "1"}, {"y": "2"}]}});
        let unknown = prune(&schema(), &mut object);
        assert_eq!(unknown, ["spec.apple", "spec.list[1].y", "spec.open.part.b", "spec.zebra"]);
        assert_eq!(
            object["spec"],
            json!({"known": "k", "labels": {"any": "thing"},
                "open": {"kept": 1, "part": {}}, "list": [{"x": "1"}, {}]})
        );
    }

    #[test]
    fn defaults_reach_into_lists_and_replace_null() {
        let mut object = json!({"spec": {"open": {"part": {"a": null}}, "list": [{}, {"x": "1"}]}});
        default(&schema(), &mut object);
        assert_eq!(object["spec"], json!({"open": {"part": {"a": 3}}, "list": [{"x": "d"}, {"x": "1"}]}));
    }

    proptest! {
        /// What is left after pruning has nothing unknown in it.
        #[test]
        fn pruning_twice_is_pruning_once(keys in proptest::collection::vec("[a-z]{1,6}", 0..8)) {
            let mut object = json!({"spec": {"known": "k"}});
            for key in &keys {
                object["spec"][key.as_str()] = json!({key.as_str(): 1});
            }
            prune(&schema(), &mut object);
            let once = object.clone();
            prop_assert!(prune(&schema(), &mut object).is_empty());
            prop_assert_eq!(object, once);
        }
    }
}

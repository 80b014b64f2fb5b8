//! Strategic merge patch: lists merge by key where the schema names one.

use serde_json::{Map, Value};

use crate::schema::{ListType, Schema};

pub fn apply(schema: Option<&Schema>, target: &Value, patch: &Value) -> Value {
    let mut merged = target.clone();
    merge(schema, &mut merged, patch);
    merged
}

fn merge(schema: Option<&Schema>, target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            *target = Value::Object(plain(patch));
            return;
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return;
        }
        _ => {}
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    if let Some(keep) = patch.get("$retainKeys").and_then(Value::as_array) {
        target.retain(|key, _| keep.iter().any(|k| k == key));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (target.get_mut(field), value) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        let below = schema.and_then(|s| s.field(key));
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(_) => merge(below, target.entry(key.clone()).or_insert(Value::Null), value),
            Value::Array(items) => {
                merge_list(below, target.entry(key.clone()).or_insert(Value::Null), items);
            }
            value => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
    for (key, order) in patch {
        if let Some(field) = key.strip_prefix("$setElementOrder/")
            && let (Some(Value::Array(items)), Value::Array(order)) = (target.get_mut(field), order)
        {
            let below = schema.and_then(|s| s.field(field));
            sort(below, items, order);
        }
    }
}

fn key_of(schema: Option<&Schema>) -> Option<&str> {
    let schema = schema?;
    if let Some(key) = &schema.merge_key {
        return Some(key);
    }
    match &schema.list {
        ListType::Map(keys) => keys.first().map(String::as_str),
        _ => None,
    }
}

fn merge_list(schema: Option<&Schema>, target: &mut Value, patch: &[Value]) {
    let key = key_of(schema);
    let is_set = schema.is_some_and(|s| s.list == ListType::Set);
    let replaces = patch.iter().any(|item| item["$patch"] == "replace");
    if replaces || (key.is_none() && !is_set) || !target.is_array() {
        let items = patch.iter().filter(|item| item.get("$patch").is_none()).map(without_directives).collect();
        *target = Value::Array(items);
        return;
    }
    let Value::Array(target) = target else { return };
    let Some(key) = key else {
        for item in patch {
            if !target.contains(item) {
                target.push(item.clone());
            }
        }
        return;
    };
    let below = schema.and_then(|s| s.items.as_deref());
    for item in patch {
        let id = &item[key];
        if item["$patch"] == "delete" {
            target.retain(|t| t[key] != *id);
            continue;
        }
        match target.iter_mut().find(|t| t[key] == *id) {
            Some(old) => merge(below, old, item),
            None => {
                let mut new = Value::Object(Map::new());
                merge(below, &mut new, item);
                target.push(new);
            }
        }
    }
}

/// Puts items into the order that the patch names; others keep their places behind.
fn sort(schema: Option<&Schema>, items: &mut [Value], order: &[Value]) {
    let key = key_of(schema);
    let place = |item: &Value| {
        order
            .iter()
            .position(|o| match key {
                Some(key) => o[key] == item[key],
                None => o == item,
            })
            .unwrap_or(usize::MAX)
    };
    items.sort_by_key(place);
}

fn plain(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter()
        .filter(|(key, _)| !key.starts_with('$'))
        .map(|(key, value)| (key.clone(), without_directives(value)))
        .collect()
}

fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(plain(map)),
        Value::Array(items) => Value::Array(items.iter().map(without_directives).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn schema() -> Schema {
        Schema::compile(&json!({"properties": {
            "ports": {"type": "array", "x-kubernetes-patch-merge-key": "port", "items": {"type": "object"}},
            "set": {"type": "array", "x-kubernetes-list-type": "set"},
            "plain": {"type": "array"},
        }}))
    }

    #[rstest]
    #[case::merges(json!({"ports": [{"port": 80, "name": "x"}]}), json!({"ports": [{"port": 80, "name": "x"}, {"port": 81}], "plain": [1], "set": ["a"]}))]
    #[case::adds(json!({"ports": [{"port": 82}]}), json!({"ports": [{"port": 80}, {"port": 81}, {"port": 82}], "plain": [1], "set": ["a"]}))]
    #[case::deletes(json!({"ports": [{"port": 80, "$patch": "delete"}]}), json!({"ports": [{"port": 81}], "plain": [1], "set": ["a"]}))]
    #[case::replaces(json!({"ports": [{"$patch": "replace"}, {"port": 9}]}), json!({"ports": [{"port": 9}], "plain": [1], "set": ["a"]}))]
    #[case::orders(json!({"$setElementOrder/ports": [{"port": 81}, {"port": 80}], "ports": [{"port": 80, "x": 1}]}),
        json!({"ports": [{"port": 81}, {"port": 80, "x": 1}], "plain": [1], "set": ["a"]}))]
    #[case::sets(json!({"set": ["b"], "$deleteFromPrimitiveList/set": ["a"]}), json!({"ports": [{"port": 80}, {"port": 81}], "plain": [1], "set": ["b"]}))]
    #[case::plain_lists_are_replaced(json!({"plain": [2, 3]}), json!({"ports": [{"port": 80}, {"port": 81}], "plain": [2, 3], "set": ["a"]}))]
    #[case::null_removes(json!({"plain": null}), json!({"ports": [{"port": 80}, {"port": 81}], "set": ["a"]}))]
    #[case::whole(json!({"$patch": "replace", "plain": []}), json!({"plain": []}))]
    fn lists_merge_by_key(#[case] patch: Value, #[case] outcome: Value) {
        let target = json!({"ports": [{"port": 80}, {"port": 81}], "plain": [1], "set": ["a"]});
        assert_eq!(apply(Some(&schema()), &target, &patch), outcome);
    }
}

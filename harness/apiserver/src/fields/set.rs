//! Sets of fields, in the API's own notation (`f:spec`, `k:{"name":"x"}`, `v:"a"`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::schema::{ListType, Schema};

/// A set of fields: whether this very place is in it, and what is below.
/// In JSON it is `fieldsV1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Value", into = "Value")]
pub(crate) struct FieldSet {
    pub here: bool,
    pub below: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    fn leaf() -> Self {
        Self { here: true, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    pub(crate) fn union(&mut self, other: &Self) {
        self.here |= other.here;
        for (key, below) in &other.below {
            self.below.entry(key.clone()).or_default().union(below);
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        if other.here {
            self.here = false;
        }
        self.below.retain(|key, below| {
            if let Some(other) = other.below.get(key) {
                below.subtract(other);
            }
            !below.is_empty()
        });
    }

    pub(crate) fn intersect(&self, other: &Self) -> Self {
        let below = self
            .below
            .iter()
            .filter_map(|(key, below)| {
                let both = below.intersect(other.below.get(key)?);
                (!both.is_empty()).then(|| (key.clone(), both))
            })
            .collect();
        Self { here: self.here && other.here, below }
    }

    /// Takes out one path of field names.
    pub(crate) fn remove(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else {
            *self = Self::default();
            return;
        };
        let key = format!("f:{first}");
        if let Some(below) = self.below.get_mut(&key) {
            below.remove(rest);
            if below.is_empty() {
                self.below.remove(&key);
            }
        }
    }

    pub(crate) fn keep_only(&mut self, field: &str) {
        self.here = false;
        self.below.retain(|key, _| *key == format!("f:{field}"));
    }

    /// The paths of the set as conflicts name them, `.spec.containers[name="x"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, path: &str, paths: &mut Vec<String>) {
        if self.here {
            paths.push(path.to_owned());
        }
        for (key, below) in &self.below {
            below.collect(&format!("{path}{}", element(key)), paths);
        }
    }
}

/// One step of a path as conflicts name it.
pub(crate) fn element(key: &str) -> String {
    if let Some(name) = key.strip_prefix("f:") {
        return format!(".{name}");
    }
    if let Some(value) = key.strip_prefix("v:") {
        return format!("[={value}]");
    }
    let keys: Map<String, Value> =
        key.strip_prefix("k:").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("[{}]", keys.join(","))
}

/// Whether a value is one piece for ownership.
pub(crate) fn is_piece(schema: Option<&Schema>, value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty() || schema.is_some_and(|s| s.atomic),
        Value::Array(items) => items.is_empty() || schema.is_none_or(|s| s.list == ListType::Atomic),
        _ => true,
    }
}

/// The key of an item of a list of type set or map.
pub(crate) fn item_key(schema: Option<&Schema>, item: &Value) -> Option<String> {
    let schema = schema?;
    match &schema.list {
        ListType::Atomic => None,
        ListType::Set => Some(format!("v:{item}")),
        ListType::Map(keys) => {
            let mut map = Map::new();
            for key in keys {
                let value = item.get(key).cloned().or_else(|| {
                    schema.items.as_ref().and_then(|s| s.properties.get(key)).and_then(|s| s.default.clone())
                });
                if let Some(value) = value {
                    map.insert(key.clone(), value);
                }
            }
            Some(format!("k:{}", Value::Object(map)))
        }
    }
}

pub(crate) fn fields_of(schema: Option<&Schema>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    if is_piece(schema, value) {
        return FieldSet::leaf();
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let below = schema.and_then(|s| s.field(key));
                set.below.insert(format!("f:{key}"), fields_of(below, value));
            }
        }
        Value::Array(items) => {
            let below = schema.and_then(|s| s.items.as_deref());
            for item in items {
                if let Some(key) = item_key(schema, item) {
                    let mut fields = fields_of(below, item);
                    fields.here = true;
                    set.below.insert(key, fields);
                }
            }
        }
        _ => {}
    }
    set
}

/// How two values differ: what was added or changed, and what was removed.
pub(crate) fn difference(schema: Option<&Schema>, old: Option<&Value>, new: Option<&Value>) -> (FieldSet, FieldSet) {
    match (old, new) {
        (None, None) => (FieldSet::default(), FieldSet::default()),
        (None, Some(new)) => (fields_of(schema, new), FieldSet::default()),
        (Some(old), None) => (FieldSet::default(), fields_of(schema, old)),
        (Some(old), Some(new)) if old == new => (FieldSet::default(), FieldSet::default()),
        (Some(Value::Object(old)), Some(Value::Object(new)))
            if !(schema.is_some_and(|s| s.atomic) || old.is_empty() || new.is_empty()) =>
        {
            let keys = old.keys().chain(new.keys().filter(|k| !old.contains_key(*k)));
            branches(keys.map(|key| {
                let below = schema.and_then(|s| s.field(key));
                (format!("f:{key}"), difference(below, old.get(key), new.get(key)))
            }))
        }
        (Some(Value::Array(old)), Some(Value::Array(new)))
            if schema.is_some_and(|s| s.list != ListType::Atomic) && !(old.is_empty() || new.is_empty()) =>
        {
            let keyed = |items: &[Value]| -> Vec<(String, Value)> {
                items.iter().filter_map(|item| Some((item_key(schema, item)?, item.clone()))).collect()
            };
            let (old, new) = (keyed(old), keyed(new));
            let below = schema.and_then(|s| s.items.as_deref());
            let find =
                |items: &[(String, Value)], key: &str| items.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
            let keys: Vec<String> =
                old.iter().chain(new.iter().filter(|(k, _)| find(&old, k).is_none())).map(|(k, _)| k.clone()).collect();
            branches(keys.into_iter().map(|key| {
                let (before, after) = (find(&old, &key), find(&new, &key));
                let mut both = difference(below, before.as_ref(), after.as_ref());
                both.0.here |= before.is_none();
                both.1.here |= after.is_none();
                (key, both)
            }))
        }
        (Some(old), Some(new)) => {
            let mut changed = fields_of(schema, new);
            let mut removed = fields_of(schema, old);
            removed.subtract(&changed);
            changed.here |= changed.below.is_empty();
            (changed, removed)
        }
    }
}

impl From<Value> for FieldSet {
    fn from(value: Value) -> Self {
        let Value::Object(map) = value else { return Self::leaf() };
        let here = map.is_empty() || map.contains_key(".");
        let below = map.into_iter().filter(|(key, _)| key != ".").map(|(key, value)| (key, Self::from(value)));
        Self { here, below: below.collect() }
    }
}

impl From<FieldSet> for Value {
    fn from(set: FieldSet) -> Self {
        let here = (set.here && !set.below.is_empty()).then(|| (".".to_owned(), json!({})));
        here.into_iter().chain(set.below.into_iter().map(|(key, below)| (key, below.into()))).collect()
    }
}

fn branches(differences: impl Iterator<Item = (String, (FieldSet, FieldSet))>) -> (FieldSet, FieldSet) {
    let (mut changed, mut removed) = (FieldSet::default(), FieldSet::default());
    for (key, (more, less)) in differences {
        if !more.is_empty() {
            changed.below.insert(key.clone(), more);
        }
        if !less.is_empty() {
            removed.below.insert(key, less);
        }
    }
    (changed, removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schema() -> Schema {
        Schema::compile(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "listeners": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object"}},
            "plain": {"type": "array", "items": {"type": "string"}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        }}}}))
    }

    #[test]
    fn fields_are_written_in_the_notation_of_the_api() {
        let object =
            json!({"spec": {"listeners": [{"name": "http", "port": 80}], "plain": ["a"], "set": ["x"], "empty": {}}});
        let set = fields_of(Some(&schema()), &object);
        assert_eq!(
            json!(set),
            json!({"f:spec": {
                "f:empty": {},
                "f:listeners": {"k:{\"name\":\"http\"}": {".": {}, "f:name": {}, "f:port": {}}},
                "f:plain": {},
                "f:set": {"v:\"x\"": {}},
            }})
        );
        assert_eq!(FieldSet::from(json!(set)), set);
        assert!(set.paths().contains(&".spec.listeners[name=\"http\"].port".to_owned()));
    }

    #[test]
    fn differences_name_the_leaf_that_changed() {
        let old = json!({"spec": {"listeners": [{"name": "a", "port": 1}, {"name": "b"}], "plain": ["a"]}});
        let new = json!({"spec": {"listeners": [{"name": "a", "port": 2}, {"name": "c"}], "plain": ["a"]}});
        let (changed, removed) = difference(Some(&schema()), Some(&old), Some(&new));
        assert_eq!(
            changed.paths(),
            [".spec.listeners[name=\"a\"].port", ".spec.listeners[name=\"c\"]", ".spec.listeners[name=\"c\"].name"]
        );
        assert_eq!(removed.paths(), [".spec.listeners[name=\"b\"]", ".spec.listeners[name=\"b\"].name"]);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(1)), Just(json!("a")), Just(json!(null)), Just(json!({}))];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                proptest::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn sets_survive_writing(value in any_value()) {
            let set = fields_of(None, &json!({"spec": value}));
            prop_assert_eq!(FieldSet::from(json!(set)), set);
        }

        #[test]
        fn equal_values_do_not_differ_and_others_do(a in any_value(), b in any_value()) {
            let (changed, removed) = difference(None, Some(&a), Some(&b));
            prop_assert_eq!(changed.is_empty() && removed.is_empty(), a == b);
        }
    }
}

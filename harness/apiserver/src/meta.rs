//! Metadata: the fields of `metadata` that the server reads and keeps.

use serde_json::{Map, Value, json};

/// `metadata` of an object as a map; an empty one where it is missing.
pub(crate) fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"].as_object_mut().expect("made an object just above")
}

/// A text field of `metadata`, empty where it is missing.
pub(crate) fn meta_str<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or("")
}

pub fn name(object: &Value) -> &str {
    meta_str(object, "name")
}

/// The namespace of an object, empty for cluster-wide ones.
pub(crate) fn namespace(object: &Value) -> &str {
    meta_str(object, "namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    meta_str(object, "uid")
}

/// Namespace (empty for cluster-wide kinds) and name.
pub(crate) type Key = (String, String);

pub(crate) fn key(object: &Value) -> Key {
    (namespace(object).to_owned(), name(object).to_owned())
}

/// The resource version of an object, 0 where it has none.
pub fn resource_version(object: &Value) -> u64 {
    meta_str(object, "resourceVersion").parse().unwrap_or(0)
}

/// Group and version of `apiVersion`; the core group is empty.
pub(crate) fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

pub(crate) fn is_going(object: &Value) -> bool {
    !meta_str(object, "deletionTimestamp").is_empty()
}

pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

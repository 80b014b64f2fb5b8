//! Objects as they are read from the API server: their names, and how their conditions are said in short.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectRef {
    /// `group/version`, or `v1` for the core group.
    pub api_version: String,
    pub kind: String,
    /// Absent for kinds without namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
}

impl ObjectRef {
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::global(api_version, kind, name) }
    }

    pub fn global(api_version: &str, kind: &str, name: &str) -> Self {
        Self { api_version: api_version.to_owned(), kind: kind.to_owned(), namespace: None, name: name.to_owned() }
    }

    /// What a manifest or an object names; the field that is missing otherwise.
    pub fn of(object: &Value) -> Result<Self, &'static str> {
        let named = |pointer: &str| Some(text(object, pointer).to_owned()).filter(|name| !name.is_empty());
        Ok(Self {
            api_version: named("/apiVersion").ok_or("apiVersion")?,
            kind: named("/kind").ok_or("kind")?,
            namespace: named("/metadata/namespace"),
            name: named("/metadata/name").ok_or("metadata.name")?,
        })
    }

    pub fn group(&self) -> &str {
        group_of(&self.api_version)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// The group of an `apiVersion`, empty for the core group.
pub(crate) fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// The text at a JSON pointer; empty where there is none.
pub(crate) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of the list at a JSON pointer; none where there is no list.
pub(crate) fn items<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// `metadata.name`, or a dash.
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or("-")
}

/// The conditions of an object (also those of its listeners, route parents and pool parents) as `where Type=Status (Reason: message)`.
pub(crate) fn conditions_in_short(object: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let mut say = |place: &str, holder: &Value| {
        for condition in items(holder, "/conditions") {
            let because = match (text(condition, "/reason"), text(condition, "/message")) {
                ("", "") => String::new(),
                (reason, "") => format!(" ({reason})"),
                ("", message) => format!(" ({message})"),
                (reason, message) => format!(" ({reason}: {message})"),
            };
            said.push(format!("{place}{}={}{because}", text(condition, "/type"), text(condition, "/status")));
        }
    };
    let status = &object["status"];
    say("", status);
    for listener in items(status, "/listeners") {
        say(&format!("listener {}: ", listener["name"].as_str().unwrap_or("-")), listener);
    }
    for parent in items(status, "/parents").chain(items(status, "/ancestors")) {
        let name = parent["parentRef"]["name"].as_str().or(parent["ancestorRef"]["name"].as_str()).unwrap_or("-");
        let controller = parent["controllerName"].as_str().unwrap_or("no controllerName");
        say(&format!("parent {name} ({controller}): "), parent);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!({"kind": "Pod", "metadata": {"name": "a"}}), "apiVersion")]
    #[case(json!({"apiVersion": "v1", "metadata": {"name": "a"}}), "kind")]
    #[case(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "a"}}), "metadata.name")]
    #[case(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": ""}}), "metadata.name")]
    #[case(json!([]), "apiVersion")]
    fn says_what_a_manifest_lacks(#[case] manifest: Value, #[case] missing: &str) {
        assert_eq!(ObjectRef::of(&manifest), Err(missing));
    }

    #[test]
    fn says_all_conditions_with_their_places() {
        let object = json!({"status": {
            "conditions": [{"type": "Programmed", "status": "False", "reason": "Pending", "message": "no address"}],
            "listeners": [{"name": "http", "conditions": [{"type": "Accepted", "status": "True"}]}],
            "parents": [{"parentRef": {"name": "gw"}, "conditions": [{"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound"}]}],
        }});
        assert_eq!(
            conditions_in_short(&object),
            [
                "Programmed=False (Pending: no address)",
                "listener http: Accepted=True",
                "parent gw (no controllerName): ResolvedRefs=False (BackendNotFound)",
            ]
        );
    }
}

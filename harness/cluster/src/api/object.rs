//! Objects as they are read from the API server: their names, and how their conditions are said in short.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectRef {
    /// `group/version`, or `v1` for the core group.
    pub api_version: String,
    /// For example `HTTPRoute`.
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
        let text = |pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        Ok(Self {
            api_version: text("/apiVersion").ok_or("apiVersion")?,
            kind: text("/kind").ok_or("kind")?,
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name").ok_or("metadata.name")?,
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

/// `metadata.name`, or a dash.
pub fn name_of(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("-")
}

/// The conditions of an object (also those of its listeners, route parents and pool parents) as `where Type=Status (Reason: message)`.
pub fn conditions_in_short(object: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let mut say = |place: &str, conditions: Option<&Value>| {
        for condition in conditions.and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| condition.get(key).and_then(Value::as_str).unwrap_or("");
            let because = match (text("reason"), text("message")) {
                ("", "") => String::new(),
                (reason, "") => format!(" ({reason})"),
                ("", message) => format!(" ({message})"),
                (reason, message) => format!(" ({reason}: {message})"),
            };
            said.push(format!("{place}{}={}{because}", text("type"), text("status")));
        }
    };
    let Some(status) = object.get("status") else {
        return said;
    };
    say("", status.get("conditions"));
    for listener in status.get("listeners").and_then(Value::as_array).into_iter().flatten() {
        let name = listener.get("name").and_then(Value::as_str).unwrap_or("-");
        say(&format!("listener {name}: "), listener.get("conditions"));
    }
    for parents in ["parents", "ancestors"] {
        for parent in status.get(parents).and_then(Value::as_array).into_iter().flatten() {
            let name = ["/parentRef/name", "/ancestorRef/name"].iter().find_map(|p| parent.pointer(p));
            let controller = parent.get("controllerName").and_then(Value::as_str).unwrap_or("no controllerName");
            let name = name.and_then(Value::as_str).unwrap_or("-");
            say(&format!("parent {name} ({controller}): "), parent.get("conditions"));
        }
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

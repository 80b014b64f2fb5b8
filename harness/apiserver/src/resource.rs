//! Resources: what the server serves, one entry a kind with its versions, read from a definition in CRD shape.

use std::{fmt, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use super::{kind::Kind, schema::SchemaSource};

#[derive(Debug)]
pub struct Resource {
    pub kind: Kind,
    /// The name in paths, `httproutes`.
    pub plural: String,
    pub singular: String,
    pub list_kind: String,
    pub short_names: Vec<String>,
    /// Categories for kubectl, `all`.
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// The versions in the order of preference.
    pub versions: Vec<Version>,
    /// Whether it comes from a CustomResourceDefinition; built-in kinds do not.
    pub custom: bool,
    /// Whether `metadata.generation` is kept.
    pub generation: bool,
    storage: usize,
}

#[derive(Debug)]
pub struct Version {
    pub name: String,
    pub served: bool,
    /// The warning that each request for a deprecated version gets.
    pub deprecation: Option<String>,
    /// The structural schema, compiled at first use.
    pub schema: Arc<SchemaSource>,
    /// What `kubectl get` shows besides name and age.
    pub columns: Vec<Column>,
    /// Whether status has a subresource of its own.
    pub status: bool,
    /// Fields that selectors may name, besides name and namespace.
    pub selectable: Vec<String>,
}

/// A printer column.
#[derive(Clone, Debug, Deserialize)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `date` ...
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(rename = "jsonPath")]
    pub path: String,
    /// Zero is always shown, more only with `-o wide`.
    #[serde(default)]
    pub priority: i64,
}

#[derive(Debug, thiserror::Error)]
#[error("definition has no usable {0}")]
pub struct BadDefinition(pub &'static str);

/// `plural.group`, or `plural` for the core group, as messages name a resource.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.kind.group.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{}", self.plural, self.kind.group)
    }
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let list = value.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

impl Resource {
    pub(crate) fn is_scaled(&self) -> bool {
        self.kind.group == "apps" && matches!(self.kind.kind.as_ref(), "Deployment" | "ReplicaSet" | "StatefulSet")
    }

    /// Reads a definition in the shape of a CustomResourceDefinition.
    pub fn read(definition: &Value, custom: bool) -> Result<Self, BadDefinition> {
        let group = text(definition, "/spec/group").ok_or(BadDefinition("spec.group"))?;
        let kind = text(definition, "/spec/names/kind").ok_or(BadDefinition("spec.names.kind"))?;
        let plural = text(definition, "/spec/names/plural").ok_or(BadDefinition("spec.names.plural"))?;
        let list =
            definition.pointer("/spec/versions").and_then(Value::as_array).ok_or(BadDefinition("spec.versions"))?;
        let mut versions = Vec::new();
        let mut storage_name = String::new();
        for entry in list {
            let version = Version::read(entry, &group, &kind)?;
            if entry["storage"] == Value::Bool(true) {
                storage_name.clone_from(&version.name);
            }
            versions.push(version);
        }
        versions.sort_by(|a, b| newer(&a.name, &b.name));
        let storage = versions.iter().position(|v| v.name == storage_name).ok_or(BadDefinition("storage version"))?;
        Ok(Self {
            singular: text(definition, "/spec/names/singular").unwrap_or_else(|| kind.to_lowercase()),
            list_kind: text(definition, "/spec/names/listKind").unwrap_or_else(|| format!("{kind}List")),
            short_names: texts(definition, "/spec/names/shortNames"),
            categories: texts(definition, "/spec/names/categories"),
            namespaced: definition.pointer("/spec/scope").and_then(Value::as_str) == Some("Namespaced"),
            generation: custom || definition.pointer("/spec/x-generation") == Some(&Value::Bool(true)),
            kind: Kind::new(group, kind),
            plural,
            versions,
            storage,
            custom,
        })
    }

    pub fn storage(&self) -> &Version {
        &self.versions[self.storage]
    }

    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.served && v.name == name)
    }

    /// `apiVersion` of objects in a version.
    pub fn api_version(&self, version: &str) -> String {
        if self.kind.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.kind.group) }
    }
}

impl Version {
    fn read(entry: &Value, group: &str, kind: &str) -> Result<Self, BadDefinition> {
        let name = text(entry, "/name").ok_or(BadDefinition("version name"))?;
        let deprecation = (entry["deprecated"] == Value::Bool(true)).then(|| {
            text(entry, "/deprecationWarning").unwrap_or_else(|| format!("{group}/{name} {kind} is deprecated"))
        });
        let list = |field: &str| entry[field].as_array().into_iter().flatten();
        let path = |field: &Value| Some(field["jsonPath"].as_str()?.trim_start_matches('.').to_owned());
        Ok(Self {
            served: entry["served"] != Value::Bool(false),
            deprecation,
            schema: SchemaSource::shared(entry.pointer("/schema/openAPIV3Schema")),
            columns: list("additionalPrinterColumns").filter_map(|c| Column::deserialize(c).ok()).collect(),
            status: entry.pointer("/subresources/status").is_some(),
            selectable: list("selectableFields").filter_map(path).collect(),
            name,
        })
    }
}

/// Kubernetes' order of two versions: stable before beta before alpha, higher numbers first, other names last.
pub(crate) fn newer(a: &str, b: &str) -> std::cmp::Ordering {
    rank(b).cmp(&rank(a)).then_with(|| a.cmp(b))
}

fn rank(version: &str) -> (u8, u64, u64) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse::<u64>() else {
        return (0, 0, 0);
    };
    let tail = &rest[digits..];
    if tail.is_empty() {
        return (3, major, 0);
    }
    for (word, level) in [("beta", 2), ("alpha", 1)] {
        if let Some(minor) = tail.strip_prefix(word).and_then(|n| n.parse().ok()) {
            return (level, major, minor);
        }
    }
    (0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_are_ranked_as_kubernetes_ranks_them() {
        let mut names = vec!["v1alpha3", "v2", "v1beta1", "foo", "v1", "v1beta2"];
        names.sort_by(|a, b| newer(a, b));
        assert_eq!(names, ["v2", "v1", "v1beta2", "v1beta1", "v1alpha3", "foo"]);
    }

    #[test]
    fn a_definition_without_storage_version_is_refused() {
        let definition = json!({"spec": {"group": "g.io", "names": {"kind": "A", "plural": "as"},
            "versions": [{"name": "v1", "storage": false}]}});
        assert!(Resource::read(&definition, true).is_err());
    }
}

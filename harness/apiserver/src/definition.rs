//! Definitions: what the server checks in a CustomResourceDefinition and what it writes into its status.

use serde_json::{Value, json};

use super::failure::{Cause, reason};
use super::resource::Resource;

/// Fills in the names that a definition may leave out.
pub(crate) fn complete(definition: &mut Value) {
    let Some(kind) = definition.pointer("/spec/names/kind").and_then(Value::as_str).map(str::to_owned) else { return };
    let names = &mut definition["spec"]["names"];
    if names["singular"].is_null() {
        names["singular"] = json!(kind.to_lowercase());
    }
    if names["listKind"].is_null() {
        names["listKind"] = json!(format!("{kind}List"));
    }
    if definition["spec"]["conversion"].is_null() {
        definition["spec"]["conversion"] = json!({"strategy": "None"});
    }
}

/// Writes accepted names, stored versions and the two conditions.
pub(crate) fn establish(definition: &mut Value, now: &str) {
    let names = definition["spec"]["names"].clone();
    let stored: Vec<Value> = definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|v| v["storage"] == Value::Bool(true))
        .map(|v| v["name"].clone())
        .collect();
    let status = &mut definition["status"];
    status["acceptedNames"] = names;
    if status["storedVersions"].as_array().is_none_or(Vec::is_empty) {
        status["storedVersions"] = Value::Array(stored);
    }
    if status["conditions"].as_array().is_none_or(Vec::is_empty) {
        status["conditions"] = json!([
            {"type": "NamesAccepted", "status": "True", "lastTransitionTime": now,
             "reason": "NoConflicts", "message": "no conflicts found"},
            {"type": "Established", "status": "True", "lastTransitionTime": now,
             "reason": "InitialNamesAccepted", "message": "the initial names have been accepted"},
        ]);
    }
}

/// What keeps a definition from being served.
pub(crate) fn check(definition: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str);
    let wanted =
        format!("{}.{}", text("/spec/names/plural").unwrap_or_default(), text("/spec/group").unwrap_or_default());
    let name = super::meta::name(definition);
    if name != wanted {
        let message = format!("Invalid value: {name:?}: must be spec.names.plural+\".\"+spec.group");
        causes.push(Cause::new(reason::INVALID, "metadata.name", message));
    }
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    for (at, version) in versions.into_iter().flatten().enumerate() {
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            let field = format!("spec.versions[{at}].schema.openAPIV3Schema");
            causes.push(Cause::new(reason::REQUIRED, field, "Required value: schemas are required"));
        }
    }
    if let Err(error) = Resource::read(definition, true) {
        causes.push(Cause::new(reason::INVALID, "spec", format!("Invalid value: \"object\": {error}")));
    }
    causes
}

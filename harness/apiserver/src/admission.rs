//! Admission: what happens to an object between the request and the store.

use serde_json::{Map, Value};

use super::failure::{Cause, Failure, Result, reason};
use super::resource::{Resource, Version};
use super::schema::{prune, rules, validate};
use super::{definition, kind::kinds, meta, names};

/// What is done about fields that the schema does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    Strict,
    /// Drop them and say so in a warning.
    Warn,
    Ignore,
}

/// The fields of metadata.
const METADATA: &str = "annotations creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generateName \
                        generation labels managedFields name namespace ownerReferences resourceVersion selfLink uid";

/// Drops the fields that the schema does not know, or refuses the object; returns the warnings.
pub(crate) fn decode(
    resource: &Resource,
    version: &Version,
    object: &mut Value,
    unknown: UnknownFields,
) -> Result<Vec<String>> {
    decode_or(resource, version, object, unknown, |why| undecodable(resource, version, why))
}

/// The same with a refusal of the caller's.
pub(crate) fn decode_or(
    resource: &Resource,
    version: &Version,
    object: &mut Value,
    unknown: UnknownFields,
    refusal: impl FnOnce(&str) -> Failure,
) -> Result<Vec<String>> {
    let found = prune_unknown(resource, version, object)?;
    let said: Vec<String> = found.iter().map(|path| format!("unknown field \"{path}\"")).collect();
    match unknown {
        UnknownFields::Strict if !said.is_empty() => {
            Err(refusal(&format!("strict decoding error: {}", said.join(", "))))
        }
        UnknownFields::Warn => Ok(said),
        UnknownFields::Strict | UnknownFields::Ignore => Ok(Vec::new()),
    }
}

/// Drops the fields that the schema does not know and returns their paths, sorted.
pub(crate) fn prune_unknown(resource: &Resource, version: &Version, object: &mut Value) -> Result<Vec<String>> {
    let Some(map) = object.as_object_mut() else {
        return Err(Failure::bad_request(format!(
            "{} in version {:?} cannot be handled as a {0}: json: cannot unmarshal into an object",
            resource.kind.kind, version.name
        )));
    };
    if !resource.custom {
        prune::drop_nulls(map);
    }
    let mut found = Vec::new();
    if let Some(metadata) = map.get_mut("metadata") {
        let Some(metadata) = metadata.as_object_mut() else {
            let why = "json: cannot unmarshal into Go struct field .metadata of type v1.ObjectMeta";
            return Err(undecodable(resource, version, why));
        };
        decode_metadata(resource, version, metadata, &mut found)?;
    }
    found.extend(prune::prune(version.schema.schema(), object));
    found.sort();
    Ok(found)
}

fn decode_metadata(
    resource: &Resource,
    version: &Version,
    metadata: &mut Map<String, Value>,
    found: &mut Vec<String>,
) -> Result<()> {
    prune::drop_nulls(metadata);
    metadata.retain(|key, _| {
        let known = METADATA.split(' ').any(|field| field == key);
        if !known {
            found.push(format!("metadata.{key}"));
        }
        known
    });
    let wrong = |field: &str, kind: &str, value: &Value| {
        let found = match value {
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            Value::String(_) | Value::Null => "string",
        };
        let why =
            format!("json: cannot unmarshal {found} into Go struct field ObjectMeta.metadata.{field} of type {kind}");
        Err(undecodable(resource, version, &why))
    };
    for (field, value) in metadata.iter() {
        match (field.as_str(), value) {
            ("name" | "namespace" | "generateName" | "uid" | "resourceVersion", value) if !value.is_string() => {
                return wrong(field, "string", value);
            }
            ("labels" | "annotations", Value::Object(map)) => {
                if let Some(value) = map.values().find(|v| !v.is_string()) {
                    return wrong(field, "string", value);
                }
            }
            ("labels" | "annotations", value) => return wrong(field, "map[string]string", value),
            ("finalizers" | "ownerReferences" | "managedFields", value) if !value.is_array() => {
                return wrong(field, "[]", value);
            }
            _ => {}
        }
    }
    Ok(())
}

fn undecodable(resource: &Resource, version: &Version, why: &str) -> Failure {
    let kind = &resource.kind.kind;
    Failure::bad_request(format!("{kind} in version {:?} cannot be handled as a {kind}: {why}", version.name))
}

pub(crate) fn default(version: &Version, object: &mut Value) {
    prune::default(version.schema.schema(), object);
}

pub(crate) fn validate(resource: &Resource, version: &Version, object: &Value, old: Option<&Value>) -> Result<()> {
    let schema = version.schema.schema();
    let mut causes = names::check(&resource.kind, object);
    causes.extend(validate::validate(schema, object, old));
    if old.is_none_or(|old| old != object) {
        validate::duplicates(schema, object, "", &mut causes);
    }
    if resource.kind == kinds::CUSTOM_RESOURCE_DEFINITION {
        causes.extend(definition::check(object));
    }
    if schema.has_rules {
        if causes.iter().any(validate::blocks) {
            let message = "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            causes.push(Cause::new(reason::INVALID, "<nil>", message));
        } else {
            causes.extend(rules::judge(schema, object, old));
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(&resource.kind, meta::name(object), causes)) }
}

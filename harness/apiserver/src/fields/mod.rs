//! Managed fields: who wrote which field, kept in `metadata.managedFields`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::meta::meta_mut;
use super::state::{Writing, stamp};

mod set;

pub(crate) use set::{FieldSet, difference, element, fields_of, is_piece, item_key};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Operation {
    Apply,
    Update,
}

/// An entry of `managedFields`: one manager and what it owns.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub time: String,
    fields_type: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subresource: String,
    #[serde(rename = "fieldsV1")]
    pub set: FieldSet,
}

impl Entry {
    pub(crate) fn of(operation: Operation, writing: &Writing<'_>, set: FieldSet) -> Self {
        Self {
            manager: writing.manager.to_owned(),
            operation,
            api_version: writing.resource.api_version(&writing.version.name),
            time: stamp(writing.now),
            fields_type: "FieldsV1".into(),
            subresource: if writing.status { "status" } else { "" }.to_owned(),
            set,
        }
    }

    pub(crate) fn is(&self, writing: &Writing<'_>, operation: Operation) -> bool {
        self.manager == writing.manager
            && self.operation == operation
            && (self.subresource == "status") == writing.status
    }

    /// The manager as conflicts name it.
    pub(crate) fn said(&self) -> String {
        let mut said = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            said = format!("{said} with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            said = format!("{said} using {}", self.api_version);
        }
        said
    }
}

/// The managers of a stored object, as [`write`] left them.
pub(crate) fn managers(object: &Value) -> Vec<Entry> {
    Vec::deserialize(&object["metadata"]["managedFields"]).unwrap_or_default()
}

/// Writes the managers into an object; those without fields are left out.
pub(crate) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.set.is_empty());
    entries.sort_by(|a, b| (a.operation, &a.time, &a.manager).cmp(&(b.operation, &b.time, &b.manager)));
    let meta = meta_mut(object);
    if entries.is_empty() {
        meta.remove("managedFields");
    } else {
        meta.insert("managedFields".into(), json!(entries));
    }
}

/// Takes out what no manager owns: identity, and what the server writes.
pub(crate) fn strip(set: &mut FieldSet) {
    set.remove(&["apiVersion"]);
    set.remove(&["kind"]);
    for field in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "generation",
        "managedFields",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        set.remove(&["metadata", field]);
    }
}

/// Whether two states differ in nothing but the times of managed fields.
pub(crate) fn same(before: &Value, after: &Value) -> bool {
    let plain = |object: &Value| {
        let mut object = object.clone();
        if let Some(Value::Array(entries)) = object["metadata"].get_mut("managedFields") {
            for entry in entries {
                if let Some(entry) = entry.as_object_mut() {
                    entry.remove("time");
                }
            }
        }
        object
    };
    plain(before) == plain(after)
}

/// Writes down what an update changed: the writer owns it, nobody else does any more.
pub(crate) fn track(before: Option<&Value>, object: &mut Value, writing: &Writing<'_>) {
    let cleared = object["metadata"]["managedFields"].as_array().is_some_and(Vec::is_empty);
    let mut entries = match before {
        Some(before) if !cleared => managers(before),
        _ => Vec::new(),
    };
    let schema = Some(writing.resource.storage().schema.schema());
    let (mut changed, removed) = difference(schema, before, Some(object));
    strip(&mut changed);
    for entry in &mut entries {
        entry.set.subtract(&removed);
        if !entry.is(writing, Operation::Update) {
            entry.set.subtract(&changed);
        }
    }
    if !changed.is_empty() && !cleared {
        let mut mine = Entry::of(Operation::Update, writing, changed);
        match entries.iter_mut().find(|e| e.is(writing, Operation::Update)) {
            Some(entry) => {
                mine.set.union(&entry.set);
                *entry = mine;
            }
            None => entries.push(mine),
        }
    }
    write(object, entries);
}

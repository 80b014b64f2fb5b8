//! Managed fields: who wrote which field, kept in `metadata.managedFields`.

use serde_json::{Value, json};

use super::state::{Writing, stamp};
use super::{meta::meta_mut, resource::Resource, schema::Schema};

mod set;

pub(crate) use set::{FieldSet, difference, fields_of, is_piece, item_key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub time: String,
    pub subresource: String,
    pub set: FieldSet,
}

impl Entry {
    /// Whether this is the entry of a writer.
    pub(crate) fn is(&self, writing: &Writing<'_>, operation: Operation) -> bool {
        self.manager == writing.manager
            && self.operation == operation
            && (self.subresource == "status") == writing.status
    }

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

pub(crate) fn managers(object: &Value) -> Vec<Entry> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("").to_owned();
    object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| Entry {
            manager: text(entry, "manager"),
            operation: if entry["operation"] == "Apply" { Operation::Apply } else { Operation::Update },
            api_version: text(entry, "apiVersion"),
            time: text(entry, "time"),
            subresource: text(entry, "subresource"),
            set: FieldSet::read(&entry["fieldsV1"]),
        })
        .collect()
}

/// Writes the managers into an object; those without fields are left out.
pub(crate) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.set.is_empty());
    entries.sort_by(|a, b| {
        let rank = |e: &Entry| u8::from(e.operation == Operation::Update);
        (rank(a), &a.time, &a.manager).cmp(&(rank(b), &b.time, &b.manager))
    });
    let meta = meta_mut(object);
    if entries.is_empty() {
        meta.remove("managedFields");
        return;
    }
    let list: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let mut shown = json!({
                "manager": entry.manager,
                "operation": entry.operation.name(),
                "apiVersion": entry.api_version,
                "time": entry.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": entry.set.write(),
            });
            if !entry.subresource.is_empty() {
                shown["subresource"] = json!(entry.subresource);
            }
            shown
        })
        .collect();
    meta.insert("managedFields".into(), Value::Array(list));
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

/// The schema by which fields of stored objects are told apart.
pub(crate) fn schema_of(resource: &Resource) -> &Schema {
    resource.storage().schema.schema()
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
pub(crate) fn track(
    resource: &Resource,
    version: &str,
    before: Option<&Value>,
    object: &mut Value,
    writing: &Writing<'_>,
) {
    let cleared = object["metadata"]["managedFields"].as_array().is_some_and(Vec::is_empty);
    let mut entries = match before {
        Some(before) if !cleared => managers(before),
        _ => Vec::new(),
    };
    let schema = Some(schema_of(resource));
    let (mut changed, removed) = difference(schema, before, Some(object));
    strip(&mut changed);
    for entry in &mut entries {
        entry.set.subtract(&removed);
        if !entry.is(writing, Operation::Update) {
            entry.set.subtract(&changed);
        }
    }
    if !changed.is_empty() && !cleared {
        let now = stamp(writing.now);
        match entries.iter_mut().find(|e| e.is(writing, Operation::Update)) {
            Some(mine) => {
                mine.set.union(&changed);
                mine.time = now;
                mine.api_version = resource.api_version(version);
            }
            None => entries.push(Entry {
                manager: writing.manager.to_owned(),
                operation: Operation::Update,
                api_version: resource.api_version(version),
                time: now,
                subresource: if writing.status { "status" } else { "" }.to_owned(),
                set: changed,
            }),
        }
    }
    write(object, entries);
}

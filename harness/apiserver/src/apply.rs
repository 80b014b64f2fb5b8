//! Server-side apply: each manager says what it wants, the server merges and names conflicts.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::admission;
use super::failure::{Cause, Details, Failure, Result};
use super::fields::{self, Entry, FieldSet, Operation, difference, fields_of, is_piece, item_key};
use super::meta::{self, meta_mut, meta_str};
use super::resource::Version;
use super::schema::{ListType, Schema};
use super::state::{State, Writing, Written};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    No,
    Yes,
}

impl State {
    /// Applies what a manager wants of an object; says whether the object is new.
    pub(crate) fn apply(
        &mut self,
        (namespace, name): (&str, &str),
        wanted: Value,
        force: Force,
        writing: &Writing<'_>,
    ) -> Result<(Written, bool)> {
        let Writing { resource, version, .. } = *writing;
        let wanted = readable((namespace, name), wanted, writing)?;
        let mut set = fields_of(Some(version.schema.schema()), &wanted);
        fields::strip(&mut set);
        if writing.status {
            set.keep_only("status");
        } else if version.status {
            set.remove(&["status"]);
        }
        let Some(current) = self.get(&resource.kind, namespace, name) else {
            if writing.status {
                return Err(Failure::not_found(resource, name));
            }
            return Ok((self.create(wanted, writing, Some(Entry::of(Operation::Apply, writing, set)))?, true));
        };
        let asked = meta_str(&wanted, "resourceVersion");
        if !asked.is_empty() && asked != meta_str(&current, "resourceVersion") {
            return Err(Failure::modified(resource, name));
        }
        let uid = meta::uid(&wanted);
        if !uid.is_empty() && uid != meta::uid(&current) {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Failure::conflict(resource, name, &why));
        }
        let schema = version.schema.schema();
        let mut live = current.as_ref().clone();
        live["apiVersion"] = wanted["apiVersion"].clone();
        let mut entries = fields::managers(&live);
        let mut merged = live.clone();
        merge_kept_fields(&mut merged, &wanted, schema, version, writing.status);
        settle(schema, &live, &merged, &set, &mut entries, force, writing)?;
        let mine = entries.iter().position(|e| e.is(writing, Operation::Apply)).map(|at| entries.remove(at));
        if let Some(mine) = &mine {
            let mut held = set.clone();
            entries.iter().for_each(|other| held.union(&other.set));
            let mut dropped = mine.set.clone();
            dropped.subtract(&held);
            cut(Some(schema), &mut merged, &dropped, &held);
        }
        let mut entry = Entry::of(Operation::Apply, writing, set);
        if let Some(mine) = mine
            && mine.set == entry.set
            && merged == live
        {
            entry.time = mine.time;
        }
        entries.push(entry);
        Ok((self.replace_managed(&current, merged, writing, entries)?, false))
    }
}

/// Checks that the applied object can be read by the schema, without any field that it does not know.
fn readable((namespace, name): (&str, &str), mut wanted: Value, writing: &Writing<'_>) -> Result<Value> {
    let Writing { resource, version, .. } = *writing;
    if !wanted.is_object() {
        return Err(Failure::bad_request("error decoding YAML: the applied configuration is not an object"));
    }
    let managed = &wanted["metadata"]["managedFields"];
    if managed.as_array().is_some_and(|m| !m.is_empty()) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    let meta = meta_mut(&mut wanted);
    meta.remove("managedFields");
    meta.insert("name".into(), name.into());
    if resource.namespaced {
        meta.insert("namespace".into(), namespace.into());
    }
    let unknown = admission::prune_unknown(resource, version, &mut wanted)?;
    let place = if namespace.is_empty() { format!("/{name}") } else { format!("{namespace}/{name}") };
    let why = match unknown.as_slice() {
        [] => repeated(Some(version.schema.schema()), &wanted, ""),
        [one] => Some(format!(".{one}: field not declared in schema")),
        many => {
            let lines: Vec<String> =
                many.iter().map(|path| format!("  .{path}: field not declared in schema")).collect();
            Some(format!("errors:\n{}", lines.join("\n")))
        }
    };
    let Some(why) = why else { return Ok(wanted) };
    let (api_version, kind) = (resource.api_version(&version.name), &resource.kind.kind);
    let said = format!("failed to create typed patch object ({place}; {api_version}, Kind={kind}): {why}");
    Err(Failure::new(500, "", said))
}

/// Merges the part of the applied object that this request may write.
fn merge_kept_fields(merged: &mut Value, wanted: &Value, schema: &Schema, version: &Version, status: bool) {
    let (Some(target), Some(wanted)) = (merged.as_object_mut(), wanted.as_object()) else { return };
    for (key, value) in wanted {
        let is_status = key == "status" && version.status;
        let writes = match key.as_str() {
            "apiVersion" | "kind" => false,
            "metadata" => !status,
            _ => is_status == status,
        };
        if writes {
            merge(schema.field(key), target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn merge(schema: Option<&Schema>, live: &mut Value, wanted: &Value) {
    if is_piece(schema, wanted)
        && !matches!((&*live, wanted), (Value::Object(_), Value::Object(w)) if w.is_empty() && !schema.is_some_and(|s| s.atomic))
    {
        *live = wanted.clone();
        return;
    }
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            for (key, value) in wanted {
                let below = schema.and_then(|s| s.field(key));
                merge(below, live.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(live), Value::Array(wanted)) => {
            let below = schema.and_then(|s| s.items.as_deref());
            for item in wanted {
                let key = item_key(schema, item);
                match live.iter_mut().find(|l| item_key(schema, l) == key) {
                    Some(old) => merge(below, old, item),
                    None => live.push(item.clone()),
                }
            }
        }
        (live, wanted) => *live = wanted.clone(),
    }
}

/// Finds conflicts with other managers, or takes their fields away.
fn settle(
    schema: &Schema,
    live: &Value,
    merged: &Value,
    set: &FieldSet,
    entries: &mut [Entry],
    force: Force,
    writing: &Writing<'_>,
) -> Result<()> {
    let (mut changed, removed) = difference(Some(schema), Some(live), Some(merged));
    changed.union(&removed);
    let changed = changed.intersect(set);
    let mut conflicts: Vec<(String, String)> = Vec::new();
    for entry in entries.iter_mut().filter(|e| !e.is(writing, Operation::Apply)) {
        let both = entry.set.intersect(&changed);
        if both.is_empty() {
            continue;
        }
        if force == Force::Yes {
            entry.set.subtract(&both);
        } else {
            conflicts.extend(both.paths().into_iter().map(|path| (entry.said(), path)));
        }
    }
    if conflicts.is_empty() { Ok(()) } else { Err(conflict(&conflicts)) }
}

fn conflict(conflicts: &[(String, String)]) -> Failure {
    let message = match conflicts {
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
        many => {
            let mut by_manager: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (manager, path) in many {
                by_manager.entry(manager).or_default().push(path);
            }
            let mut lines = Vec::new();
            for (manager, paths) in by_manager {
                lines.push(format!("conflicts with {manager}:"));
                lines.extend(paths.into_iter().map(|path| format!("- {path}")));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let cause = |(manager, path): &(String, String)| {
        Cause::new("FieldManagerConflict", path, format!("conflict with {manager}"))
    };
    let causes = conflicts.iter().map(cause).collect();
    Failure::new(409, "Conflict", message).with(Details { causes, ..Details::default() })
}

/// Removes fields that the manager no longer wants and that nobody else holds.
fn cut(schema: Option<&Schema>, value: &mut Value, dropped: &FieldSet, held: &FieldSet) {
    let nothing = FieldSet::default();
    match value {
        Value::Object(map) => {
            for (key, less) in &dropped.below {
                if let Some(name) = key.strip_prefix("f:") {
                    cut_field(schema, map, name, less, held.below.get(key).unwrap_or(&nothing));
                }
            }
        }
        Value::Array(items) => {
            let below = schema.and_then(|s| s.items.as_deref());
            items.retain_mut(|item| {
                let Some(key) = item_key(schema, item) else { return true };
                let Some(less) = dropped.below.get(&key) else { return true };
                let rest = held.below.get(&key).unwrap_or(&nothing);
                if less.here && rest.is_empty() {
                    return false;
                }
                cut(below, item, less, rest);
                true
            });
        }
        _ => {}
    }
}

fn cut_field(schema: Option<&Schema>, map: &mut Map<String, Value>, name: &str, dropped: &FieldSet, held: &FieldSet) {
    let Some(value) = map.get_mut(name) else { return };
    let is_mine = dropped.here && held.is_empty();
    if !is_mine {
        cut(schema.and_then(|s| s.field(name)), value, dropped, held);
    }
    let is_hollow = match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    if is_mine || (is_hollow && held.is_empty()) {
        map.remove(name);
    }
}

/// The first key that comes twice in a keyed list, as the API says it.
fn repeated(schema: Option<&Schema>, value: &Value, path: &str) -> Option<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .find_map(|(key, value)| repeated(schema.and_then(|s| s.field(key)), value, &format!("{path}.{key}"))),
        Value::Array(items) => {
            let mut seen: Vec<String> = Vec::new();
            for item in items {
                let key = item_key(schema, item)?;
                if seen.contains(&key) {
                    let is_set = schema.is_some_and(|s| s.list == ListType::Set);
                    let unit = if is_set { "item" } else { "key" };
                    return Some(format!("{path}: duplicate entries for {unit} {}", fields::element(&key)));
                }
                seen.push(key);
            }
            let below = schema.and_then(|s| s.items.as_deref());
            items.iter().find_map(|item| repeated(below, item, &format!("{path}[]")))
        }
        _ => None,
    }
}

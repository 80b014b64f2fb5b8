//! Writing: how a new or changed object becomes part of the world.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admission::{self, UnknownFields};
use super::failure::{Cause, Failure, Result, reason};
use super::fields::{self, Entry};
use super::meta::{self, meta_mut, meta_str};
use super::resource::{Resource, Version};
use super::state::{State, Writing, Written, stamp};
use super::{builtin, hooks::Fault, kind::kinds};

impl State {
    /// Creates an object; `applied` is its manager where it comes of an apply.
    pub(crate) fn create(
        &mut self,
        mut object: Value,
        writing: &Writing<'_>,
        applied: Option<Entry>,
    ) -> Result<Written> {
        let Writing { resource, version, .. } = *writing;
        if resource.storage().name != version.name && self.hooks.has(Fault::RefusesOlderVersions) {
            return Err(Failure::bad_request(format!("version {} of {} is refused", version.name, resource.plural)));
        }
        let takes_all = writing.unknown == UnknownFields::Strict && self.hooks.has(Fault::TakesUnknownFields);
        let unknown = if takes_all { UnknownFields::Ignore } else { writing.unknown };
        let warnings = admission::decode(resource, version, &mut object, unknown)?;
        if !meta_str(&object, "resourceVersion").is_empty() {
            return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let prefix = meta_str(&object, "generateName");
        if meta::name(&object).is_empty() && !prefix.is_empty() {
            let name = format!("{prefix}{}", self.suffix());
            meta_mut(&mut object).insert("name".into(), json!(name));
        }
        self.settle_home(resource, &mut object)?;
        let key = meta::key(&object);
        let uid = self.new_uid();
        let meta = meta_mut(&mut object);
        for field in ["managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"] {
            meta.remove(field);
        }
        meta.insert("uid".into(), json!(uid));
        meta.insert("creationTimestamp".into(), json!(stamp(writing.now)));
        if resource.generation {
            meta.insert("generation".into(), json!(1));
        }
        if version.status {
            carry(&mut object, "status", None);
        }
        admission::default(version, &mut object);
        let taken = self.get(&resource.kind, &key.0, &key.1).is_some();
        builtin::prepare(&resource.kind, &mut object, None, &mut self.addresses);
        match admission::validate(resource, version, &object, None) {
            Err(_) if self.hooks.has(Fault::SkipsRules) => {}
            valid => valid?,
        }
        match self.hooks.validate(&resource.kind, &object) {
            Err(_) if self.hooks.has(Fault::SkipsWebhooks) => {}
            Err(denial) => return Err(Failure::denied(&denial)),
            Ok(()) => {}
        }
        if taken {
            return Err(Failure::already_exists(resource, &key.1));
        }
        store_as(resource, version, &mut object);
        match applied {
            Some(entry) => fields::write(&mut object, vec![entry]),
            None => fields::track(None, &mut object, writing),
        }
        if writing.dry_run {
            return Ok(Written { object: Arc::new(object), warnings });
        }
        let object = self.commit(&resource.kind, key, Some(object)).ok_or_else(Failure::no_such_resource)?;
        self.after_write(resource, &object);
        Ok(Written { object, warnings })
    }

    /// Checks the namespace of a new object, which only objects of namespaced kinds have.
    fn settle_home(&self, resource: &Resource, object: &mut Value) -> Result<()> {
        if !resource.namespaced {
            meta_mut(object).remove("namespace");
            return Ok(());
        }
        let namespace = meta::namespace(object);
        let home = self.find(&*self.resource(&kinds::NAMESPACE)?, "", namespace)?;
        if !meta::is_going(&home) {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut failure = Failure::forbidden(resource, meta::name(object), &why);
        if let Some(details) = &mut failure.details {
            let message = format!("namespace {namespace} is being terminated");
            details.causes.push(Cause::new("NamespaceTerminating", "metadata.namespace", message));
        }
        Err(failure)
    }

    pub(crate) fn replace(&mut self, key: (&str, &str), mut object: Value, writing: &Writing<'_>) -> Result<Written> {
        let current = self.find(writing.resource, key.0, key.1)?;
        let warnings = admission::decode(writing.resource, writing.version, &mut object, writing.unknown)?;
        precondition(&current, &object, key.1, writing)?;
        let mut object = self.succeed(&current, object, writing)?;
        fields::track(Some(&current), &mut object, writing);
        self.keep(&current, object, writing, warnings)
    }

    /// Replaces an object by the outcome of an apply, whose managers are known.
    pub(crate) fn replace_managed(
        &mut self,
        current: &Arc<Value>,
        object: Value,
        writing: &Writing<'_>,
        managers: Vec<Entry>,
    ) -> Result<Written> {
        let mut object = self.succeed(current, object, writing)?;
        fields::write(&mut object, managers);
        self.keep(current, object, writing, Vec::new())
    }

    /// The successor of an object in the version that is kept: with what the server keeps, fills in and counts.
    fn succeed(&mut self, current: &Value, object: Value, writing: &Writing<'_>) -> Result<Value> {
        let Writing { resource, version, .. } = *writing;
        let mut object = merge_kept(version, current, object, writing.status);
        admission::default(version, &mut object);
        builtin::prepare(&resource.kind, &mut object, Some(current), &mut self.addresses);
        let mut shown = current.clone();
        shown["apiVersion"] = object["apiVersion"].clone();
        if resource.generation && spec_differs(version, &shown, &object) {
            let generation = current["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            meta_mut(&mut object).insert("generation".into(), json!(generation));
        }
        admission::validate(resource, version, &object, Some(&shown))?;
        store_as(resource, version, &mut object);
        Ok(object)
    }

    /// Commits a successor of `current`, or nothing where they are equal.
    fn keep(
        &mut self,
        current: &Arc<Value>,
        mut object: Value,
        writing: &Writing<'_>,
        warnings: Vec<String>,
    ) -> Result<Written> {
        let resource = writing.resource;
        let version = current["metadata"]["resourceVersion"].clone();
        meta_mut(&mut object).insert("resourceVersion".into(), version);
        if fields::same(current, &object) {
            return Ok(Written { object: current.clone(), warnings });
        }
        if writing.dry_run {
            return Ok(Written { object: Arc::new(object), warnings });
        }
        let key = meta::key(current);
        let going =
            meta::is_going(&object) && meta::finalizers(&object).is_empty() && self.may_leave(resource, &object);
        let object = self.commit(&resource.kind, key.clone(), Some(object)).ok_or_else(Failure::no_such_resource)?;
        if going {
            self.vanish(resource, &key);
        } else {
            self.after_write(resource, &object);
        }
        Ok(Written { object, warnings })
    }

    /// What the server itself does after a write: a definition is served at once.
    fn after_write(&mut self, resource: &Resource, object: &Arc<Value>) {
        if resource.kind == kinds::CUSTOM_RESOURCE_DEFINITION {
            self.define(object);
        }
    }
}

fn precondition(current: &Value, object: &Value, name: &str, writing: &Writing<'_>) -> Result<()> {
    let resource = writing.resource;
    let asked = meta_str(object, "resourceVersion");
    if !asked.is_empty() && asked != meta_str(current, "resourceVersion") {
        return Err(Failure::modified(resource, name));
    }
    if asked.is_empty() && writing.conditional && resource.custom {
        let message = "Invalid value: 0x0: must be specified for an update";
        let cause = Cause::new(reason::INVALID, "metadata.resourceVersion", message);
        return Err(Failure::invalid(&resource.kind, name, vec![cause]));
    }
    let (asked, has) = (meta::uid(object), meta::uid(current));
    if !asked.is_empty() && asked != has {
        let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {has}");
        return Err(Failure::conflict(resource, name, &why));
    }
    Ok(())
}

/// Turns an object of `version` into the version that is kept.
fn store_as(resource: &Resource, version: &Version, object: &mut Value) {
    let storage = resource.storage();
    object["apiVersion"] = json!(resource.api_version(&storage.name));
    object["kind"] = json!(resource.kind.kind);
    if storage.name != version.name {
        admission::default(storage, object);
    }
}

/// Gives an object the value of a field that another one has, or takes the field away.
pub(crate) fn carry(object: &mut Value, field: &str, value: Option<&Value>) {
    if let Some(map) = object.as_object_mut() {
        match value {
            Some(value) => map.insert(field.to_owned(), value.clone()),
            None => map.remove(field),
        };
    }
}

/// The new object with what the server keeps of the current one.
fn merge_kept(version: &Version, current: &Value, new: Value, status: bool) -> Value {
    const KEPT: [&str; 8] = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
    ];
    let api_version = new["apiVersion"].clone();
    let mut object = if status {
        let mut kept = current.clone();
        carry(&mut kept, "status", new.get("status"));
        if let Some(fields) = new["metadata"].get("managedFields") {
            kept["metadata"]["managedFields"] = fields.clone();
        }
        kept
    } else {
        let mut new = new;
        if version.status {
            carry(&mut new, "status", current.get("status"));
        }
        new
    };
    meta_mut(&mut object);
    for field in KEPT {
        carry(&mut object["metadata"], field, current["metadata"].get(field));
    }
    object["apiVersion"] = api_version;
    object
}

/// Whether anything but metadata and status differs.
fn spec_differs(version: &Version, before: &Value, after: &Value) -> bool {
    let is_spec = |field: &str| match field {
        "metadata" | "apiVersion" | "kind" => false,
        "status" => !version.status,
        _ => true,
    };
    let spec = |object: &Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten().filter(|(field, _)| is_spec(field));
        fields.map(|(field, value)| (field.clone(), value.clone())).collect()
    };
    spec(before) != spec(after)
}

//! Writing: how a new or changed object becomes part of the world.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admission::{self, UnknownFields};
use super::failure::{Cause, Failure};
use super::fields::{self, Entry};
use super::meta::{self, meta_mut, meta_str};
use super::resource::{Resource, Version};
use super::state::{State, Writing, Written, stamp};
use super::{builtin, hooks::Fault, kind::kinds};

impl State {
    pub(crate) fn create(
        &mut self,
        resource: &Arc<Resource>,
        version: &Version,
        object: Value,
        writing: &Writing<'_>,
    ) -> Result<Written, Failure> {
        self.create_managed(resource, version, object, writing, None)
    }

    /// The same, with the fields of an applying manager where it was applied.
    pub(crate) fn create_managed(
        &mut self,
        resource: &Arc<Resource>,
        version: &Version,
        mut object: Value,
        writing: &Writing<'_>,
        applied: Option<Entry>,
    ) -> Result<Written, Failure> {
        let group = resource.kind.group.as_ref();
        if resource.storage().name != version.name && self.hooks.has(Fault::RefusesOlderVersions) {
            return Err(Failure::bad_request(format!("version {} of {} is refused", version.name, resource.plural)));
        }
        let takes_all = writing.unknown == UnknownFields::Strict && self.hooks.has(Fault::TakesUnknownFields);
        let unknown = if takes_all { UnknownFields::Ignore } else { writing.unknown };
        let warnings = admission::decode(resource, version, &mut object, unknown)?;
        if !meta_str(&object, "resourceVersion").is_empty() {
            return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
        }
        if meta::name(&object).is_empty() {
            let prefix = meta_str(&object, "generateName").to_owned();
            if !prefix.is_empty() {
                let name = format!("{prefix}{}", self.suffix());
                meta_mut(&mut object).insert("name".into(), json!(name));
            }
        }
        let name = meta::name(&object).to_owned();
        let namespace = self.home(resource, &mut object)?;
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
        if version.status
            && let Some(map) = object.as_object_mut()
        {
            map.remove("status");
        }
        admission::default(version, &mut object);
        let key = (namespace.clone(), name.clone());
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
            return Err(Failure::already_exists(&resource.plural, group, &name));
        }
        store_as(resource, version, &mut object);
        match applied {
            Some(entry) => fields::write(&mut object, vec![entry]),
            None => fields::track(resource, &version.name, None, &mut object, writing),
        }
        if writing.dry_run {
            return Ok(Written { object: Arc::new(object), warnings });
        }
        let object = self.commit(&resource.kind, key, Some(object)).ok_or_else(Failure::no_such_resource)?;
        self.after_write(resource, &object, writing.now);
        Ok(Written { object, warnings })
    }

    fn home(&self, resource: &Resource, object: &mut Value) -> Result<String, Failure> {
        let group = resource.kind.group.as_ref();
        let name = meta::name(object).to_owned();
        if !resource.namespaced {
            meta_mut(object).remove("namespace");
            return Ok(String::new());
        }
        let namespace = meta::namespace(object).to_owned();
        let Some(home) = self.get(&kinds::NAMESPACE, "", &namespace) else {
            return Err(Failure::not_found("namespaces", "", &namespace));
        };
        if meta::is_going(&home) {
            let mut failure = Failure::forbidden(
                &resource.plural,
                group,
                &name,
                &format!("unable to create new content in namespace {namespace} because it is being terminated"),
            );
            if let Some(details) = &mut failure.details {
                details.causes.push(Cause {
                    reason: "NamespaceTerminating",
                    message: format!("namespace {namespace} is being terminated"),
                    field: "metadata.namespace".into(),
                });
            }
            return Err(failure);
        }
        Ok(namespace)
    }

    /// Replaces an object by one that was written in `version`.
    pub(crate) fn replace(
        &mut self,
        resource: &Arc<Resource>,
        version: &Version,
        namespace: &str,
        name: &str,
        mut object: Value,
        writing: &Writing<'_>,
    ) -> Result<Written, Failure> {
        let group = resource.kind.group.as_ref();
        let Some(current) = self.get(&resource.kind, namespace, name) else {
            return Err(Failure::not_found(&resource.plural, group, name));
        };
        let warnings = admission::decode(resource, version, &mut object, writing.unknown)?;
        self.precondition(resource, &current, &object, name, writing)?;
        let mut object = self.succeed(resource, version, &current, object, writing.status)?;
        fields::track(resource, &version.name, Some(&current), &mut object, writing);
        self.keep(resource, &current, object, writing, warnings)
    }

    /// Replaces an object by the outcome of an apply, whose managers are known.
    pub(crate) fn replace_managed(
        &mut self,
        resource: &Arc<Resource>,
        version: &Version,
        current: &Arc<Value>,
        object: Value,
        writing: &Writing<'_>,
        managers: Vec<Entry>,
    ) -> Result<Written, Failure> {
        let mut object = self.succeed(resource, version, current, object, writing.status)?;
        fields::write(&mut object, managers);
        self.keep(resource, current, object, writing, Vec::new())
    }

    /// The successor of an object in the version that is kept: with what the server keeps, fills in and counts.
    fn succeed(
        &mut self,
        resource: &Resource,
        version: &Version,
        current: &Value,
        object: Value,
        status: bool,
    ) -> Result<Value, Failure> {
        let mut object = merge_kept(version, current, object, status);
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
    pub(crate) fn keep(
        &mut self,
        resource: &Arc<Resource>,
        current: &Arc<Value>,
        mut object: Value,
        writing: &Writing<'_>,
        warnings: Vec<String>,
    ) -> Result<Written, Failure> {
        let version = current["metadata"]["resourceVersion"].clone();
        meta_mut(&mut object).insert("resourceVersion".into(), version);
        if fields::same(current, &object) {
            return Ok(Written { object: current.clone(), warnings });
        }
        if writing.dry_run {
            return Ok(Written { object: Arc::new(object), warnings });
        }
        let key = (meta::namespace(current).to_owned(), meta::name(current).to_owned());
        let going =
            meta::is_going(&object) && meta::finalizers(&object).is_empty() && self.may_leave(resource, &object);
        let object = self.commit(&resource.kind, key.clone(), Some(object)).ok_or_else(Failure::no_such_resource)?;
        if going {
            self.vanish(resource, &key, writing.now);
        } else {
            self.after_write(resource, &object, writing.now);
        }
        Ok(Written { object, warnings })
    }

    fn precondition(
        &self,
        resource: &Resource,
        current: &Value,
        object: &Value,
        name: &str,
        writing: &Writing<'_>,
    ) -> Result<(), Failure> {
        let group = resource.kind.group.as_ref();
        let asked = meta_str(object, "resourceVersion");
        if !asked.is_empty() && asked != meta_str(current, "resourceVersion") {
            return Err(Failure::modified(&resource.plural, group, name));
        }
        if asked.is_empty() && writing.conditional && resource.custom {
            return Err(Failure::invalid(
                &resource.kind.kind,
                group,
                name,
                vec![Cause {
                    reason: "FieldValueInvalid",
                    message: "Invalid value: 0x0: must be specified for an update".into(),
                    field: "metadata.resourceVersion".into(),
                }],
            ));
        }
        let uid = meta::uid(object);
        if !uid.is_empty() && uid != meta::uid(current) {
            return Err(Failure::conflict(
                &resource.plural,
                group,
                name,
                &format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta::uid(current)),
            ));
        }
        Ok(())
    }

    /// What the server itself does after a write: a definition is served at once.
    fn after_write(&mut self, resource: &Resource, object: &Arc<Value>, now: jiff::Timestamp) {
        if resource.kind == kinds::CUSTOM_RESOURCE_DEFINITION {
            self.define(object, now);
        }
    }
}

/// Turns an object of `version` into the version that is kept.
pub(crate) fn store_as(resource: &Resource, version: &Version, object: &mut Value) {
    let storage = resource.storage();
    object["apiVersion"] = json!(resource.api_version(&storage.name));
    object["kind"] = json!(resource.kind.kind);
    if storage.name != version.name {
        admission::default(storage, object);
    }
}

/// The new object with what the server keeps of the current one.
fn merge_kept(version: &Version, current: &Value, new: Value, status: bool) -> Value {
    let api_version = new["apiVersion"].clone();
    let mut object = if status {
        let mut kept = current.clone();
        if let (Some(kept), Some(new)) = (kept.as_object_mut(), new.as_object()) {
            match new.get("status") {
                Some(status) => kept.insert("status".into(), status.clone()),
                None => kept.remove("status"),
            };
        }
        if let Some(fields) = new["metadata"].get("managedFields") {
            meta_mut(&mut kept).insert("managedFields".into(), fields.clone());
        }
        kept
    } else {
        let mut new = new;
        if version.status
            && let Some(map) = new.as_object_mut()
        {
            match current.get("status") {
                Some(status) => map.insert("status".into(), status.clone()),
                None => map.remove("status"),
            };
        }
        new
    };
    let kept = &current["metadata"];
    let meta = meta_mut(&mut object);
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
    ] {
        match kept.get(field) {
            Some(value) => meta.insert(field.into(), value.clone()),
            None => meta.remove(field),
        };
    }
    object["apiVersion"] = api_version;
    object
}

/// Whether anything but metadata and status differs.
fn spec_differs(version: &Version, before: &Value, after: &Value) -> bool {
    let rest = |object: &Value| -> Vec<(String, Value)> {
        object
            .as_object()
            .map(|map| {
                map.iter()
                    .filter(|(k, _)| match k.as_str() {
                        "metadata" | "apiVersion" | "kind" => false,
                        "status" => !version.status,
                        _ => true,
                    })
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect()
            })
            .unwrap_or_default()
    };
    let (mut before, mut after) = (rest(before), rest(after));
    before.sort_by(|a, b| a.0.cmp(&b.0));
    after.sort_by(|a, b| a.0.cmp(&b.0));
    before != after
}

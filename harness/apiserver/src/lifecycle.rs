//! Leaving: deletion with finalizers, garbage collection by owner, the end of a namespace and of a definition.

use std::{collections::VecDeque, sync::Arc};

use serde_json::{Value, json};

use super::kind::{Kind, kinds};
use super::meta::{self, Key, meta_mut, meta_str};
use super::state::{State, stamp};
use super::{definition, failure::Failure, failure::Result, resource::Resource};

/// What happens to the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They go after it.
    #[default]
    Background,
    /// They go before it.
    Foreground,
    /// They stay and lose the reference.
    Orphan,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Deletion {
    pub propagation: Propagation,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
}

/// The finalizer that keeps an owner until what it owns is gone.
const FOREGROUND: &str = "foregroundDeletion";

/// Namespaces that the API server does not let go.
const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];

impl State {
    /// Deletes an object, or marks it where finalizers hold it; returns its last state.
    pub(crate) fn remove(
        &mut self,
        resource: &Arc<Resource>,
        (namespace, name): (&str, &str),
        deletion: &Deletion,
    ) -> Result<Arc<Value>> {
        let current = self.find(resource, namespace, name)?;
        for (asked, field, label) in
            [(&deletion.uid, "uid", "UID"), (&deletion.resource_version, "resourceVersion", "ResourceVersion")]
        {
            let has = meta_str(&current, field);
            if let Some(asked) = asked.as_ref().filter(|asked| *asked != has) {
                let why =
                    format!("Precondition failed: {label} in precondition: {asked}, {label} in object meta: {has}");
                return Err(Failure::conflict(resource, name, &why));
            }
        }
        if resource.kind == kinds::NAMESPACE && IMMORTAL.contains(&name) {
            return Err(Failure::forbidden(resource, name, "this namespace may not be deleted"));
        }
        if deletion.dry_run {
            return Ok(current);
        }
        let owned = self.owned_by(meta::uid(&current));
        let mut holds: Vec<String> = meta::finalizers(&current).into_iter().map(str::to_owned).collect();
        match deletion.propagation {
            Propagation::Foreground if !owned.is_empty() && !holds.iter().any(|h| h == FOREGROUND) => {
                holds.push(FOREGROUND.to_owned());
            }
            Propagation::Orphan => {
                for (kind, key) in &owned {
                    self.disown(kind, key, meta::uid(&current));
                }
            }
            Propagation::Foreground | Propagation::Background => {}
        }
        let stays = !holds.is_empty() || resource.kind == kinds::NAMESPACE;
        if !stays {
            return Ok(self.vanish(resource, &meta::key(&current)).unwrap_or(current));
        }
        let marked = self.mark(resource, &current, &holds);
        if resource.kind == kinds::NAMESPACE {
            self.empty_namespace(name);
        } else if holds.iter().any(|h| h == FOREGROUND) {
            for (kind, key) in owned {
                self.remove_quietly(&kind, &key, Propagation::Foreground);
            }
            self.release_owners();
        }
        Ok(self.get(&resource.kind, namespace, name).unwrap_or(marked))
    }

    fn mark(&mut self, resource: &Resource, current: &Arc<Value>, holds: &[String]) -> Arc<Value> {
        if meta::is_going(current) && meta::finalizers(current).len() == holds.len() {
            return current.clone();
        }
        let mut object = current.as_ref().clone();
        let generation = object["metadata"]["generation"].as_i64();
        let meta = meta_mut(&mut object);
        if !holds.is_empty() {
            meta.insert("finalizers".into(), json!(holds));
        }
        if !meta.contains_key("deletionTimestamp") {
            meta.insert("deletionTimestamp".into(), json!(stamp(self.hooks.now())));
            meta.insert("deletionGracePeriodSeconds".into(), json!(0));
            if let Some(generation) = generation {
                meta.insert("generation".into(), json!(generation + 1));
            }
        }
        if resource.kind == kinds::NAMESPACE {
            object["status"]["phase"] = json!("Terminating");
        }
        self.commit(&resource.kind, meta::key(current), Some(object)).unwrap_or_else(|| current.clone())
    }

    fn remove_quietly(&mut self, kind: &Kind, key: &Key, propagation: Propagation) {
        let deletion = Deletion { propagation, ..Deletion::default() };
        if let Ok(resource) = self.resource(kind) {
            // Absent is what was wanted.
            let _ = self.remove(&resource, (&key.0, &key.1), &deletion);
        }
    }

    /// Takes an object out of the store, and with it everything that only it held.
    pub(crate) fn vanish(&mut self, resource: &Resource, key: &Key) -> Option<Arc<Value>> {
        let last = self.commit(&resource.kind, key.clone(), None)?;
        let mut gone: VecDeque<(Kind, Arc<Value>)> = VecDeque::from([(resource.kind.clone(), last.clone())]);
        while let Some((kind, object)) = gone.pop_front() {
            if kind == kinds::SERVICE {
                self.addresses.release(&object);
            }
            if kind == kinds::CUSTOM_RESOURCE_DEFINITION {
                self.undefine(&object);
            }
            let uid = meta::uid(&object);
            for (kind, key) in self.owned_by(uid) {
                if let Some(last) = self.let_go(&kind, &key, uid) {
                    gone.push_back((kind, last));
                }
            }
        }
        self.release_owners();
        self.close_namespaces();
        Some(last)
    }

    /// A dependent of a vanished owner loses the reference, and goes when that was the last: its last state then.
    fn let_go(&mut self, kind: &Kind, key: &Key, uid: &str) -> Option<Arc<Value>> {
        let object = self.get(kind, &key.0, &key.1)?;
        let is_there = |uid: &str| self.everything().any(|(_, o)| meta::uid(o) == uid);
        if owner_uids(&object).any(|owner| owner != uid && is_there(owner)) {
            self.disown(kind, key, uid);
        } else if meta::finalizers(&object).is_empty() {
            return self.commit(kind, key.clone(), None);
        } else if !meta::is_going(&object) {
            self.remove_quietly(kind, key, Propagation::Background);
        }
        None
    }

    fn disown(&mut self, kind: &Kind, key: &Key, uid: &str) {
        if let Some(object) = self.get(kind, &key.0, &key.1) {
            self.commit(kind, key.clone(), Some(without(&object, "ownerReferences", |owner| owner["uid"] == uid)));
        }
    }

    fn owned_by(&self, uid: &str) -> Vec<(Kind, Key)> {
        self.all(|object| owner_uids(object).any(|owner| owner == uid))
    }

    fn all(&self, wanted: impl Fn(&Value) -> bool) -> Vec<(Kind, Key)> {
        let found = self.everything().filter(|(_, object)| wanted(object));
        found.map(|(kind, object)| (kind.clone(), meta::key(object))).collect()
    }

    /// Owners that waited for their dependents go when the last one is gone.
    fn release_owners(&mut self) {
        let waits = |object: &Value| meta::is_going(object) && meta::finalizers(object).contains(&FOREGROUND);
        loop {
            let is_free = |object: &Value| waits(object) && self.owned_by(meta::uid(object)).is_empty();
            let found = self.everything().find(|(_, object)| is_free(object));
            let Some((kind, object)) = found.map(|(kind, object)| (kind.clone(), object.clone())) else { return };
            let key = meta::key(&object);
            let free = without(&object, "finalizers", |hold| hold == FOREGROUND);
            let last = meta::finalizers(&free).is_empty();
            self.commit(&kind, key.clone(), Some(free));
            if last && let Ok(resource) = self.resource(&kind) {
                self.vanish(&resource, &key);
            }
        }
    }

    fn empty_namespace(&mut self, namespace: &str) {
        for (kind, key) in self.all(|object| meta::namespace(object) == namespace) {
            self.remove_quietly(&kind, &key, Propagation::Background);
        }
        self.close_namespaces();
    }

    /// Ends the namespaces that are going and hold nothing any more.
    fn close_namespaces(&mut self) {
        let Ok(resource) = self.resource(&kinds::NAMESPACE) else { return };
        for namespace in self.list(&kinds::NAMESPACE, None) {
            let free = meta::is_going(&namespace) && meta::finalizers(&namespace).is_empty();
            if free && self.may_leave(&resource, &namespace) {
                self.vanish(&resource, &meta::key(&namespace));
            }
        }
    }

    /// Serves what a CustomResourceDefinition says, and writes its conditions.
    pub(crate) fn define(&mut self, object: &Arc<Value>) {
        let Ok(resource) = Resource::read(object, true) else {
            return; // refused at admission
        };
        let mut established = object.as_ref().clone();
        definition::establish(&mut established, &stamp(self.hooks.now()));
        self.serve(Arc::new(resource));
        if established != **object {
            self.commit(&kinds::CUSTOM_RESOURCE_DEFINITION, meta::key(object), Some(established));
        }
    }

    fn undefine(&mut self, object: &Value) {
        let Ok(resource) = Resource::read(object, true) else { return };
        for instance in self.list(&resource.kind, None) {
            if let Ok(served) = self.resource(&resource.kind) {
                self.vanish(&served, &meta::key(&instance));
            }
        }
        self.unserve(&resource.kind);
    }

    /// Whether an object that is marked may leave; the caller has seen that no finalizer holds it.
    pub(crate) fn may_leave(&self, resource: &Resource, object: &Value) -> bool {
        let name = meta::name(object);
        resource.kind != kinds::NAMESPACE || !self.everything().any(|(_, o)| meta::namespace(o) == name)
    }
}

fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten().filter_map(|o| o["uid"].as_str())
}

/// An object without some entries of a list in its metadata; a list that is empty then goes.
fn without(object: &Value, list: &str, gone: impl Fn(&Value) -> bool) -> Value {
    let mut object = object.clone();
    let meta = meta_mut(&mut object);
    if let Some(Value::Array(entries)) = meta.get_mut(list) {
        entries.retain(|entry| !gone(entry));
        if entries.is_empty() {
            meta.remove(list);
        }
    }
    object
}

//! Leaving: deletion with finalizers, garbage collection by owner, the end of a namespace and of a definition.

use std::{collections::VecDeque, sync::Arc};

use serde_json::{Value, json};

use super::kind::{Kind, kinds};
use super::meta::{self, meta_mut, meta_str};
use super::state::{Key, State, stamp};
use super::{definition, failure::Failure, resource::Resource};

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
        namespace: &str,
        name: &str,
        deletion: &Deletion,
        now: jiff::Timestamp,
    ) -> Result<Arc<Value>, Failure> {
        let group = resource.kind.group.as_ref();
        let Some(current) = self.get(&resource.kind, namespace, name) else {
            return Err(Failure::not_found(&resource.plural, group, name));
        };
        for (asked, field, label) in
            [(&deletion.uid, "uid", "UID"), (&deletion.resource_version, "resourceVersion", "ResourceVersion")]
        {
            let has = meta_str(&current, field);
            if let Some(asked) = asked
                && asked != has
            {
                return Err(Failure::conflict(
                    &resource.plural,
                    group,
                    name,
                    &format!("Precondition failed: {label} in precondition: {asked}, {label} in object meta: {has}"),
                ));
            }
        }
        if resource.kind == kinds::NAMESPACE && IMMORTAL.contains(&name) {
            return Err(Failure::forbidden(&resource.plural, group, name, "this namespace may not be deleted"));
        }
        if deletion.dry_run {
            return Ok(current);
        }
        let key = (namespace.to_owned(), name.to_owned());
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
            let last = self.vanish(resource, &key, now);
            return Ok(last.unwrap_or(current));
        }
        let marked = self.mark(resource, &current, &holds, now);
        if resource.kind == kinds::NAMESPACE {
            self.empty_namespace(name, now);
        } else if holds.iter().any(|h| h == FOREGROUND) {
            for (kind, key) in owned {
                self.remove_quietly(&kind, &key, Propagation::Foreground, now);
            }
            self.release_owners(now);
        }
        Ok(self.get(&resource.kind, namespace, name).unwrap_or(marked))
    }

    fn mark(
        &mut self,
        resource: &Resource,
        current: &Arc<Value>,
        holds: &[String],
        now: jiff::Timestamp,
    ) -> Arc<Value> {
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
            meta.insert("deletionTimestamp".into(), json!(stamp(now)));
            meta.insert("deletionGracePeriodSeconds".into(), json!(0));
            if let Some(generation) = generation {
                meta.insert("generation".into(), json!(generation + 1));
            }
        }
        if resource.kind == kinds::NAMESPACE {
            object["status"]["phase"] = json!("Terminating");
        }
        let key = (meta::namespace(current).to_owned(), meta::name(current).to_owned());
        self.commit(&resource.kind, key, Some(object)).unwrap_or_else(|| current.clone())
    }

    fn remove_quietly(&mut self, kind: &Kind, key: &Key, propagation: Propagation, now: jiff::Timestamp) {
        let deletion = Deletion { propagation, ..Deletion::default() };
        if let Ok(resource) = self.resource(kind) {
            // Absent is what was wanted.
            let _ = self.remove(&resource, &key.0, &key.1, &deletion, now);
        }
    }

    /// Takes an object out of the store, and with it everything that only it held.
    pub(crate) fn vanish(&mut self, resource: &Resource, key: &Key, now: jiff::Timestamp) -> Option<Arc<Value>> {
        let last = self.commit(&resource.kind, key.clone(), None)?;
        let mut gone: VecDeque<(Kind, Arc<Value>)> = VecDeque::from([(resource.kind.clone(), last.clone())]);
        while let Some((kind, object)) = gone.pop_front() {
            if kind == kinds::SERVICE {
                self.addresses.release(&object);
            }
            if kind == kinds::CUSTOM_RESOURCE_DEFINITION {
                self.undefine(&object, now);
            }
            let uid = meta::uid(&object).to_owned();
            for (kind, key) in self.owned_by(&uid) {
                self.let_go(&kind, &key, &uid, now, &mut gone);
            }
        }
        self.release_owners(now);
        self.close_namespaces(now);
        Some(last)
    }

    /// A dependent of a vanished owner: it loses the reference, and goes when that was the last.
    fn let_go(
        &mut self,
        kind: &Kind,
        key: &Key,
        uid: &str,
        now: jiff::Timestamp,
        gone: &mut VecDeque<(Kind, Arc<Value>)>,
    ) {
        let Some(object) = self.get(kind, &key.0, &key.1) else {
            return;
        };
        let others = owner_uids(&object).any(|owner| owner != uid && self.has_uid(owner));
        if others {
            self.disown(kind, key, uid);
        } else if meta::finalizers(&object).is_empty() {
            if let Some(last) = self.commit(kind, key.clone(), None) {
                gone.push_back((kind.clone(), last));
            }
        } else if !meta::is_going(&object) {
            self.remove_quietly(kind, key, Propagation::Background, now);
        }
    }

    fn disown(&mut self, kind: &Kind, key: &Key, uid: &str) {
        let Some(object) = self.get(kind, &key.0, &key.1) else {
            return;
        };
        let mut object = object.as_ref().clone();
        let meta = meta_mut(&mut object);
        if let Some(Value::Array(owners)) = meta.get_mut("ownerReferences") {
            owners.retain(|o| o["uid"] != uid);
            if owners.is_empty() {
                meta.remove("ownerReferences");
            }
        }
        self.commit(kind, key.clone(), Some(object));
    }

    fn has_uid(&self, uid: &str) -> bool {
        self.everything().any(|(_, o)| meta::uid(o) == uid)
    }

    fn owned_by(&self, uid: &str) -> Vec<(Kind, Key)> {
        self.everything()
            .filter(|(_, o)| owner_uids(o).any(|owner| owner == uid))
            .map(|(kind, o)| (kind.clone(), (meta::namespace(o).to_owned(), meta::name(o).to_owned())))
            .collect()
    }

    /// Owners that waited for their dependents go when the last one is gone.
    fn release_owners(&mut self, now: jiff::Timestamp) {
        loop {
            let free = self
                .everything()
                .find(|(_, o)| {
                    meta::is_going(o)
                        && meta::finalizers(o).contains(&FOREGROUND)
                        && self.owned_by(meta::uid(o)).is_empty()
                })
                .map(|(kind, o)| (kind.clone(), o.clone()));
            let Some((kind, object)) = free else { return };
            let key = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
            let mut object = object.as_ref().clone();
            if let Some(Value::Array(holds)) = meta_mut(&mut object).get_mut("finalizers") {
                holds.retain(|h| h != FOREGROUND);
                if holds.is_empty() {
                    meta_mut(&mut object).remove("finalizers");
                }
            }
            let last = meta::finalizers(&object).is_empty();
            self.commit(&kind, key.clone(), Some(object));
            if last && let Ok(resource) = self.resource(&kind) {
                self.vanish(&resource, &key, now);
            }
        }
    }

    fn empty_namespace(&mut self, namespace: &str, now: jiff::Timestamp) {
        let content: Vec<(Kind, Key)> = self
            .everything()
            .filter(|(_, o)| meta::namespace(o) == namespace)
            .map(|(kind, o)| (kind.clone(), (namespace.to_owned(), meta::name(o).to_owned())))
            .collect();
        for (kind, key) in content {
            self.remove_quietly(&kind, &key, Propagation::Background, now);
        }
        self.close_namespaces(now);
    }

    /// Ends the namespaces that are going and hold nothing any more.
    fn close_namespaces(&mut self, now: jiff::Timestamp) {
        let going: Vec<String> = self
            .list(&kinds::NAMESPACE, None)
            .iter()
            .filter(|ns| meta::is_going(ns) && meta::finalizers(ns).is_empty())
            .map(|ns| meta::name(ns).to_owned())
            .collect();
        for name in going {
            let held = self.everything().any(|(_, o)| meta::namespace(o) == name);
            if !held && let Ok(resource) = self.resource(&kinds::NAMESPACE) {
                self.vanish(&resource, &(String::new(), name), now);
            }
        }
    }

    /// Serves what a CustomResourceDefinition says, and writes its conditions.
    pub(crate) fn define(&mut self, object: &Arc<Value>, now: jiff::Timestamp) {
        let Ok(resource) = Resource::read(object, true) else {
            return; // refused at admission
        };
        let mut established = object.as_ref().clone();
        definition::establish(&mut established, &stamp(now));
        self.serve(Arc::new(resource));
        if established != **object {
            let key = (String::new(), meta::name(object).to_owned());
            self.commit(&kinds::CUSTOM_RESOURCE_DEFINITION, key, Some(established));
        }
    }

    fn undefine(&mut self, object: &Value, now: jiff::Timestamp) {
        let Ok(resource) = Resource::read(object, true) else {
            return;
        };
        let instances: Vec<Key> = self
            .list(&resource.kind, None)
            .iter()
            .map(|o| (meta::namespace(o).to_owned(), meta::name(o).to_owned()))
            .collect();
        for key in instances {
            if let Ok(served) = self.resource(&resource.kind) {
                self.vanish(&served, &key, now);
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

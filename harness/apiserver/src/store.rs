//! The store: the objects of one world, for controllers in the same process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::failure::{Failure, Result};
use super::lifecycle::{Deletion, Propagation};
use super::resource::{Resource, Version};
use super::short_form::{self, Definitions};
use super::state::{Change, Listener, State, WatchEvent, Writing};
use super::{admission::UnknownFields, apply::Force, hooks::Hooks, kind::Kind, meta, schema::Schema, write::carry};

/// An object as it is kept; clones are cheap.
pub type Object = Arc<Value>;

/// The objects of one world. Clones share them.
#[derive(Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    hooks: Arc<dyn Hooks>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("version", &self.version()).finish_non_exhaustive()
    }
}

/// The changes of a world, in order, none left out.
#[derive(Debug)]
pub struct Subscription {
    first: std::vec::IntoIter<Arc<WatchEvent>>,
    rest: mpsc::UnboundedReceiver<Arc<WatchEvent>>,
}

impl Subscription {
    pub async fn next(&mut self) -> Option<Arc<WatchEvent>> {
        match self.first.next() {
            Some(event) => Some(event),
            None => self.rest.recv().await,
        }
    }

    /// The next change if there is one already.
    pub fn try_next(&mut self) -> Option<Arc<WatchEvent>> {
        self.first.next().or_else(|| self.rest.try_recv().ok())
    }
}

impl Store {
    /// A store that serves the built-in kinds and these definitions, with the namespaces of a fresh cluster.
    pub fn new(hooks: impl Hooks, definitions: &Definitions) -> Self {
        let hooks: Arc<dyn Hooks> = Arc::new(hooks);
        let mut state = State::new(hooks.clone());
        short_form::install(&mut state, hooks.now(), definitions);
        let store = Self { state: Arc::new(Mutex::new(state)), hooks };
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            store.create(namespace).expect("a fresh store takes its namespaces");
        }
        store
    }

    /// A store of another world that begins with the objects and definitions as they are here.
    pub fn copy(&self, hooks: impl Hooks) -> Self {
        let hooks: Arc<dyn Hooks> = Arc::new(hooks);
        let state = self.lock().copy(hooks.clone());
        Self { state: Arc::new(Mutex::new(state)), hooks }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves whole objects behind: commits are single steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> jiff::Timestamp {
        self.hooks.now()
    }

    pub(crate) fn name(&self) -> &'static str {
        self.hooks.name()
    }

    pub fn version(&self) -> u64 {
        self.lock().version()
    }

    pub fn changed(&self, kinds: &[Kind]) -> Vec<u64> {
        self.lock().changed(kinds)
    }

    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Object> {
        self.lock().get(kind, namespace, name)
    }

    /// An object that has to be there.
    pub(crate) fn find(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Object> {
        let state = self.lock();
        state.find(&*state.resource(kind)?, namespace, name)
    }

    /// The objects of a kind in a namespace, or in all of them, in the order of namespaces and names.
    pub fn list(&self, kind: &Kind, namespace: Option<&str>) -> Vec<Object> {
        self.lock().list(kind, namespace)
    }

    /// The name of a kind in paths where this version of it is served, and whether its objects live in namespaces.
    pub fn served_as(&self, kind: &Kind, version: &str) -> Option<(String, bool)> {
        let resource = self.lock().resource(kind).ok()?;
        resource.version(version).map(|_| (resource.plural.clone(), resource.namespaced))
    }

    /// The path of an object, in the version that its kind is kept in.
    pub fn path(&self, kind: &Kind, namespace: &str, name: &str) -> Option<String> {
        let resource = self.lock().resource(kind).ok()?;
        let root = if kind.group.is_empty() { "api" } else { "apis" };
        let home = if resource.namespaced { format!("/namespaces/{namespace}") } else { String::new() };
        let version = resource.api_version(&resource.storage().name);
        Some(format!("/{root}/{version}{home}/{}/{name}", resource.plural))
    }

    /// The kinds of this name in all groups, each with whether its objects live in namespaces.
    pub fn kinds_named(&self, name: &str) -> Vec<(Kind, bool)> {
        let state = self.lock();
        state.resources().filter(|r| r.kind.kind == name).map(|r| (r.kind.clone(), r.namespaced)).collect()
    }

    /// Creates an object; unknown fields are refused.
    pub fn create(&self, object: Value) -> Result<Object> {
        let mut state = self.lock();
        let (resource, version) = served(&state, &object)?;
        let version = resource.version(&version).ok_or_else(Failure::no_such_resource)?;
        Ok(state.create(object, &self.writing(&resource, version, false), None)?.object)
    }

    /// Changes an object in place (all but its status); no change, no event.
    pub fn change(&self, kind: &Kind, namespace: &str, name: &str, edit: impl FnOnce(&mut Value)) -> Result<Object> {
        self.edit(kind, (namespace, name), false, edit)
    }

    /// Changes the status of an object: `edit` gets the value of `status`, an empty object where there is none.
    /// No change, no event and no new resource version.
    pub fn update_status(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        edit: impl FnOnce(&mut Value),
    ) -> Result<Object> {
        self.edit(kind, (namespace, name), true, |object| {
            let mut status = object["status"].take();
            if !status.is_object() {
                status = json!({});
            }
            edit(&mut status);
            let is_empty = status.as_object().is_some_and(Map::is_empty);
            carry(object, "status", Some(&status).filter(|_| !is_empty));
        })
    }

    fn edit(&self, kind: &Kind, name: (&str, &str), status: bool, edit: impl FnOnce(&mut Value)) -> Result<Object> {
        let mut state = self.lock();
        let resource = state.resource(kind)?;
        let mut object = state.find(&resource, name.0, name.1)?.as_ref().clone();
        edit(&mut object);
        Ok(state.replace(name, object, &self.writing(&resource, resource.storage(), status))?.object)
    }

    /// Creates or updates an object by a forced server-side apply: the fields in `object` are set, fields that were applied
    /// before and that it no longer names are removed, others stay. No change, no event.
    pub fn apply(&self, object: Value) -> Result<Object> {
        let mut state = self.lock();
        let (resource, version) = served(&state, &object)?;
        let version = resource.version(&version).ok_or_else(Failure::no_such_resource)?;
        let (namespace, name) = meta::key(&object);
        let writing = self.writing(&resource, version, false);
        Ok(state.apply((&namespace, &name), object, Force::Yes, &writing)?.0.object)
    }

    /// Deletes an object; what it owns goes after it. Finalizers hold it.
    pub fn delete(&self, kind: &Kind, namespace: &str, name: &str) -> Result<()> {
        self.delete_with(kind, namespace, name, Propagation::Background)
    }

    pub fn delete_with(&self, kind: &Kind, namespace: &str, name: &str, propagation: Propagation) -> Result<()> {
        let mut state = self.lock();
        let resource = state.resource(kind)?;
        let deletion = Deletion { propagation, ..Deletion::default() };
        state.remove(&resource, (namespace, name), &deletion).map(drop)
    }

    /// The changes from now on, of one kind or of all.
    pub fn subscribe(&self, kind: Option<&Kind>) -> Subscription {
        self.events(kind, false)
    }

    /// What is there now as `Added`, then the changes, without a gap between them.
    pub fn observe(&self, kind: Option<&Kind>) -> Subscription {
        self.events(kind, true)
    }

    fn events(&self, kind: Option<&Kind>, existing: bool) -> Subscription {
        let (tx, rx) = mpsc::unbounded_channel();
        let mut state = self.lock();
        let mut first = Vec::new();
        if existing {
            first = state
                .everything()
                .filter(|(k, _)| kind.is_none_or(|wanted| wanted == *k))
                .map(|(kind, object)| {
                    Arc::new(WatchEvent {
                        kind: kind.clone(),
                        change: Change::Added,
                        object: object.clone(),
                        before: None,
                        version: meta::resource_version(object),
                    })
                })
                .collect();
        }
        state.listen(kind.cloned(), Listener::Patient(tx));
        Subscription { first: first.into_iter(), rest: rx }
    }

    /// Forgets the history of changes, as compaction does: watches from older versions get 410.
    pub fn compact(&self) {
        self.lock().forget();
    }

    pub fn rules(&self) -> Rules {
        let resources: Vec<Arc<Resource>> = self.lock().resources().cloned().collect();
        let mut rules = Rules::default();
        for version in resources.iter().flat_map(|r| &r.versions) {
            rules.collect(version.schema.schema());
        }
        rules
    }

    fn writing<'a>(&self, resource: &'a Arc<Resource>, version: &'a Version, status: bool) -> Writing<'a> {
        Writing {
            resource,
            version,
            manager: self.name(),
            dry_run: false,
            unknown: UnknownFields::Strict,
            status,
            conditional: false,
            now: self.now(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub all: usize,
    /// Those that cannot be compiled here, and are not checked, with the reason.
    pub unreadable: Vec<String>,
}

impl Rules {
    fn collect(&mut self, schema: &Schema) {
        for rule in &schema.rules {
            self.all += 1;
            if let Some(why) = rule.unreadable() {
                self.unreadable.push(format!("{}: {why}", rule.rule));
            }
        }
        let below = schema.properties.values().chain(schema.additional.as_deref()).chain(schema.items.as_deref());
        below.filter(|s| s.has_rules).for_each(|s| self.collect(s));
    }
}

/// The resource of an object and the version that it is written in.
fn served(state: &State, object: &Value) -> Result<(Arc<Resource>, String)> {
    let (group, version) = meta::group_version(object["apiVersion"].as_str().unwrap_or_default());
    let kind = object["kind"].as_str().unwrap_or_default();
    let resource = state.resource(&Kind::new(group, kind)).map_err(|_| {
        Failure::new(404, "NotFound", format!("no matches for kind {kind:?} in version \"{group}/{version}\""))
    })?;
    Ok((resource, version.to_owned()))
}

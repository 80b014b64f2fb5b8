//! The state of a world behind the store's lock: objects, the log of changes, and who listens.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::admission::{self, UnknownFields};
use super::builtin;
use super::failure::Failure;
use super::fields;
use super::kind::{Kind, kinds};
use super::meta::{self, meta_mut, meta_str};
use super::resource::{Resource, Version};

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It differs from before.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change in the world.
#[derive(Clone, Debug)]
pub struct Event {
    /// The kind of the object.
    pub kind: Kind,
    /// What became of it.
    pub change: Change,
    /// The object after the change, or its last state where it is gone.
    pub object: Arc<Value>,
    /// The object before the change.
    pub before: Option<Arc<Value>>,
    /// The resource version of the change.
    pub version: u64,
}

/// Namespace (empty for cluster-wide kinds) and name.
pub(crate) type Key = (String, String);

pub(crate) enum Listener {
    /// A controller in this process: never loses an event.
    Patient(mpsc::UnboundedSender<Arc<Event>>),
    /// A watch over the network: is dropped when it does not read.
    Bounded(mpsc::Sender<Arc<Event>>),
}

struct Subscriber {
    kind: Option<Kind>,
    listener: Listener,
}

/// How many changes the log holds before watches from older versions expire.
pub(crate) const HISTORY: usize = 2048;

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writing<'a> {
    /// The field manager.
    pub manager: &'a str,
    /// Judge and answer, keep nothing.
    pub dry_run: bool,
    /// What is done about unknown fields.
    pub unknown: UnknownFields,
    /// Only the status is written.
    pub status: bool,
    /// A resource version is demanded of updates of custom resources.
    pub conditional: bool,
    /// Now, for time stamps.
    pub now: jiff::Timestamp,
}

/// What a write came to.
#[derive(Debug)]
pub(crate) struct Written {
    pub object: Arc<Value>,
    pub warnings: Vec<String>,
}

pub(crate) struct State {
    resources: BTreeMap<Kind, Arc<Resource>>,
    objects: BTreeMap<Kind, BTreeMap<Key, Arc<Value>>>,
    version: u64,
    log: VecDeque<Arc<Event>>,
    forgotten: u64,
    subscribers: Vec<Subscriber>,
    pub(crate) addresses: builtin::Addresses,
    seed: RandomState,
    minted: u64,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            resources: BTreeMap::new(),
            objects: BTreeMap::new(),
            version: 0,
            log: VecDeque::new(),
            forgotten: 0,
            subscribers: Vec::new(),
            addresses: builtin::Addresses::default(),
            seed: RandomState::new(),
            minted: 0,
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    pub(crate) fn resource(&self, kind: &Kind) -> Result<Arc<Resource>, Failure> {
        self.resources.get(kind).cloned().ok_or_else(Failure::no_such_resource)
    }

    /// The resource served under a path.
    pub(crate) fn resource_at(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.resources.values().find(|r| r.kind.group == group && r.plural == plural).cloned()
    }

    pub(crate) fn serve(&mut self, resource: Arc<Resource>) {
        self.resources.insert(resource.kind.clone(), resource);
    }

    pub(crate) fn unserve(&mut self, kind: &Kind) {
        self.resources.remove(kind);
    }

    pub(crate) fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        // The lookup borrows a pair of owned strings; names are short.
        self.objects.get(kind)?.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(crate) fn list(&self, kind: &Kind, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let Some(objects) = self.objects.get(kind) else {
            return Vec::new();
        };
        match namespace {
            None => objects.values().cloned().collect(),
            Some(ns) => objects
                .range((ns.to_owned(), String::new())..)
                .take_while(|((n, _), _)| n == ns)
                .map(|(_, o)| o.clone())
                .collect(),
        }
    }

    /// Every object, in the order of kinds.
    pub(crate) fn everything(&self) -> impl Iterator<Item = (&Kind, &Arc<Value>)> {
        self.objects.iter().flat_map(|(kind, objects)| objects.values().map(move |o| (kind, o)))
    }

    /// The changes after a version, or the failure that says that they are forgotten.
    pub(crate) fn since(&self, kind: &Kind, version: u64) -> Result<Vec<Arc<Event>>, Failure> {
        if version < self.forgotten {
            return Err(Failure::expired(version, self.forgotten));
        }
        Ok(self.log.iter().filter(|e| e.version > version && e.kind == *kind).cloned().collect())
    }

    /// Forgets the log, as compaction does.
    pub(crate) fn forget(&mut self) {
        self.log.clear();
        self.forgotten = self.version;
    }

    pub(crate) fn listen(&mut self, kind: Option<Kind>, listener: Listener) {
        self.subscribers.push(Subscriber { kind, listener });
    }

    /// Makes a change and tells everyone.
    pub(crate) fn commit(&mut self, kind: &Kind, key: Key, object: Option<Value>) -> Option<Arc<Value>> {
        self.version += 1;
        let objects = self.objects.entry(kind.clone()).or_default();
        let before = objects.get(&key).cloned();
        let (change, object) = match object {
            Some(mut object) => {
                meta_mut(&mut object).insert("resourceVersion".into(), json!(self.version.to_string()));
                let object = Arc::new(object);
                objects.insert(key, object.clone());
                let change = if before.is_some() { Change::Modified } else { Change::Added };
                (change, object)
            }
            None => {
                let mut last = objects.remove(&key)?.as_ref().clone();
                meta_mut(&mut last).insert("resourceVersion".into(), json!(self.version.to_string()));
                (Change::Deleted, Arc::new(last))
            }
        };
        let event =
            Arc::new(Event { kind: kind.clone(), change, object: object.clone(), before, version: self.version });
        self.log.push_back(event.clone());
        while self.log.len() > HISTORY {
            if let Some(old) = self.log.pop_front() {
                self.forgotten = old.version;
            }
        }
        self.subscribers.retain(|s| {
            if s.kind.as_ref().is_some_and(|k| k != kind) {
                return match &s.listener {
                    Listener::Patient(tx) => !tx.is_closed(),
                    Listener::Bounded(tx) => !tx.is_closed(),
                };
            }
            match &s.listener {
                Listener::Patient(tx) => tx.send(event.clone()).is_ok(),
                Listener::Bounded(tx) => tx.try_send(event.clone()).is_ok(),
            }
        });
        Some(object)
    }

    /// Sixty-four bits that no other object of the process has.
    fn mint(&mut self) -> u64 {
        self.minted += 1;
        self.seed.hash_one(self.minted)
    }

    pub(crate) fn new_uid(&mut self) -> String {
        let (a, b) = (self.mint(), self.mint());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            (b >> 48) & 0x3fff | 0x8000,
            b & 0xffff_ffff_ffff
        )
    }

    fn suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut bits = self.mint();
        (0..5)
            .map(|_| {
                let at = (bits % LETTERS.len() as u64) as usize;
                bits /= LETTERS.len() as u64;
                LETTERS[at] as char
            })
            .collect()
    }

    /// Creates an object that was written in `version`.
    pub(crate) fn create(
        &mut self,
        resource: &Arc<Resource>,
        version: &Version,
        mut object: Value,
        writing: &Writing<'_>,
    ) -> Result<Written, Failure> {
        let group = resource.kind.group.as_ref();
        let warnings = admission::decode(resource, version, &mut object, writing.unknown)?;
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
        let taken = self.objects.get(&resource.kind).is_some_and(|o| o.contains_key(&key));
        builtin::prepare(&resource.kind, &mut object, None, &mut self.addresses);
        admission::validate(resource, version, &object, None)?;
        if taken {
            return Err(Failure::already_exists(&resource.plural, group, &name));
        }
        store_as(resource, version, &mut object);
        fields::track(resource, None, &mut object, writing);
        if writing.dry_run {
            return Ok(Written { object: Arc::new(object), warnings });
        }
        let object = self.commit(&resource.kind, key, Some(object)).ok_or_else(Failure::no_such_resource)?;
        self.after_write(resource, &object, writing.now);
        Ok(Written { object, warnings })
    }

    /// Checks the namespace of a new object and returns it.
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
                details.causes.push(super::failure::Cause {
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
        let mut object = merge_kept(version, &current, object, writing.status);
        admission::default(version, &mut object);
        builtin::prepare(&resource.kind, &mut object, Some(&current), &mut self.addresses);
        let mut shown = current.as_ref().clone();
        shown["apiVersion"] = object["apiVersion"].clone();
        if resource.generation && spec_differs(version, &shown, &object) {
            let generation = current["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            meta_mut(&mut object).insert("generation".into(), json!(generation));
        }
        admission::validate(resource, version, &object, Some(&shown))?;
        store_as(resource, version, &mut object);
        fields::track(resource, Some(&current), &mut object, writing);
        self.keep(resource, &current, object, writing, warnings)
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
                vec![super::failure::Cause {
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

/// A time as the API writes it.
pub(crate) fn stamp(now: jiff::Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
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
                    .filter(|(k, _)| {
                        !matches!(k.as_str(), "metadata" | "apiVersion" | "kind")
                            && !(version.status && k.as_str() == "status")
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

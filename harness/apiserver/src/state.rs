//! The state of a world behind the store's lock: objects, the log of changes, and who listens.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::failure::{Failure, Result};
use super::meta::{self, Key, meta_mut};
use super::resource::{Resource, Version};
use super::{admission::UnknownFields, builtin, hooks::Hooks, kind::Kind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub kind: Kind,
    pub change: Change,
    /// The object after the change, or its last state where it is gone.
    pub object: Arc<Value>,
    pub before: Option<Arc<Value>>,
    pub version: u64,
}

pub(crate) enum Listener {
    /// A controller in this process: never loses an event.
    Patient(mpsc::UnboundedSender<Arc<WatchEvent>>),
    /// A watch over the network: is dropped when it does not read.
    Bounded(mpsc::Sender<Arc<WatchEvent>>),
}

/// How many changes the log holds before watches from older versions expire.
pub(crate) const HISTORY: usize = 2048;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Writing<'a> {
    pub resource: &'a Arc<Resource>,
    pub version: &'a Version,
    pub manager: &'a str,
    /// Judge and answer, keep nothing.
    pub dry_run: bool,
    pub unknown: UnknownFields,
    pub status: bool,
    /// A resource version is demanded of updates of custom resources.
    pub conditional: bool,
    pub now: jiff::Timestamp,
}

#[derive(Debug)]
pub(crate) struct Written {
    pub object: Arc<Value>,
    pub warnings: Vec<String>,
}

pub(crate) struct State {
    resources: BTreeMap<Kind, Arc<Resource>>,
    objects: BTreeMap<Kind, BTreeMap<Key, Arc<Value>>>,
    version: u64,
    changed: BTreeMap<Kind, u64>,
    log: VecDeque<Arc<WatchEvent>>,
    forgotten: u64,
    /// Each with the kind that it hears of, or of all.
    subscribers: Vec<(Option<Kind>, Listener)>,
    pub(crate) addresses: builtin::Addresses,
    seed: RandomState,
    minted: u64,
    pub(crate) hooks: Arc<dyn Hooks>,
}

impl State {
    pub(crate) fn new(hooks: Arc<dyn Hooks>) -> Self {
        Self {
            resources: BTreeMap::new(),
            objects: BTreeMap::new(),
            version: 0,
            changed: BTreeMap::new(),
            log: VecDeque::new(),
            forgotten: 0,
            subscribers: Vec::new(),
            addresses: builtin::Addresses::default(),
            seed: RandomState::new(),
            minted: 0,
            hooks,
        }
    }

    /// The same objects for another world, which has a history of its own from here on.
    pub(crate) fn copy(&self, hooks: Arc<dyn Hooks>) -> Self {
        Self {
            resources: self.resources.clone(),
            objects: self.objects.clone(),
            version: self.version,
            changed: self.changed.clone(),
            forgotten: self.version,
            addresses: self.addresses.clone(),
            ..Self::new(hooks)
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The last change of each of these kinds, 0 where there was none.
    pub(crate) fn changed(&self, kinds: &[Kind]) -> Vec<u64> {
        kinds.iter().map(|kind| self.changed.get(kind).copied().unwrap_or(0)).collect()
    }

    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    pub(crate) fn resource(&self, kind: &Kind) -> Result<Arc<Resource>> {
        self.resources.get(kind).cloned().ok_or_else(Failure::no_such_resource)
    }

    pub(crate) fn resource_at(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.resources.values().find(|r| r.kind.group == group && r.plural == plural).cloned()
    }

    pub(crate) fn serve(&mut self, resource: Arc<Resource>) {
        self.resources.insert(resource.kind.clone(), resource);
    }

    pub(crate) fn unserve(&mut self, kind: &Kind) {
        self.resources.remove(kind);
    }

    /// An object that has to be there.
    pub(crate) fn find(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Arc<Value>> {
        self.get(&resource.kind, namespace, name).ok_or_else(|| Failure::not_found(resource, name))
    }

    pub(crate) fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        // The lookup borrows a pair of owned strings; names are short.
        self.objects.get(kind)?.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(crate) fn list(&self, kind: &Kind, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let Some(objects) = self.objects.get(kind) else { return Vec::new() };
        match namespace {
            None => objects.values().cloned().collect(),
            Some(ns) => objects
                .range((ns.to_owned(), String::new())..)
                .take_while(|((n, _), _)| n == ns)
                .map(|(_, o)| o.clone())
                .collect(),
        }
    }

    pub(crate) fn everything(&self) -> impl Iterator<Item = (&Kind, &Arc<Value>)> {
        self.objects.iter().flat_map(|(kind, objects)| objects.values().map(move |o| (kind, o)))
    }

    /// The changes after a version, or the failure that says that they are forgotten.
    pub(crate) fn since(&self, kind: &Kind, version: u64) -> Result<Vec<Arc<WatchEvent>>> {
        if version < self.forgotten {
            return Err(Failure::expired(version, self.forgotten));
        }
        Ok(self.log.iter().filter(|e| e.version > version && e.kind == *kind).cloned().collect())
    }

    /// The objects of a kind as they were at a version, or the failure that says that this is forgotten.
    pub(crate) fn list_at(&self, kind: &Kind, namespace: Option<&str>, version: u64) -> Result<Vec<Arc<Value>>> {
        if version < self.forgotten {
            return Err(Failure::expired_list());
        }
        let mut objects: BTreeMap<Key, Arc<Value>> =
            self.list(kind, namespace).into_iter().map(|object| (meta::key(&object), object)).collect();
        let since = self.log.iter().rev().take_while(|event| event.version > version);
        for event in since.filter(|e| e.kind == *kind && namespace.is_none_or(|n| n == meta::namespace(&e.object))) {
            match &event.before {
                Some(before) => objects.insert(meta::key(before), before.clone()),
                None => objects.remove(&meta::key(&event.object)),
            };
        }
        Ok(objects.into_values().collect())
    }

    pub(crate) fn forget(&mut self) {
        self.log.clear();
        self.forgotten = self.version;
    }

    pub(crate) fn listen(&mut self, kind: Option<Kind>, listener: Listener) {
        self.subscribers.push((kind, listener));
    }

    pub(crate) fn commit(&mut self, kind: &Kind, key: Key, object: Option<Value>) -> Option<Arc<Value>> {
        let objects = self.objects.entry(kind.clone()).or_default();
        let before = objects.get(&key).cloned();
        if object.is_none() && before.is_none() {
            return None; // a version without a change would be waited for in vain
        }
        self.version += 1;
        self.changed.insert(kind.clone(), self.version);
        let change = match (&object, &before) {
            (None, _) => Change::Deleted,
            (Some(_), None) => Change::Added,
            (Some(_), Some(_)) => Change::Modified,
        };
        let mut object = object.or_else(|| before.as_deref().cloned())?;
        meta_mut(&mut object).insert("resourceVersion".into(), json!(self.version.to_string()));
        let object = Arc::new(object);
        match change {
            Change::Deleted => objects.remove(&key),
            Change::Added | Change::Modified => objects.insert(key, object.clone()),
        };
        let event =
            Arc::new(WatchEvent { kind: kind.clone(), change, object: object.clone(), before, version: self.version });
        self.log.push_back(event.clone());
        while self.log.len() > HISTORY {
            if let Some(old) = self.log.pop_front() {
                self.forgotten = old.version;
            }
        }
        self.subscribers.retain(|(wanted, listener)| {
            let concerned = wanted.as_ref().is_none_or(|wanted| wanted == kind);
            match listener {
                Listener::Patient(tx) if concerned => tx.send(event.clone()).is_ok(),
                Listener::Bounded(tx) if concerned => tx.try_send(event.clone()).is_ok(),
                Listener::Patient(tx) => !tx.is_closed(),
                Listener::Bounded(tx) => !tx.is_closed(),
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

    pub(crate) fn suffix(&mut self) -> String {
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
}

/// A time as the API writes it.
pub(crate) fn stamp(now: jiff::Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

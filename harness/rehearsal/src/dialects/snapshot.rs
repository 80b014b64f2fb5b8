//! What the controllers of a world see: its objects at one moment.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use apiserver::Kind;
use serde_json::Value;

use super::object::{self, Name};

/// All objects of a world at one moment. It knows which kinds were asked for, so that who asked need not ask again
/// before one of them has changed.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    objects: BTreeMap<Kind, OfKind>,
    asked: RefCell<BTreeSet<Kind>>,
}

/// The objects of a kind, and which change was the last of them.
#[derive(Clone, Debug, Default)]
struct OfKind {
    version: u64,
    objects: BTreeMap<Name, Arc<Value>>,
}

impl OfKind {
    fn extend(&mut self, objects: impl IntoIterator<Item = Arc<Value>>) {
        self.objects.extend(objects.into_iter().map(|o| (object::key(&o), o)));
    }
}

impl Snapshot {
    pub fn extend(&mut self, kind: &Kind, objects: impl IntoIterator<Item = Arc<Value>>) {
        self.objects.entry(kind.clone()).or_default().extend(objects);
    }

    /// Takes in all objects of a kind, in place of those that were known, where this change of them was not known yet.
    pub fn renew<O: IntoIterator<Item = Arc<Value>>>(
        &mut self,
        kind: &Kind,
        version: u64,
        objects: impl FnOnce() -> O,
    ) {
        if self.version(kind) != version {
            let mut fresh = OfKind { version, ..OfKind::default() };
            fresh.extend(objects());
            self.objects.insert(kind.clone(), fresh);
        }
    }

    pub fn version(&self, kind: &Kind) -> u64 {
        self.objects.get(kind).map_or(0, |k| k.version)
    }

    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.ask(kind);
        self.objects.get(kind)?.objects.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub fn all<'a>(&'a self, kind: &Kind) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.ask(kind);
        self.objects.get(kind).into_iter().flat_map(|k| k.objects.values())
    }

    pub fn ask(&self, kind: &Kind) {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(kind) {
            asked.insert(kind.clone());
        }
    }

    /// The kinds that were asked for since this was last called.
    pub fn take_asked(&self) -> BTreeSet<Kind> {
        self.asked.take()
    }
}

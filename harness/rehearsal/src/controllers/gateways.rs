//! Carries out what the dialect says: tables to proxies, children, finalizers and statuses to the API server.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Pods, Services, Surroundings, settle, write_status};
use crate::{
    api::Kind,
    dialects::{
        Name, Snapshot,
        object::{self, is_going, list, name, namespace},
    },
};

/// What was made for Gateways and has no owner that would take it along.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    unowned: BTreeSet<(Kind, Name)>,
}

impl Gateways {
    /// One translation, carried out. Proxies are told first, so that what statuses say is true already.
    pub(super) fn reconcile(
        &mut self,
        around: &Surroundings,
        snapshot: &Snapshot,
        pods: &Pods,
        services: &mut Services,
    ) {
        let translation = around.dialect.translate(snapshot, around.clock.now_ms());
        pods.load(&translation.tables);
        hold(around, snapshot, &translation.finalizers);
        let mut unowned = BTreeSet::new();
        for child in &translation.children {
            let (kind, key) = (object::kind(child), object::key(child));
            let existing = snapshot.get(&kind, &key.0, &key.1);
            if existing.is_none_or(|existing| !covers(existing, child)) {
                let mut child = child.clone();
                if existing.is_none() {
                    services.reserve(around, &mut child);
                }
                settle("a child", around.store.apply(child));
            }
            if list(child, "/metadata/ownerReferences").next().is_none() {
                unowned.insert((kind, key));
            }
        }
        for (kind, (home, name)) in self.unowned.difference(&unowned) {
            settle("a child's end", around.store.delete(kind, home, name));
        }
        self.unowned = unowned;
        for status in translation.statuses {
            let (home, name) = &status.name;
            if let Some(object) = snapshot.get(&status.kind, home, name) {
                write_status(around, &status.kind, object, status.status);
            }
        }
    }
}

/// Whether an object has all that a child wants; the server may have filled in more.
fn covers(existing: &Value, wanted: &Value) -> bool {
    match (existing, wanted) {
        (Value::Object(existing), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| existing.get(name).is_some_and(|e| covers(e, wanted)))
        }
        (Value::Array(existing), Value::Array(wanted)) => {
            existing.len() == wanted.len() && existing.iter().zip(wanted).all(|(e, w)| covers(e, w))
        }
        (existing, wanted) => existing == wanted,
    }
}

/// Puts finalizers on what should carry them, and takes them off what is leaving and should not any more.
pub(super) fn hold(around: &Surroundings, snapshot: &Snapshot, wanted: &[(Kind, Name, &'static str)]) {
    for (kind, key, finalizer) in wanted {
        if let Some(object) = snapshot.get(kind, &key.0, &key.1).filter(|o| !is_going(o))
            && !carries(object, finalizer)
        {
            let written = around.store.change(kind, &key.0, &key.1, |object| {
                let mut all: Vec<Value> = list(object, "/metadata/finalizers").cloned().collect();
                all.push(json!(finalizer));
                object["metadata"]["finalizers"] = json!(all);
            });
            settle("a finalizer", written);
        }
    }
    for (kind, finalizer) in around.dialect.finalizers() {
        release(around, snapshot, &kind, finalizer, |key| wanted.iter().any(|(k, n, _)| *k == kind && n == key));
    }
}

/// Takes a finalizer off the leaving objects of a kind that need it no more.
pub(super) fn release(
    around: &Surroundings,
    snapshot: &Snapshot,
    kind: &Kind,
    finalizer: &str,
    still_needed: impl Fn(&Name) -> bool,
) {
    for object in snapshot.all(kind).filter(|o| is_going(o) && carries(o, finalizer)) {
        if !still_needed(&object::key(object)) {
            let written = around.store.change(kind, namespace(object), name(object), |object| {
                let rest: Vec<Value> =
                    list(object, "/metadata/finalizers").filter(|f| **f != json!(finalizer)).cloned().collect();
                object["metadata"]["finalizers"] = json!(rest);
            });
            settle("a finalizer's end", written);
        }
    }
}

fn carries(object: &Value, finalizer: &str) -> bool {
    list(object, "/metadata/finalizers").any(|f| f == finalizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_covered_by_what_the_server_made_of_it() {
        let wanted = json!({"spec": {"ports": [{"port": 80}]}});
        assert!(covers(&json!({"spec": {"ports": [{"port": 80, "nodePort": 3}], "x": 1}, "status": {}}), &wanted));
        assert!(!covers(&json!({"spec": {"ports": [{"port": 81}]}}), &wanted));
        assert!(!covers(&json!({"spec": {"ports": [{"port": 80}, {"port": 81}]}}), &wanted));
    }
}

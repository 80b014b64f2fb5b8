//! Carries out what the dialect says: tables to proxies, children, finalizers and statuses to the API server.

use std::collections::BTreeSet;

use apiserver::Kind;
use serde_json::{Value, json};

use super::{Context, Pods, Services, apply, settle, write_status};
use crate::dialects::{
    Name, Snapshot,
    object::{self, is_going, list, name, namespace},
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
        context: &Context,
        snapshot: &Snapshot,
        pods: &mut Pods,
        services: &mut Services,
    ) {
        let mut translation = context.gateway.translate(snapshot);
        context.mutants.distort(snapshot, &mut translation);
        context.gateway.mutate(&context.mutants, snapshot, &mut translation);
        pods.load(std::mem::take(&mut translation.tables));
        finalizers(context, snapshot, &translation.finalizers);
        let mut unowned = BTreeSet::new();
        for child in &translation.children {
            let (kind, key) = (object::kind(child), object::key(child));
            let mut wanted = child.clone();
            services.reserve(context, &mut wanted);
            apply(context, snapshot, wanted);
            if list(child, "/metadata/ownerReferences").next().is_none() {
                unowned.insert((kind, key));
            }
        }
        for (kind, (home, name)) in self.unowned.difference(&unowned) {
            settle("a child's end", context.store.delete(kind, home, name));
        }
        self.unowned = unowned;
        for status in translation.statuses {
            let (home, name) = &status.name;
            if let Some(object) = snapshot.get(&status.kind, home, name) {
                write_status(context, &status.kind, object, status.status);
            }
        }
    }
}

fn finalizers(context: &Context, snapshot: &Snapshot, wanted: &[(Kind, Name, &'static str)]) {
    for (kind, key, finalizer) in wanted {
        if let Some(object) = snapshot.get(kind, &key.0, &key.1).filter(|o| !is_going(o)) {
            hold(context, kind, object, finalizer);
        }
    }
    for (kind, finalizer) in context.gateway.finalizers() {
        release(context, snapshot, &kind, finalizer, |key| wanted.iter().any(|(k, n, _)| *k == kind && n == key));
    }
}

/// Puts a finalizer on an object that does not carry it.
pub(super) fn hold(context: &Context, kind: &Kind, object: &Value, finalizer: &str) {
    if !carries(object, finalizer) {
        let written = context.store.change(kind, namespace(object), name(object), |object| {
            let all = list(object, "/metadata/finalizers").cloned().chain([json!(finalizer)]);
            object["metadata"]["finalizers"] = all.collect();
        });
        settle("a finalizer", written);
    }
}

/// Takes a finalizer off the leaving objects of a kind that need it no more.
pub(super) fn release(
    context: &Context,
    snapshot: &Snapshot,
    kind: &Kind,
    finalizer: &str,
    still_needed: impl Fn(&Name) -> bool,
) {
    for object in snapshot.all(kind).filter(|o| is_going(o) && carries(o, finalizer)) {
        if !still_needed(&object::key(object)) {
            let written = context.store.change(kind, namespace(object), name(object), |object| {
                let rest = list(object, "/metadata/finalizers").filter(|f| *f != finalizer).cloned();
                object["metadata"]["finalizers"] = rest.collect();
            });
            settle("a finalizer's end", written);
        }
    }
}

fn carries(object: &Value, finalizer: &str) -> bool {
    list(object, "/metadata/finalizers").any(|f| f == finalizer)
}

//! The controllers: what turns objects into other objects, pods and addresses. Driven by changes alone, in passes.
//!
//! A pass reads a snapshot, runs every controller once and writes what differs. Its own writes are changes too, so passes
//! follow one another until nothing differs any more. Nothing polls and nothing sleeps.

mod gateways;
mod kserve;
pub(crate) mod llmisvc;
mod pods;
mod services;
mod workloads;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use apiserver::{Failure, Kind, Store};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use pods::{NODE, Pods};
pub use services::{NodePorts, Services};
use workloads::Workloads;

use crate::{
    clock::Clock,
    dataplane::{network::Network, proxy::SharedWindows},
    dialects::{GatewayController, Name, Snapshot, object},
    kinds, lock,
    mutants::{Mutants, mutant},
};

#[derive(Clone, Debug)]
pub struct Context {
    pub store: Store,
    pub network: Network,
    pub clock: Clock,
    pub windows: SharedWindows,
    pub gateway: Arc<dyn GatewayController>,
    pub node_ports: NodePorts,
    pub mutants: Mutants,
    pub stop: CancellationToken,
    pub applied: Applied,
    pub models: Models,
    pub pickers: Journals,
    /// Up to which change the controllers have done all that they had to.
    pub done: Arc<watch::Sender<u64>>,
}

pub type Applied = Arc<Mutex<HashMap<(Kind, Name), Value>>>;

/// Models by the namespace and name of their pods.
pub type Models = Arc<Mutex<HashMap<Name, model::Model>>>;

/// Records of pickers by the namespace and name of their pods.
pub type Journals = Arc<Mutex<HashMap<Name, picker::Journal>>>;

/// The kinds that controllers read in every world; a dialect adds its own.
const READS: [Kind; 16] = [
    kinds::NAMESPACE,
    kinds::NODE,
    kinds::POD,
    kinds::SERVICE,
    kinds::ENDPOINT_SLICE,
    kinds::DEPLOYMENT,
    kinds::REPLICA_SET,
    kinds::CONFIG_MAP,
    kinds::GATEWAY_CLASS,
    kinds::GATEWAY,
    kinds::HTTP_ROUTE,
    kinds::REFERENCE_GRANT,
    kinds::INFERENCE_POOL,
    kinds::INFERENCE_SERVICE,
    kinds::LLM_INFERENCE_SERVICE,
    kinds::LLM_INFERENCE_SERVICE_CONFIG,
];

pub async fn run(context: Context) {
    let mut events = context.store.observe(None);
    let kinds: Vec<Kind> = READS.into_iter().chain(context.gateway.reads()).collect();
    let mut controllers = Controllers::default();
    loop {
        let Some(Some(first)) = context.stop.run_until_cancelled(events.next()).await else { break };
        let seen = context.store.version(); // its events are here already, and those before it
        let mut relevant = kinds.contains(&first.kind);
        while let Some(event) = events.try_next() {
            relevant |= kinds.contains(&event.kind);
        }
        if relevant {
            controllers.pass(&context, &kinds);
        }
        context.done.send_replace(seen);
    }
}

/// The controllers of a world, in the order of their turns: what one writes, the next one sees.
#[derive(Default)]
struct Controllers {
    snapshot: Snapshot,
    workloads: Workloads,
    pods: Pods,
    services: Services,
    gateways: gateways::Gateways,
    turns: [Turn; 6],
}

/// What a controller has seen: it need not look again before one of the kinds that it asked for has changed.
#[derive(Debug, Default)]
struct Turn(Option<Vec<(Kind, u64)>>);

impl Turn {
    fn take(&mut self, snapshot: &Snapshot, reconcile: impl FnOnce(&Snapshot)) {
        let changed = |seen: &[(Kind, u64)]| seen.iter().any(|(kind, version)| snapshot.version(kind) != *version);
        if self.0.as_deref().is_none_or(changed) {
            reconcile(snapshot);
            let asked = snapshot.take_asked().into_iter();
            self.0 = Some(asked.map(|kind| (kind.clone(), snapshot.version(&kind))).collect());
        }
    }
}

impl Controllers {
    /// One pass. The data plane is told before statuses say so.
    fn pass(&mut self, context: &Context, kinds: &[Kind]) {
        if context.mutants.just_woke() {
            (self.workloads, self.turns) = Default::default(); // what they have seen is looked at again
        }
        let Self { snapshot, workloads, pods, services, gateways, turns } = self;
        let [sized, running, reached, kserve, llmisvc, translated] = turns;
        let store = &context.store;
        sized.take(renewed(snapshot, store, kinds), |snapshot| workloads.reconcile(context, snapshot));
        running.take(renewed(snapshot, store, kinds), |snapshot| pods.reconcile(context, snapshot));
        reached.take(renewed(snapshot, store, kinds), |snapshot| services.reconcile(context, snapshot));
        kserve.take(renewed(snapshot, store, kinds), |snapshot| kserve::reconcile(context, snapshot));
        llmisvc.take(renewed(snapshot, store, kinds), |snapshot| llmisvc::reconcile(context, snapshot));
        translated
            .take(renewed(snapshot, store, kinds), |snapshot| gateways.reconcile(context, snapshot, pods, services));
    }
}

fn renewed<'s>(snapshot: &'s mut Snapshot, store: &Store, kinds: &[Kind]) -> &'s Snapshot {
    for (kind, version) in kinds.iter().zip(store.changed(kinds)) {
        snapshot.renew(kind, version, || store.list(kind, None));
    }
    snapshot
}

impl Context {
    /// An object as it is now, whatever was written since the snapshot.
    fn fresh(&self, snapshot: &Snapshot, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        snapshot.ask(kind);
        self.store.get(kind, namespace, name)
    }
}

/// A write that another change may have overtaken: the next pass sees to it.
fn settle<T>(what: &str, written: Result<T, Failure>) -> Option<T> {
    match written {
        Ok(written) => Some(written),
        Err(error) => {
            tracing::warn!(%what, ?error, "a controller's write was refused");
            None
        }
    }
}

/// Applies an object unless it was applied like this before and what is there has all of it still.
fn apply(context: &Context, snapshot: &Snapshot, mut object: Value) {
    let owner = object::text(&object, "/metadata/ownerReferences/0/kind");
    if owner == "LLMInferenceService" && object["kind"] == "Service" && context.mutants.is(mutant::FORGETS_OWNERS) {
        object["metadata"]["ownerReferences"] = json!([]);
    }
    let (kind, key) = (object::kind(&object), object::key(&object));
    let there = snapshot.get(&kind, &key.0, &key.1).is_some_and(|existing| object::covers(existing, &object));
    let mut applied = lock(&context.applied);
    if there && applied.get(&(kind.clone(), key.clone())) == Some(&object) {
        return;
    }
    if settle("a child", context.store.apply(object.clone())).is_some() {
        applied.insert((kind, key), object);
    }
}

/// Writes a status where it differs, with the times of its conditions.
fn write_status(context: &Context, kind: &Kind, object: &Value, mut status: Value) {
    object::stamp_conditions(&mut status, object.get("status"), context.clock.now_ms());
    if object.get("status") != Some(&status) {
        let written = context
            .store
            .update_status(kind, object::namespace(object), object::name(object), |current| *current = status);
        settle("a status", written);
    }
}

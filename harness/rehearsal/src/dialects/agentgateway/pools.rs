//! InferencePools as agentgateway reads them, and how they stand (recordings `22-status-backend-pool.txt`, 30 to 34).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{CONTROLLER, NAMESPACE, kinds};
use crate::{
    dataplane::{
        pool::{Asks, Follows, Pool, Served, WithoutPicker},
        routing::Target,
    },
    dialects::{
        Name, Snapshot, StatusOf, Translation, Version,
        attachments::Attachments,
        gateway_api,
        object::{self, list, observed, text, text_or},
        pools,
    },
};

/// Up to here a request with a body does not fail open (agentgateway/agentgateway#3473), and a backend that refers to a
/// pool never asks its picker (#2976).
const MENDED: Version = Version(1, 5, 0);

/// What switches pools on in the controller.
const SWITCH: &str = "AGW_ENABLE_INFER_EXT";

pub(super) struct Pools<'a> {
    snapshot: &'a Snapshot,
    version: Version,
    enabled: bool,
}

impl<'a> Pools<'a> {
    /// Without its chart's `inferenceExtension.enabled` the controller knows of no pool at all.
    pub(super) fn read(version: Version, snapshot: &'a Snapshot) -> Self {
        let controller = snapshot.get(&kinds::DEPLOYMENT, NAMESPACE, "agentgateway");
        let enabled = controller.is_none_or(|deployment| {
            list(deployment, "/spec/template/spec/containers")
                .flat_map(|c| list(c, "/env"))
                .any(|e| text(e, "/name") == SWITCH && text(e, "/value") == "true")
        });
        Self { snapshot, version, enabled }
    }

    fn get(&self, namespace: &str, name: &str) -> Option<&'a Arc<Value>> {
        self.snapshot.get(&kinds::INFERENCE_POOL, namespace, name).filter(|_| self.enabled)
    }

    pub(super) fn of_route(&self, namespace: &str, name: &str) -> Option<Target> {
        let pool = self.get(namespace, name)?;
        let without_picker = match picker_error(self.snapshot, pool) {
            None if pools::fails_open(pool) && self.version >= MENDED => WithoutPicker::GoOn,
            None if pools::fails_open(pool) => WithoutPicker::GoOnWithoutBody,
            _ => WithoutPicker::Refuse,
        };
        Some(Target::Pool(Arc::new(Pool {
            picker: Some(pools::picker(pool)),
            endpoints: pools::endpoints(self.snapshot, pool),
            follows: Follows::Endpoints,
            without_picker,
            served: Served::Reported,
            asks: Asks::Once,
        })))
    }

    /// Where an AgentgatewayBackend's reference to a pool leads: past the picker, in silence.
    pub(super) fn of_backend(&self, namespace: &str, name: &str) -> Option<Target> {
        match self.of_route(namespace, name)? {
            Target::Pool(pool) if self.version < MENDED => {
                Some(Target::Pool(Arc::new(Pool { picker: None, ..Arc::unwrap_or_clone(pool) })))
            }
            target => Some(target),
        }
    }

    /// One entry for each Gateway whose routes refer to a pool.
    pub(super) fn statuses(&self, attachments: &Attachments, translation: &mut Translation) {
        let mut users: BTreeMap<Name, BTreeSet<&Name>> = BTreeMap::new();
        for (route, gateways) in &attachments.parents {
            let route = self.snapshot.get(&kinds::HTTP_ROUTE, &route.0, &route.1).into_iter();
            for pool in route.flat_map(|r| pools::of_rules(r)).flatten() {
                users.entry(pool).or_default().extend(gateways);
            }
        }
        for pool in self.snapshot.all(&kinds::INFERENCE_POOL).filter(|p| self.enabled && !object::is_going(p)) {
            let gateways = users.remove(&object::key(pool)).unwrap_or_default();
            let error = picker_error(self.snapshot, pool);
            let mut parents: Vec<_> = gateways
                .iter()
                .map(|(namespace, name)| json!({"kind": "Gateway", "name": name, "namespace": namespace}))
                .collect();
            if parents.is_empty() && error.is_some() {
                parents.push(json!({"kind": "Status", "name": "default"}));
            }
            let parents: Vec<_> = parents
                .into_iter()
                .map(|mut parent| {
                    parent["group"] = json!(gateway_api::GROUP);
                    json!({"conditions": conditions(pool, error.as_deref()), "controllerName": CONTROLLER,
                        "parentRef": parent})
                })
                .collect();
            if !parents.is_empty() || pool.pointer("/status/parents").is_some() {
                translation.statuses.push(StatusOf::new(kinds::INFERENCE_POOL, pool, pools::status(&parents)));
            }
        }
    }
}

fn conditions(pool: &Value, error: Option<&str>) -> [Value; 2] {
    let message = format!("InferencePool has been accepted by controller {CONTROLLER}");
    let accepted = observed(pool, "Accepted", true, "Accepted", &message);
    let resolved = match error {
        None => {
            let message = "All InferencePool references have been resolved";
            observed(pool, "ResolvedRefs", true, "ResolvedRefs", message)
        }
        Some(error) => observed(pool, "ResolvedRefs", false, "InvalidExtensionRef", &format!("error: {error}")),
    };
    [accepted, resolved]
}

fn picker_error(snapshot: &Snapshot, pool: &Value) -> Option<String> {
    let picker = pool.pointer("/spec/endpointPickerRef")?;
    let (home, name) = (object::namespace(pool), text(picker, "/name"));
    let (group, kind) = (text(picker, "/group"), text_or(picker, "/kind", "Service"));
    let mut wrong = Vec::new();
    if !group.is_empty() {
        wrong.push(format!("endpointPickerRef.group must be empty, got {group:?}"));
    }
    if kind != "Service" {
        wrong.push(format!("endpointPickerRef.kind must be \"Service\", got {kind:?}"));
    }
    if !wrong.is_empty() {
        return Some(wrong.join("; "));
    }
    let Some(service) = snapshot.get(&kinds::SERVICE, home, name) else {
        return Some(format!("endpointPickerRef Service {home}/{name} not found"));
    };
    let port = object::port(picker, "/port/number")?;
    let exposed = list(service, "/spec/ports")
        .any(|p| object::port(p, "/port") == Some(port) && text_or(p, "/protocol", "TCP") == "TCP");
    (!exposed).then(|| format!("endpointPickerRef.port {port} must reference a TCP Service port on {home}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn world(switch: Option<&str>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let port = json!([{"port": 9002}]);
        let object = |name: &str, spec: Value| {
            Arc::new(json!({"metadata": {"name": name, "namespace": "ns", "generation": 1}, "spec": spec}))
        };
        snapshot.extend(&kinds::SERVICE, [object("epp", json!({"ports": port}))]);
        let pool = |mode: &str, picker: Value| {
            let mut picker = picker;
            picker["failureMode"] = json!(mode);
            json!({"targetPorts": [{"number": 8000}], "endpointPickerRef": picker})
        };
        let good = json!({"name": "epp", "port": {"number": 9002}});
        snapshot.extend(
            &kinds::INFERENCE_POOL,
            [
                object("open", pool("FailOpen", good.clone())),
                object("closed", pool("FailClose", good)),
                object("no-service", pool("FailOpen", json!({"name": "nope", "port": {"number": 9002}}))),
            ],
        );
        let environment: Vec<_> = switch.iter().map(|v| json!({"name": SWITCH, "value": v})).collect();
        let controller = json!({"metadata": {"name": "agentgateway", "namespace": NAMESPACE},
            "spec": {"template": {"spec": {"containers": [{"env": environment}]}}}});
        snapshot.extend(&kinds::DEPLOYMENT, [Arc::new(controller)]);
        snapshot
    }

    fn pool(target: Option<Target>) -> Pool {
        match target {
            Some(Target::Pool(pool)) => Arc::unwrap_or_clone(pool),
            other => panic!("{other:?} is no pool"),
        }
    }

    /// A broken reference fails closed whatever the mode says.
    #[rstest]
    #[case(Version(1, 3, 1), "open", WithoutPicker::GoOnWithoutBody)]
    #[case(Version(1, 5, 0), "open", WithoutPicker::GoOn)]
    #[case(Version(1, 3, 1), "closed", WithoutPicker::Refuse)]
    #[case(Version(1, 5, 0), "no-service", WithoutPicker::Refuse)]
    fn failure_modes(#[case] version: Version, #[case] name: &str, #[case] expected: WithoutPicker) {
        let snapshot = world(Some("true"));
        let pools = Pools::read(version, &snapshot);
        assert_eq!(pool(pools.of_route("ns", name)).without_picker, expected);
    }

    #[rstest]
    #[case(Version(1, 3, 1), false)]
    #[case(Version(1, 4, 1), false)]
    #[case(Version(1, 5, 0), true)]
    fn a_backend_leads_past_the_picker(#[case] version: Version, #[case] asked: bool) {
        let snapshot = world(Some("true"));
        let pools = Pools::read(version, &snapshot);
        assert_eq!(pool(pools.of_backend("ns", "closed")).picker.is_some(), asked);
        assert!(pool(pools.of_route("ns", "closed")).picker.is_some());
    }

    #[rstest]
    #[case(Some("true"), true)]
    #[case(Some("false"), false)]
    #[case(None, false)]
    fn pools_are_known_where_the_extension_is_enabled(#[case] switch: Option<&str>, #[case] known: bool) {
        let snapshot = world(switch);
        let pools = Pools::read(Version(1, 3, 1), &snapshot);
        assert_eq!(pools.of_route("ns", "open").is_some(), known);
        let mut translation = Translation::default();
        pools.statuses(&Attachments::default(), &mut translation);
        let said = translation.statuses.iter().map(|s| (s.name.1.as_str(), &s.status["parents"][0]["parentRef"]));
        // Of a pool that no route leads to, nothing is said but what is wrong with it.
        let nobody = json!({"group": gateway_api::GROUP, "kind": "Status", "name": "default"});
        assert_eq!(said.collect::<Vec<_>>(), known.then_some(("no-service", &nobody)).into_iter().collect::<Vec<_>>());
    }
}

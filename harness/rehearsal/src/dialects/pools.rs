//! The pool room of the dialects: what both read alike of an InferencePool.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{
    Name, Snapshot,
    object::{self, list, text, text_or},
};
use crate::{dataplane::pool::Picker, kinds};

pub const GROUP: &str = "inference.networking.k8s.io";

const PICKER_PORT: u16 = 9002;

/// The pool that a backendRef names; `None` where it names something else.
pub fn named(referrer: &Value, backend_ref: &Value) -> Option<Name> {
    let is_pool = text(backend_ref, "/kind") == "InferencePool" && text(backend_ref, "/group") == GROUP;
    is_pool.then(|| {
        let home = text_or(backend_ref, "/namespace", object::namespace(referrer));
        (home.to_owned(), text(backend_ref, "/name").to_owned())
    })
}

/// The pools that the backendRefs of a route name, rule by rule.
pub fn of_rules(route: &Value) -> impl Iterator<Item = Vec<Name>> {
    list(route, "/spec/rules").map(|rule| list(rule, "/backendRefs").filter_map(|b| named(route, b)).collect())
}

/// The ready pods of a pool, each with each target port.
pub fn endpoints(snapshot: &Snapshot, pool: &Value) -> Vec<SocketAddr> {
    let selector = pool.pointer("/spec/selector/matchLabels");
    let ports: Vec<u16> = list(pool, "/spec/targetPorts").filter_map(|p| object::port(p, "/number")).collect();
    snapshot
        .all(&kinds::POD)
        .filter(|pod| object::namespace(pod) == object::namespace(pool) && !object::is_going(pod))
        .filter(|pod| object::selected(pod.pointer("/metadata/labels"), selector))
        .filter(|pod| object::condition_status(pod, "Ready") == Some("True"))
        .filter_map(|pod| text(pod, "/status/podIP").parse().ok())
        .flat_map(|ip| ports.iter().map(move |port| SocketAddr::new(ip, *port)))
        .collect()
}

pub fn picker(pool: &Value) -> Picker {
    let reference = &pool["spec"]["endpointPickerRef"];
    Picker {
        namespace: object::namespace(pool).to_owned(),
        service: text(reference, "/name").to_owned(),
        port: object::port(reference, "/port/number").unwrap_or(PICKER_PORT),
    }
}

pub fn fails_open(pool: &Value) -> bool {
    text(pool, "/spec/endpointPickerRef/failureMode") == "FailOpen"
}

/// The status of a pool; nothing where no parent has a word on it.
pub fn status(parents: &[Value]) -> Value {
    if parents.is_empty() { json!({}) } else { json!({"parents": parents}) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn endpoints_are_the_ready_pods_that_the_selector_holds() {
        let mut snapshot = Snapshot::default();
        let pod = |home: &str, name: &str, app: &str, ready: &str, ip: &str| {
            Arc::new(json!({"metadata": {"name": name, "namespace": home, "labels": {"app": app, "x": "y"}},
                "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}}))
        };
        let mut going = (*pod("ns", "f", "a", "True", "10.0.0.6")).clone();
        going["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
        snapshot.extend(
            &kinds::POD,
            [
                pod("ns", "a", "a", "True", "10.0.0.1"),
                pod("ns", "b", "a", "False", "10.0.0.2"),
                pod("ns", "c", "b", "True", "10.0.0.3"),
                pod("other", "d", "a", "True", "10.0.0.4"),
                pod("ns", "e", "a", "True", "10.0.0.5"),
                Arc::new(going),
            ],
        );
        let pool = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {
            "selector": {"matchLabels": {"app": "a"}}, "targetPorts": [{"number": 8000}, {"number": 8001}]}});
        let found: Vec<_> = endpoints(&snapshot, &pool).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["10.0.0.1:8000", "10.0.0.1:8001", "10.0.0.5:8000", "10.0.0.5:8001"]);
    }

    #[test]
    fn a_backend_ref_names_a_pool_of_the_one_group() {
        let route = json!({"metadata": {"name": "r", "namespace": "ns"}});
        let pool =
            |group: &str| named(&route, &json!({"group": group, "kind": "InferencePool", "name": "p", "port": 1}));
        assert_eq!(pool(GROUP), Some(("ns".to_owned(), "p".to_owned())));
        assert_eq!(pool("inference.networking.x-k8s.io"), None);
        assert_eq!(named(&route, &json!({"name": "p"})), None);
    }
}

//! InferencePools as Envoy AI Gateway has Envoy see them, and how they stand (recordings `pool-epp-down.txt`,
//! `pool-with-epp.txt`).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{CONTROLLER, gateway_ref, kinds};
use crate::{
    dataplane::{
        pool::{Asks, Follows, Pool, Served, WithoutPicker},
        routing::Target,
    },
    dialects::{
        Name, Snapshot, StatusOf, Translation, gateway_api,
        object::{self, list, observed},
        pools,
    },
};

/// Who writes the status of pools. Nobody is named in it as controller.
const WRITER: &str = "ai-gateway-controller";

/// Where a pool leads. Its pods are the picker's business: Envoy goes wherever the header says. `FailOpen` is ignored
/// (envoyproxy/ai-gateway#2502).
pub(super) fn target(pool: &Value) -> Target {
    Target::Pool(Arc::new(Pool {
        picker: Some(pools::picker(pool)),
        endpoints: Vec::new(),
        follows: Follows::Header,
        without_picker: WithoutPicker::Refuse,
        served: Served::Untold,
        asks: Asks::ForEveryMatch,
    }))
}

/// Whether a route makes the extension server refuse: more than one pool in a rule. Envoy Gateway withholds every later
/// configuration of all proxies then, and no status says so.
pub(super) fn freezes(snapshot: &Snapshot, route: &Value) -> bool {
    let there = |pool: &&Name| snapshot.get(&kinds::INFERENCE_POOL, &pool.0, &pool.1).is_some();
    pools::of_rules(route).any(|rule| rule.iter().filter(there).count() > 1)
}

/// One entry for each Gateway that routes of the pool's own namespace attach to; those of others are not looked at, and
/// what another controller has written is replaced.
pub(super) fn statuses(snapshot: &Snapshot, translation: &mut Translation) {
    for pool in snapshot.all(&kinds::INFERENCE_POOL).filter(|p| !object::is_going(p)) {
        let problem = problem(snapshot, pool);
        let parents: Vec<_> = gateways(snapshot, pool)
            .iter()
            .map(|gateway| json!({"conditions": conditions(pool, problem.as_deref()), "parentRef": gateway_ref(gateway)}))
            .collect();
        if !parents.is_empty() || pool.pointer("/status/parents").is_some() {
            translation.statuses.push(StatusOf::new(kinds::INFERENCE_POOL, pool, pools::status(&parents)));
        }
    }
}

fn gateways(snapshot: &Snapshot, pool: &Value) -> Vec<Name> {
    let wanted = object::key(pool);
    let mut gateways: Vec<Name> = snapshot
        .all(&kinds::HTTP_ROUTE)
        .filter(|r| object::namespace(r) == object::namespace(pool) && !object::is_going(r))
        .filter(|r| pools::of_rules(r).flatten().any(|p| p == wanted))
        .flat_map(|r| list(r, "/spec/parentRefs").filter_map(|p| gateway_api::parent_of(snapshot, CONTROLLER, r, p)))
        .map(|g| object::key(g))
        .collect();
    gateways.sort();
    gateways.dedup();
    gateways
}

/// That its endpoint picker's Service is there is all that is looked at.
fn problem(snapshot: &Snapshot, pool: &Value) -> Option<String> {
    let picker = pools::picker(pool);
    snapshot
        .get(&kinds::SERVICE, &picker.namespace, &picker.service)
        .is_none()
        .then(|| format!("ExtensionReference service {} not found in namespace {}", picker.service, picker.namespace))
}

/// `ResolvedRefs` has the same reason whether it is True or False.
fn conditions(pool: &Value, problem: Option<&str>) -> [Value; 2] {
    let (fine, word) = (problem.is_none(), if problem.is_none() { "Accepted" } else { "NotAccepted" });
    let accepted = problem.unwrap_or("InferencePool reconciled successfully");
    let resolved = problem.unwrap_or("All references resolved successfully");
    let accepted = format!("InferencePool has been {word} by controller {WRITER}: {accepted}");
    let resolved = format!("Reference resolution by controller {WRITER}: {resolved}");
    [observed(pool, "Accepted", fine, word, &accepted), observed(pool, "ResolvedRefs", fine, "ResolvedRefs", &resolved)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn pool(name: &str) -> Arc<Value> {
        Arc::new(json!({"metadata": {"name": name, "namespace": "ns", "generation": 1},
            "spec": {"endpointPickerRef": {"name": "epp", "port": {"number": 9002}}}}))
    }

    fn rule(pools: &str) -> Value {
        let refs: Vec<_> =
            pools.split(' ').map(|p| json!({"group": pools::GROUP, "kind": "InferencePool", "name": p})).collect();
        json!({"backendRefs": refs})
    }

    #[rstest]
    #[case(&["a", "b"], false)]
    #[case(&["a b"], true)]
    #[case(&["a nobody"], false)]
    #[case(&[], false)]
    fn two_pools_in_a_rule_freeze(#[case] rules: &[&str], #[case] frozen: bool) {
        let mut snapshot = Snapshot::default();
        snapshot.extend(&kinds::INFERENCE_POOL, [pool("a"), pool("b")]);
        let rules: Vec<_> = rules.iter().map(|r| rule(r)).collect();
        let route = json!({"metadata": {"name": "r", "namespace": "ns"}, "spec": {"rules": rules}});
        assert_eq!(freezes(&snapshot, &route), frozen);
    }
}

//! Dialects alone, without an API server: what a snapshot of objects is translated to.

use std::sync::Arc;

use http::{HeaderMap, Method};
use rehearsal::{
    dataplane::{
        local_reply::Failure,
        routing::{Entry, RequestHead, Rule, Unit},
    },
    dialects::{
        self, Snapshot, Translation, Version, envoy_ai_gateway,
        object::{self, list, text},
    },
    kinds,
};
use rstest::rstest;
use serde_json::{Value, json};

/// A snapshot of these manifests, created in their order, with what a server would fill in.
fn snapshot(manifests: &str) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifests).expect("YAML");
    for (at, mut document) in documents.into_iter().filter(|d| !d.is_null()).enumerate() {
        document["metadata"]["uid"] = json!(format!("uid-{at}"));
        document["metadata"]["generation"] = json!(1);
        document["metadata"]["creationTimestamp"] = json!(format!("2026-11-21T00:00:{at:02}Z"));
        snapshot.extend(&object::kind(&document), [Arc::new(document)]);
    }
    snapshot
}

fn translated(gateway: &str, version: Version, manifests: &str) -> Translation {
    dialects::of(gateway).expect("a dialect").at(version).translate(&snapshot(manifests))
}

fn envoy(manifests: &str) -> Translation {
    translated("envoy-ai-gateway", Version(1, 1, 0), &format!("{ENVOY}{manifests}"))
}

fn agentgateway(manifests: &str) -> Translation {
    translated("agentgateway", Version(1, 3, 1), &format!("{AGENTGATEWAY}{manifests}"))
}

fn status<'a>(translation: &'a Translation, kind: &apiserver::Kind, name: &str) -> &'a Value {
    let found = translation.statuses.iter().find(|s| s.kind == *kind && s.name.1 == name);
    &found.unwrap_or_else(|| panic!("{kind} {name} has no status")).status
}

/// `type=status/reason` of the conditions at a place.
fn short(status: &Value, pointer: &str) -> Vec<String> {
    list(status, pointer)
        .map(|c| format!("{}={}/{}", text(c, "/type"), text(c, "/status"), text(c, "/reason")))
        .collect()
}

fn chosen<'a>(translation: &'a Translation, host: &str, path: &str) -> Result<&'a Arc<Entry>, Failure> {
    let table = &translation.tables[&("igc".to_owned(), "gw".to_owned())];
    let (method, headers) = (Method::POST, HeaderMap::new());
    table.choose(80, &RequestHead { method: &method, host, path, query: "", headers: &headers })
}

fn rule<'a>(translation: &'a Translation, host: &str, path: &str) -> &'a Rule {
    &chosen(translation, host, path).expect("a route").rule
}

const ENVOY: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: envoy}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: igc}
spec: {gatewayClassName: envoy, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: svc, namespace: igc}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a, namespace: igc}
spec: {parentRefs: [{name: gw}], hostnames: [a.test], rules: [{backendRefs: [{name: svc, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: b, namespace: igc}
spec: {parentRefs: [{name: gw}], hostnames: [b.test], rules: [{backendRefs: [{name: svc, port: 80}]}]}
---
";

fn budget(name: &str, kind: &str, target: &str, hits: u64) -> String {
    format!(
        r"
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: {name}, namespace: igc}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: {kind}, name: {target}}}]
  rateLimit: {{type: Global, global: {{rules: [{{limit: {{requests: {hits}, unit: Minute}}}}]}}}}
---
"
    )
}

#[test]
fn a_routes_budget_replaces_the_gateways() {
    let translation = envoy(&(budget("wide", "Gateway", "gw", 9) + &budget("narrow", "HTTPRoute", "a", 3)));
    let hits = |host| rule(&translation, host, "/").global_limits.iter().map(|l| l.limit.hits).collect::<Vec<_>>();
    assert_eq!((hits("a.test"), hits("b.test")), (vec![3], vec![9]));
    let wide = status(&translation, &envoy_ai_gateway::kinds::BACKEND_TRAFFIC_POLICY, "wide");
    assert_eq!(short(wide, "/ancestors/0/conditions"), ["Accepted=True/Accepted", "Overridden=True/Overridden"]);
    let narrow = status(&translation, &envoy_ai_gateway::kinds::BACKEND_TRAFFIC_POLICY, "narrow");
    assert_eq!(short(narrow, "/ancestors/0/conditions"), ["Accepted=True/Accepted"]);
}

#[test]
fn two_budgets_on_one_route() {
    let translation = envoy(&(budget("z-old", "HTTPRoute", "a", 9) + &budget("a-young", "HTTPRoute", "a", 3)));
    assert_eq!(rule(&translation, "a.test", "/").global_limits[0].limit.hits, 9);
    let young = status(&translation, &envoy_ai_gateway::kinds::BACKEND_TRAFFIC_POLICY, "a-young");
    assert_eq!(short(young, "/ancestors/0/conditions"), ["Accepted=False/Conflicted"]);
}

#[test]
fn a_budget_on_nothing_says_nothing() {
    let translation = envoy(&budget("lost", "HTTPRoute", "absent", 3));
    assert!(translation.statuses.iter().all(|s| s.name.1 != "lost"));
}

#[test]
fn a_client_traffic_policy_widens_the_buffer() {
    let policy = r"
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: buffer, namespace: igc}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  connection: {bufferLimit: 50Mi}
";
    assert_eq!(rule(&envoy(""), "a.test", "/").buffer_limit, None);
    let translation = envoy(policy);
    assert_eq!(rule(&translation, "a.test", "/").buffer_limit, Some(50 << 20));
    let said = status(&translation, &envoy_ai_gateway::kinds::CLIENT_TRAFFIC_POLICY, "buffer");
    assert_eq!(short(said, "/ancestors/0/conditions"), ["Accepted=True/Accepted"]);
}

#[rstest]
#[case::load_balancer("LoadBalancer", 1, "Programmed=False/AddressNotAssigned", None)]
#[case::cluster_ip("ClusterIP", 1, "Programmed=True/Programmed", Some("10.96.0.9"))]
#[case::node_port("NodePort", 1, "Programmed=True/Programmed", Some("127.0.0.1"))]
#[case::no_proxy("ClusterIP", 0, "Programmed=False/NoResources", Some("10.96.0.9"))]
fn programmed(#[case] kind: &str, #[case] available: u64, #[case] condition: &str, #[case] address: Option<&str>) {
    let translation = envoy("");
    let name = translation.children.iter().find(|c| c["kind"] == "Service").map(object::name).expect("a Service");
    let translation = envoy(&format!(
        r"
apiVersion: v1
kind: Node
metadata: {{name: n}}
status: {{addresses: [{{type: InternalIP, address: 127.0.0.1}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: envoy-gateway-system}}
spec: {{type: {kind}, clusterIP: 10.96.0.9}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: envoy-gateway-system}}
spec: {{replicas: 1}}
status: {{availableReplicas: {available}}}
"
    ));
    let gateway = status(&translation, &kinds::GATEWAY, "gw");
    assert_eq!(short(gateway, "/conditions"), ["Accepted=True/Accepted", condition]);
    assert_eq!(gateway.pointer("/addresses/0/value").and_then(Value::as_str), address);
    assert_eq!(gateway["listeners"][0]["attachedRoutes"], 2);
}

const AGENTGATEWAY: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: agentgateway}
spec: {controllerName: agentgateway.dev/agentgateway}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: igc}
spec: {gatewayClassName: agentgateway, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a, namespace: igc}
spec:
  parentRefs: [{name: gw}]
  hostnames: [a.test]
  rules:
  - {name: named, matches: [{path: {type: PathPrefix, value: /named}}]}
  - {name: other, matches: [{path: {type: PathPrefix, value: /other}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: b, namespace: igc}
spec: {parentRefs: [{name: gw}], hostnames: [b.test], rules: [{}]}
---
";

fn local(name: &str, target: &str, traffic: &str) -> String {
    format!(
        r"
apiVersion: agentgateway.dev/v1alpha1
kind: AgentgatewayPolicy
metadata: {{name: {name}, namespace: igc}}
spec: {{targetRefs: [{{group: gateway.networking.k8s.io, {target}}}], traffic: {traffic}}}
---
"
    )
}

/// Fields come whole from the most specific level that has them: rule, route, listener, Gateway.
#[rstest]
#[case::rule("a.test", "/named", 1)]
#[case::route("a.test", "/other", 2)]
#[case::listener("b.test", "/", 3)]
fn the_most_specific_limit_counts(#[case] host: &str, #[case] path: &str, #[case] amount: u64) {
    let limit = |amount: u64| format!("{{rateLimit: {{local: [{{requests: {amount}, unit: Hours}}]}}}}");
    let translation = agentgateway(
        &[
            local("gateway", "kind: Gateway, name: gw", &limit(4)),
            local("listener", "kind: Gateway, name: gw, sectionName: http", &limit(3)),
            local("route", "kind: HTTPRoute, name: a", &limit(2)),
            local("rule", "kind: HTTPRoute, name: a, sectionName: named", &limit(1)),
        ]
        .concat(),
    );
    let limits = rule(&translation, host, path).local_limits.clone();
    assert_eq!(limits.len(), 1, "one replaces the other");
    assert_eq!((limits[0].unit, limits[0].limit.capacity), (Unit::Requests, amount));
}

#[test]
fn policies_are_merged_by_field() {
    let translation = agentgateway(
        &[
            local("gateway", "kind: Gateway, name: gw", "{rateLimit: {local: [{tokens: 7, unit: Hours}]}}"),
            local(
                "route",
                "kind: HTTPRoute, name: a",
                "{transformation: {response: {set: [{name: x, value: \"'y'\"}]}}}",
            ),
        ]
        .concat(),
    );
    let (a, b) = (rule(&translation, "a.test", "/named"), rule(&translation, "b.test", "/"));
    assert!(a.transformation.is_some() && b.transformation.is_none());
    assert_eq!(a.local_limits[0].bucket, b.local_limits[0].bucket, "a Gateway's bucket is one for all its routes");
}

/// KServe's `^/.*$` and a user's route on one hostname: which of them gets `/v1/chat/completions`, and whether a host with
/// routes of its own falls back to routes without a hostname (route-precedence-regex-vs-prefix.txt; facts, section 4).
#[rstest]
#[case::longer_prefix("PathPrefix", "/v1/chat/completions", "kserve", "overlay")]
#[case::shorter_prefix("PathPrefix", "/v1", "kserve", "kserve")]
#[case::exact("Exact", "/v1/chat/completions", "overlay", "overlay")]
#[case::longer_regex("RegularExpression", "/v1/chat/.*", "overlay", "overlay")]
fn an_overlay_of_kserves_route(#[case] kind: &str, #[case] path: &str, #[case] eg: &str, #[case] agw: &str) {
    let route = |name: &str, host: &str, kind: &str, path: &str| {
        format!(
            r"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: igc}}
spec: {{parentRefs: [{{name: gw}}], {host} rules: [{{matches: [{{path: {{type: {kind}, value: '{path}'}}}}]}}]}}
---
"
        )
    };
    let manifests = [
        route("kserve", "hostnames: [m.test],", "RegularExpression", "^/.*$"),
        route("overlay", "hostnames: [m.test],", kind, path),
        route("own", "hostnames: [own.test],", "Exact", "/own"),
        route("any", "", "PathPrefix", "/any"),
    ]
    .concat();
    for (translation, overlaid, own_host) in
        [(envoy(&manifests), eg, "NoRoute"), (agentgateway(&manifests), agw, "any")]
    {
        let chosen = |host, path| match chosen(&translation, host, path) {
            Ok(entry) => entry.id.name.clone(),
            Err(failure) => format!("{failure:?}"),
        };
        assert_eq!(chosen("m.test", "/v1/chat/completions"), overlaid);
        assert_eq!(chosen("other.test", "/any"), "any");
        assert_eq!((chosen("own.test", "/own").as_str(), chosen("own.test", "/any").as_str()), ("own", own_host));
    }
}

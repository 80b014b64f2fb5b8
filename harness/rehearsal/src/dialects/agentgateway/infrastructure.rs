//! What agentgateway's controller makes for a Gateway, and the statuses of classes, Gateways and listeners.
//!
//! Shapes as recorded in `01-gateway.txt` and `20-status-gateway-route.txt`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{CLASS, CONTROLLER, NAMESPACE, kinds};
use crate::dialects::{
    Snapshot, StatusOf, Translation, Version,
    attachments::Attachments,
    gateway_api::GROUP,
    object::{self, list, observed, text},
};

/// Listener ports that the proxy keeps for itself (docs/facts/agentgateway.md A1).
const RESERVED: [u16; 3] = [15000, 15020, 15021];

/// What the class says that it supports (recording 00-install of v1.3.1).
const FEATURES: &str = "
    BackendTLSPolicy BackendTLSPolicySANValidation GRPCRoute GRPCRouteNamedRouteRule Gateway GatewayAddressEmpty
    GatewayBackendClientCertificate GatewayFrontendClientCertificateValidation
    GatewayFrontendClientCertificateValidationInsecureFallback GatewayHTTPListenerIsolation
    GatewayHTTPSListenerDetectMisdirectedRequests GatewayInfrastructurePropagation GatewayPort8080
    GatewayStaticAddresses HTTPRoute HTTPRoute303RedirectStatusCode HTTPRoute307RedirectStatusCode
    HTTPRoute308RedirectStatusCode HTTPRouteBackendProtocolH2C HTTPRouteBackendProtocolWebSocket
    HTTPRouteBackendRequestHeaderModification HTTPRouteBackendTimeout HTTPRouteCORS
    HTTPRouteDestinationPortMatching HTTPRouteHostRewrite HTTPRouteMethodMatching HTTPRouteNamedRouteRule
    HTTPRouteParentRefPort HTTPRoutePathRedirect HTTPRoutePathRewrite HTTPRoutePortRedirect
    HTTPRouteQueryParamMatching HTTPRouteRequestMirror HTTPRouteRequestMultipleMirrors
    HTTPRouteRequestPercentageMirror HTTPRouteRequestTimeout HTTPRouteResponseHeaderModification HTTPRouteRetry
    HTTPRouteRetryBackendTimeout HTTPRouteRetryConnectionError HTTPRouteSchemeRedirect ListenerSet
    ReferenceGrant TCPRoute TLSRoute TLSRouteModeMixed TLSRouteModeTerminate
";

pub(super) fn installation(version: Version) -> Vec<Value> {
    let labels = json!({"agentgateway": "agentgateway", "app.kubernetes.io/name": "agentgateway",
        "app.kubernetes.io/instance": "agentgateway"});
    vec![
        object::namespace_named(NAMESPACE),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": CLASS},
            "spec": {"controllerName": CONTROLLER,
                "description": "Specialized class for agentgateway."},
        }),
        object::installed(
            NAMESPACE,
            "agentgateway",
            labels.clone(),
            json!({"name": "agentgateway", "image": format!("cr.agentgateway.dev/controller:{version}"),
                "env": [{"name": "AGW_ENABLE_INFER_EXT", "value": "true"}]}),
        ),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "agentgateway", "namespace": NAMESPACE, "labels": labels},
            "spec": {"selector": labels, "ports": [
                {"name": "grpc-xds-agw", "port": 9978, "targetPort": 9978},
                {"name": "health", "port": 9093, "targetPort": 9093},
                {"name": "metrics", "port": 9092, "targetPort": 9092}]},
        }),
    ]
}

pub(super) fn classes(snapshot: &Snapshot, translation: &mut Translation) {
    let features: Vec<_> = FEATURES.split_whitespace().map(|name| json!({"name": name})).collect();
    for class in snapshot.all(&kinds::GATEWAY_CLASS).filter(|c| text(c, "/spec/controllerName") == CONTROLLER) {
        let message = "GatewayClass accepted by agentgateway controller";
        let accepted = observed(class, "Accepted", true, "Accepted", message);
        let status = json!({"conditions": [accepted], "supportedFeatures": features});
        translation.statuses.push(StatusOf::new(kinds::GATEWAY_CLASS, class, status));
    }
}

/// The proxy of a Gateway, and what the Gateway says of itself: Programmed at once, whether a proxy runs or not.
pub(super) fn gateway(
    version: Version,
    snapshot: &Snapshot,
    gateway: &Arc<Value>,
    attachments: &Attachments,
    translation: &mut Translation,
) {
    let key = object::key(gateway);
    translation.children.extend(children(version, snapshot, gateway));
    let listeners: Vec<_> = list(gateway, "/spec/listeners")
        .enumerate()
        .map(|(at, listener)| {
            let fine =
                |kind: &str, status: bool, reason: &str| observed(gateway, kind, status, reason, "No errors found");
            json!({
                "attachedRoutes": attachments.count(&key, at),
                "conditions": [
                    fine("Accepted", true, "Accepted"),
                    fine("Conflicted", false, "NoConflicts"),
                    fine("Programmed", true, "Programmed"),
                    fine("ResolvedRefs", true, "ResolvedRefs"),
                ],
                "name": listener["name"],
                "supportedKinds": [{"group": GROUP, "kind": "HTTPRoute"}, {"group": GROUP, "kind": "GRPCRoute"}],
            })
        })
        .collect();
    let mut status = json!({
        "attachedListenerSets": 0,
        "conditions": [
            observed(gateway, "Accepted", true, "Accepted", ""),
            observed(gateway, "Programmed", true, "Programmed", "Successfully programmed Gateway"),
        ],
        "listeners": listeners,
    });
    let addresses = addresses(snapshot, gateway);
    if !addresses.is_empty() {
        status["addresses"] = json!(addresses);
    }
    translation.statuses.push(StatusOf::new(kinds::GATEWAY, gateway, status));
}

/// What the load balancer says; for other types the ClusterIP (docs/facts/agentgateway.md A2).
fn addresses(snapshot: &Snapshot, gateway: &Value) -> Vec<Value> {
    let Some(service) = snapshot.get(&kinds::SERVICE, object::namespace(gateway), object::name(gateway)) else {
        return Vec::new();
    };
    let address = |kind: &str, value: &str| json!({"type": kind, "value": value});
    if text(service, "/spec/type") == "LoadBalancer" {
        return list(service, "/status/loadBalancer/ingress")
            .map(|i| match text(i, "/hostname") {
                "" => address("IPAddress", text(i, "/ip")),
                hostname => address("Hostname", hostname),
            })
            .collect();
    }
    list(service, "/spec/clusterIPs").filter_map(Value::as_str).map(|ip| address("IPAddress", ip)).collect()
}

/// The overlay of AgentgatewayParameters on the generated Service and Deployment.
fn parameters<'a>(snapshot: &'a Snapshot, gateway: &Value, pointer: &str) -> Option<&'a Value> {
    let name = text(gateway, "/spec/infrastructure/parametersRef/name");
    snapshot.get(&kinds::AGENTGATEWAY_PARAMETERS, object::namespace(gateway), name)?.pointer(pointer)
}

/// Everything is named like the Gateway. Nothing is made while all ports are reserved ones.
fn children(version: Version, snapshot: &Snapshot, gateway: &Value) -> Vec<Value> {
    let name = object::name(gateway);
    let mut ports = object::listener_ports(gateway);
    ports.retain(|p| !RESERVED.contains(p));
    if ports.is_empty() {
        return Vec::new();
    }
    let texts = |pairs: &[(&str, &str)]| -> Map<String, Value> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect()
    };
    let selector = texts(&[
        ("app.kubernetes.io/instance", name),
        ("app.kubernetes.io/name", name),
        ("gateway.networking.k8s.io/gateway-name", name),
    ]);
    let mut of_pods = selector.clone();
    of_pods.extend(texts(&[("gateway.networking.k8s.io/gateway-class-name", text(gateway, "/spec/gatewayClassName"))]));
    of_pods.extend(object::texts(gateway.pointer("/spec/infrastructure/labels")));
    let mut of_secret = of_pods.clone();
    of_secret.retain(|label, _| label.starts_with("gateway.networking.k8s.io/"));
    let mut of_objects = of_pods.clone();
    of_objects.extend(texts(&[
        ("app.kubernetes.io/managed-by", "agentgateway"),
        ("app.kubernetes.io/version", &version.to_string()),
    ]));
    let metadata = |suffix: &str, labels: &Map<String, Value>| {
        json!({"name": format!("{name}{suffix}"), "namespace": object::namespace(gateway), "labels": labels,
            "ownerReferences": [object::owned_by(gateway, false)]})
    };
    let mut service_ports: Vec<_> = ports
        .iter()
        .map(|p| json!({"name": format!("listener-{p}"), "port": p, "protocol": "TCP", "targetPort": p}))
        .collect();
    let overlay = parameters(snapshot, gateway, "/spec/service/spec/ports").and_then(Value::as_array);
    object::overlay_node_ports(&mut service_ports, overlay.into_iter().flatten());
    let container_ports: Vec<_> =
        ports.iter().map(|p| json!({"containerPort": p, "name": format!("listener-{p}"), "protocol": "TCP"})).collect();
    let kind = parameters(snapshot, gateway, "/spec/service/spec/type").and_then(Value::as_str);
    let core = |kind: &str, suffix: &str, labels: &Map<String, Value>, field: &str, content: Value| {
        let metadata = metadata(suffix, labels);
        json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, field: content})
    };
    let service = json!({"type": kind.unwrap_or("LoadBalancer"), "selector": selector, "ports": service_ports});
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("", &of_objects),
        "spec": {"selector": {"matchLabels": selector}, "template": {
            "metadata": {"labels": of_pods},
            "spec": {"serviceAccountName": name, "containers": [{
                "name": "agentgateway", "args": ["-f", "/config/config.yaml"],
                "image": format!("cr.agentgateway.dev/agentgateway:{version}"), "ports": container_ports}]}}},
    });
    if let Some(replicas) = parameters(snapshot, gateway, "/spec/deployment/spec/replicas") {
        deployment["spec"]["replicas"] = replicas.clone(); // else a size that was set by hand stays
    }
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("", &of_objects)}),
        core("ConfigMap", "", &of_objects, "data", json!({"config.yaml": "config: {}\n"})),
        core("ConfigMap", "-xds-ca", &of_objects, "data", json!({"ca.crt": ""})),
        core("Secret", "-session-key", &of_secret, "type", json!("Opaque")),
        deployment,
        core("Service", "", &of_objects, "spec", service),
    ]
}

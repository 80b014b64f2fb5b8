//! What Envoy Gateway makes for a Gateway (Deployment, Service), and the statuses of classes, Gateways and listeners.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{CONTROLLER, NAMESPACE, container_port, kinds};
use crate::dialects::{
    Name, Snapshot, StatusOf, Translation, Version,
    attachments::Attachments,
    gateway_api::GROUP,
    object::{self, list, observed, text, text_or},
};

/// Holds a GatewayClass while a Gateway uses it.
pub(super) const FINALIZER: &str = "gateway-exists-finalizer.gateway.networking.k8s.io";

/// `envoy-<namespace>-<name>-<hash8>` (docs/facts/envoy-ai-gateway.md E10).
pub(super) fn proxy_name((namespace, name): &Name) -> String {
    let digest = Sha256::digest(format!("{namespace}/{name}").as_bytes());
    let hash: String = digest.iter().take(4).map(|b| format!("{b:02x}")).collect();
    let readable: String = format!("{namespace}-{name}").chars().take(48).collect();
    format!("envoy-{readable}-{hash}")
}

pub(super) fn installation(version: Version) -> Vec<Value> {
    let deployment = |home: &str, name: &str, image: String| {
        let labels = json!({"app.kubernetes.io/instance": name, "app.kubernetes.io/name": name});
        object::installed(home, name, labels, json!({"name": name, "image": image}))
    };
    let ports: Vec<_> = [("grpc", 18000), ("ratelimit", 18001), ("wasm", 18002), ("metrics", 19001), ("webhook", 9443)]
        .into_iter()
        .map(|(name, port)| json!({"name": name, "port": port, "targetPort": port}))
        .collect();
    vec![
        object::namespace_named(NAMESPACE),
        object::namespace_named(AI_CONTROLLER.0),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "envoy-gateway", "namespace": NAMESPACE},
            "spec": {"selector": {"app.kubernetes.io/instance": "envoy-gateway"}, "ports": ports}}),
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "envoy"},
            "spec": {"controllerName": CONTROLLER}}),
        deployment(NAMESPACE, "envoy-gateway", "docker.io/envoyproxy/gateway:v1.8.3".to_owned()),
        deployment(NAMESPACE, "envoy-ratelimit", "docker.io/envoyproxy/ratelimit:3fb70258".to_owned()),
        deployment(AI_CONTROLLER.0, AI_CONTROLLER.1, format!("docker.io/envoyproxy/ai-gateway-controller:{version}")),
    ]
}

/// Namespace and name of the AI Gateway's controller.
pub(super) const AI_CONTROLLER: (&str, &str) = ("envoy-ai-gateway-system", "ai-gateway-controller");

/// GatewayClasses of ours are accepted, and held while a Gateway uses them.
pub(super) fn classes(snapshot: &Snapshot, gateways: &[Arc<Value>], translation: &mut Translation) {
    for class in snapshot.all(&kinds::GATEWAY_CLASS).filter(|c| text(c, "/spec/controllerName") == CONTROLLER) {
        let accepted = observed(class, "Accepted", true, "Accepted", "Valid GatewayClass");
        translation.statuses.push(StatusOf::new(kinds::GATEWAY_CLASS, class, json!({"conditions": [accepted]})));
        if gateways.iter().any(|g| text(g, "/spec/gatewayClassName") == object::name(class)) {
            translation.finalizers.push((kinds::GATEWAY_CLASS, object::key(class), FINALIZER));
        }
    }
}

fn envoy_proxy<'a>(snapshot: &'a Snapshot, gateway: &Value) -> Option<&'a Arc<Value>> {
    let of_gateway =
        gateway.pointer("/spec/infrastructure/parametersRef").map(|r| (object::namespace(gateway), text(r, "/name")));
    let class = snapshot.get(&kinds::GATEWAY_CLASS, "", text(gateway, "/spec/gatewayClassName"))?;
    let of_class =
        class.pointer("/spec/parametersRef").map(|r| (text_or(r, "/namespace", NAMESPACE), text(r, "/name")));
    let (namespace, name) = of_gateway.or(of_class)?;
    snapshot.get(&kinds::ENVOY_PROXY, namespace, name)
}

pub(super) fn gateway(
    snapshot: &Snapshot,
    gateway: &Arc<Value>,
    attachments: &Attachments,
    translation: &mut Translation,
) {
    let key = object::key(gateway);
    let proxy = envoy_proxy(snapshot, gateway).map(|p| &**p);
    let name = proxy_name(&key);
    translation.children.extend(children(gateway, proxy, &name));

    let deployment = snapshot.get(&kinds::DEPLOYMENT, NAMESPACE, &name);
    let replicas = deployment.and_then(|d| object::number(d, "/spec/replicas")).unwrap_or(1);
    let available = deployment.and_then(|d| object::number(d, "/status/availableReplicas")).unwrap_or(0);
    let addresses = addresses(snapshot, &name);
    let assigned = format!("Address assigned to the Gateway, {available}/{replicas} envoy replicas available");
    let (programmed, reason, message) = match (addresses.is_empty(), available) {
        (true, _) => (false, "AddressNotAssigned", "No addresses have been assigned to the Gateway"),
        (false, 0) => (false, "NoResources", "Envoy replicas unavailable"),
        (false, _) => (true, "Programmed", assigned.as_str()),
    };
    let programmed = observed(gateway, "Programmed", programmed, reason, message);
    let accepted = observed(gateway, "Accepted", true, "Accepted", "The Gateway has been scheduled by Envoy Gateway");
    let fine = |kind: &str, message: &str| observed(gateway, kind, true, kind, message);
    let listeners: Vec<_> = list(gateway, "/spec/listeners")
        .enumerate()
        .map(|(at, listener)| {
            json!({
                "attachedRoutes": attachments.count(&key, at),
                "conditions": [
                    fine("Programmed", "Sending translated listener configuration to the data plane"),
                    fine("Accepted", "Listener has been successfully translated"),
                    fine("ResolvedRefs", "Listener references have been resolved"),
                ],
                "name": listener["name"],
                "supportedKinds": [{"group": GROUP, "kind": "HTTPRoute"}, {"group": GROUP, "kind": "GRPCRoute"}],
            })
        })
        .collect();
    let mut status = json!({"conditions": [accepted, programmed], "listeners": listeners});
    if !addresses.is_empty() {
        let written: Vec<_> = addresses.iter().map(|a| json!({"type": "IPAddress", "value": a})).collect();
        status["addresses"] = json!(written);
    }
    translation.statuses.push(StatusOf::new(kinds::GATEWAY, gateway, status));
}

/// Where the proxy's Service can be reached: nodes for a node port, itself for a ClusterIP, else what its load balancer
/// says (docs/facts/envoy-ai-gateway.md E11).
fn addresses<'a>(snapshot: &'a Snapshot, name: &str) -> Vec<&'a str> {
    let Some(service) = snapshot.get(&kinds::SERVICE, NAMESPACE, name) else { return Vec::new() };
    let addresses: Vec<&str> = match text_or(service, "/spec/type", "ClusterIP") {
        "NodePort" => {
            let of_nodes = snapshot.all(&kinds::NODE).flat_map(|n| list(n, "/status/addresses"));
            of_nodes.filter(|a| text(a, "/type") == "InternalIP").map(|a| text(a, "/address")).collect()
        }
        "ClusterIP" => vec![text(service, "/spec/clusterIP")],
        _ => list(service, "/status/loadBalancer/ingress").map(|i| text(i, "/ip")).collect(),
    };
    addresses.into_iter().filter(|a| !a.is_empty()).collect()
}

/// Deployment and Service of a proxy, names and labels as recorded in `gateway-status.txt`.
fn children(gateway: &Value, proxy: Option<&Value>, name: &str) -> Vec<Value> {
    let of_proxy = |pointer: &str| proxy.and_then(|p| p.pointer(&format!("/spec/provider/kubernetes{pointer}")));
    let mut labels = Map::from_iter(
        [
            ("app.kubernetes.io/component", "proxy"),
            ("app.kubernetes.io/managed-by", "envoy-gateway"),
            ("app.kubernetes.io/name", "envoy"),
            ("gateway.envoyproxy.io/owning-gateway-name", object::name(gateway)),
            ("gateway.envoyproxy.io/owning-gateway-namespace", object::namespace(gateway)),
        ]
        .map(|(k, v)| (k.to_owned(), json!(v))),
    );
    let selector = Value::Object(labels.clone());
    labels.extend(object::texts(gateway.pointer("/spec/infrastructure/labels")));
    let labels = Value::Object(labels);
    let ports = object::listener_ports(gateway);
    let kind = of_proxy("/envoyService/type").and_then(Value::as_str).unwrap_or("LoadBalancer");
    let mut service_ports: Vec<_> = ports
        .iter()
        .map(|port| {
            json!({"name": format!("http-{port}"), "port": port, "protocol": "TCP", "targetPort": container_port(*port)})
        })
        .collect();
    let overlay = of_proxy("/envoyService/patch/value/spec/ports").and_then(Value::as_array);
    object::overlay_node_ports(&mut service_ports, overlay.into_iter().flatten());
    let container_ports: Vec<_> =
        ports.iter().map(|p| json!({"containerPort": container_port(*p), "protocol": "TCP"})).collect();
    let metadata = json!({"name": name, "namespace": NAMESPACE, "labels": labels});
    let mut service = json!({"type": kind, "selector": selector, "ports": service_ports});
    if kind != "ClusterIP" {
        let policy = of_proxy("/envoyService/externalTrafficPolicy").cloned();
        service["externalTrafficPolicy"] = policy.unwrap_or_else(|| json!("Local"));
    }
    let container = |name: &str, image: &str| json!({"name": name, "image": image});
    let mut envoy = container("envoy", "docker.io/envoyproxy/envoy:distroless-v1.38.3");
    envoy["ports"] = json!(container_ports);
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {"selector": {"matchLabels": selector}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [envoy, container("shutdown-manager", "docker.io/envoyproxy/gateway:v1.8.3")]}}},
    });
    if let Some(replicas) = of_proxy("/envoyDeployment/replicas") {
        deployment["spec"]["replicas"] = replicas.clone(); // else a size that was set by hand stays
    }
    vec![deployment, json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("envoy-lab", "envoy-ingress-gateway", "envoy-envoy-lab-envoy-ingress-gateway-8b2b6e5b")]
    #[case("kserve-test", "ai-gateway", "envoy-kserve-test-ai-gateway-426cbc2d")]
    #[case("default", "envoy-ai-gateway-basic", "envoy-default-envoy-ai-gateway-basic-21a9f8f8")]
    fn names_as_recorded(#[case] namespace: &str, #[case] name: &str, #[case] expected: &str) {
        assert_eq!(proxy_name(&(namespace.to_owned(), name.to_owned())), expected);
    }
}

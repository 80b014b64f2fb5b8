//! Services to EndpointSlices to the network, and node ports as sockets on loopback.
//!
//! A node port of this world is the real port of a socket on 127.0.0.1. Many worlds share the machine, so that it need not
//! be the number that the Service asked for ([`NodePorts`]). The Service says the real number.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ops::RangeInclusive,
};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::DropGuard;

use super::{Context, pods, settle, workloads::is_ready};
use crate::{
    dataplane::network::{Network, PortOf, ServiceEntry, ServicePort},
    dialects::{
        Name, Snapshot,
        object::{self, list, name, namespace, text, text_or},
    },
    hops::Between,
    kinds,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodePorts {
    /// Whichever the machine gives: worlds come and go beside one another.
    #[default]
    Free,
    /// The number that the Service has, or the next one that is free: a world that people reach by hand.
    AsWritten,
}

const RANGE: RangeInclusive<u16> = 30000..=32767;

/// The node ports that are open: by Service and port.
#[derive(Debug, Default)]
pub struct Services {
    open: BTreeMap<(Name, u16), NodePort>,
}

#[derive(Debug)]
struct NodePort {
    number: u16,
    _stop: DropGuard,
}

impl Services {
    pub(super) fn reconcile(&mut self, context: &Context, snapshot: &Snapshot) {
        let mut entries = HashMap::new();
        for service in snapshot.all(&kinds::SERVICE).filter(|s| !object::is_going(s)) {
            let slices = slices(context, snapshot, service);
            entries.insert(object::key(service), entry(service, &slices));
        }
        context.network.set_services(entries);
        self.node_ports(context, snapshot);
    }

    /// Opens the node ports of a Service that is about to be written and puts their numbers into it, so that its first
    /// reader sees the real ones.
    pub(super) fn reserve(&mut self, context: &Context, service: &mut Value) {
        if object::kind(service) != kinds::SERVICE || !has_node_ports(service) {
            return;
        }
        let name = object::key(service);
        for written in service["spec"]["ports"].as_array_mut().into_iter().flatten() {
            let Some(port) = object::port(written, "/port") else { continue };
            if let Some(number) = self.number(context, (name.clone(), port), object::port(written, "/nodePort")) {
                written["nodePort"] = json!(number);
            }
        }
    }

    fn number(&mut self, context: &Context, key: (Name, u16), written: Option<u16>) -> Option<u16> {
        if let Some(open) = self.open.get(&key) {
            return Some(open.number);
        }
        match open(context, &key, written) {
            Ok(opened) => Some(self.open.entry(key).or_insert(opened).number),
            Err(error) => {
                tracing::warn!(?key, %error, "a node port could not be opened");
                None
            }
        }
    }

    fn node_ports(&mut self, context: &Context, snapshot: &Snapshot) {
        let wanted: Vec<((Name, u16), Option<u16>)> = snapshot
            .all(&kinds::SERVICE)
            .filter(|s| !object::is_going(s) && has_node_ports(s))
            .flat_map(|s| list(s, "/spec/ports").map(|port| (object::key(s), port)))
            .filter_map(|(name, port)| Some(((name, object::port(port, "/port")?), object::port(port, "/nodePort"))))
            .collect();
        self.open.retain(|key, _| wanted.iter().any(|(wanted, _)| wanted == key));
        for (key, written) in wanted {
            let number = self.number(context, key.clone(), written);
            if number.is_none() || number == written {
                continue;
            }
            let ((home, service), port) = &key;
            let corrected = context.store.change(&kinds::SERVICE, home, service, |service| {
                for written in service["spec"]["ports"].as_array_mut().into_iter().flatten() {
                    if object::port(written, "/port") == Some(*port) {
                        written["nodePort"] = json!(number);
                    }
                }
            });
            settle("a node port", corrected);
        }
    }
}

fn has_node_ports(service: &Value) -> bool {
    matches!(text(service, "/spec/type"), "NodePort" | "LoadBalancer")
}

fn open(context: &Context, key: &(Name, u16), written: Option<u16>) -> std::io::Result<NodePort> {
    let ((home, service), port) = key;
    let (listener, socket) = match context.node_ports {
        NodePorts::Free => pods::listen(0)?,
        NodePorts::AsWritten => {
            let mut numbers = written.unwrap_or(*RANGE.start())..=*RANGE.end();
            numbers.find_map(|number| pods::listen(number).ok()).map_or_else(|| pods::listen(0), Ok)?
        }
    };
    let stop = context.stop.child_token();
    let (network, stopped) = (context.network.clone(), stop.clone());
    let (home, service, port) = (home.clone(), service.clone(), *port);
    tokio::spawn(async move { stopped.run_until_cancelled(lead(&listener, &network, &home, &service, port)).await });
    Ok(NodePort { number: socket.port(), _stop: stop.drop_guard() })
}

/// Leads every connection to one of the endpoints, in turn; without an endpoint it is closed, as kube-proxy refuses it.
async fn lead(listener: &TcpListener, network: &Network, home: &str, service: &str, port: u16) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                continue;
            }
        };
        let Some((address, pod_port)) = network.endpoint(home, service, port) else { continue };
        let behind = network.pod_port(address, pod_port);
        let is_led = network.hops().leads(Between::ClientGateway)
            && behind.as_ref().is_some_and(|behind| behind.of == PortOf::Gateway);
        match behind.and_then(|p| p.door) {
            Some(door) if !is_led => door(stream),
            _ => {
                let network = if is_led { network.over(Between::ClientGateway) } else { network.clone() };
                tokio::spawn(async move { copy(stream, &network, address, pod_port).await });
            }
        }
    }
}

async fn copy(mut stream: TcpStream, network: &Network, address: IpAddr, port: u16) {
    if let Ok(mut behind) = network.connect_address(address, port).await
        && stream.set_nodelay(true).is_ok()
        && let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut behind).await
    {
        tracing::debug!(%error, "a forwarded connection broke");
    }
}

/// The EndpointSlices of a Service: written for those with a selector, read for those without.
fn slices(context: &Context, snapshot: &Snapshot, service: &Value) -> Vec<Value> {
    let existing: Vec<_> = snapshot
        .all(&kinds::ENDPOINT_SLICE)
        .filter(|s| namespace(s) == namespace(service) && !object::is_going(s))
        .filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == service["metadata"]["name"])
        .collect();
    let selector = service.pointer("/spec/selector").filter(|s| s.as_object().is_some_and(|s| !s.is_empty()));
    if selector.is_none() {
        return existing.into_iter().map(|s| (**s).clone()).collect();
    }
    let mut pods: Vec<_> = snapshot
        .all(&kinds::POD)
        .filter(|p| namespace(p) == namespace(service) && !object::is_going(p))
        .filter(|p| object::selected(p.pointer("/metadata/labels"), selector))
        .filter(|p| !text(p, "/status/podIP").is_empty())
        .collect();
    pods.sort_by_key(|p| name(p).to_owned());
    let endpoints: Vec<_> = pods
        .iter()
        .map(|pod| {
            let ready = is_ready(pod);
            json!({
                "addresses": [pod["status"]["podIP"]],
                "conditions": {"ready": ready, "serving": ready, "terminating": false},
                "nodeName": pod["spec"]["nodeName"],
                "targetRef": {"kind": "Pod", "name": name(pod), "namespace": namespace(pod),
                              "uid": pod["metadata"]["uid"]},
            })
        })
        .collect();
    let ports: Vec<_> = list(service, "/spec/ports")
        .filter_map(|port| {
            let target = target_port(port, &pods)?;
            Some(json!({"name": text(port, "/name"), "port": target, "protocol": text_or(port, "/protocol", "TCP")}))
        })
        .collect();
    let made = existing.iter().find(|s| object::controller(s) == Some(text(service, "/metadata/uid")));
    if let Some(slice) = made
        && slice.get("endpoints") == Some(&json!(endpoints))
        && slice.get("ports") == Some(&json!(ports))
    {
        return vec![(***slice).clone()];
    }
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace(service),
            "labels": {"kubernetes.io/service-name": name(service),
                       "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
            "ownerReferences": [object::owned_by(service, true)],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    });
    let written = match made {
        Some(made) => {
            slice["metadata"]["name"] = made["metadata"]["name"].clone();
            context.store.apply(slice.clone())
        }
        None => {
            slice["metadata"]["generateName"] = json!(format!("{}-", name(service)));
            context.store.create(slice.clone())
        }
    };
    settle("an EndpointSlice", written);
    vec![slice]
}

/// The pod's port behind a Service's port: a number, or the name of a container port.
fn target_port(port: &Value, pods: &[&std::sync::Arc<Value>]) -> Option<u16> {
    match port.get("targetPort") {
        Some(Value::String(wanted)) => pods
            .iter()
            .flat_map(|p| list(p, "/spec/containers"))
            .flat_map(|c| list(c, "/ports"))
            .find(|p| text(p, "/name") == wanted)
            .and_then(|p| object::port(p, "/containerPort"))
            .or_else(|| wanted.parse().ok()),
        Some(Value::Number(_)) => object::port(port, "/targetPort").filter(|p| *p != 0),
        _ => None,
    }
    .or_else(|| object::port(port, "/port").filter(|_| !matches!(port.get("targetPort"), Some(Value::String(_)))))
}

fn entry(service: &Value, slices: &[Value]) -> ServiceEntry {
    let ports = list(service, "/spec/ports")
        .filter_map(|port| {
            let endpoints = slices
                .iter()
                .flat_map(|slice| {
                    let behind = list(slice, "/ports")
                        .find(|p| text(p, "/name") == text(port, "/name"))
                        .and_then(|p| object::port(p, "/port"));
                    list(slice, "/endpoints")
                        .filter(|e| e.pointer("/conditions/ready") != Some(&Value::Bool(false)))
                        .flat_map(|e| list(e, "/addresses"))
                        .filter_map(move |a| Some((a.as_str()?.parse().ok()?, behind?)))
                        .collect::<Vec<_>>()
                })
                .collect();
            Some(ServicePort { port: object::port(port, "/port")?, endpoints })
        })
        .collect();
    ServiceEntry { cluster_ip: text(service, "/spec/clusterIP").parse().ok(), ports }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::sync::Arc;

    #[rstest]
    #[case(json!({"port": 80, "targetPort": 8080}), Some(8080))]
    #[case(json!({"port": 80}), Some(80))]
    #[case(json!({"port": 80, "targetPort": "http"}), Some(8000))]
    #[case(json!({"port": 80, "targetPort": "absent"}), None)]
    fn target_ports(#[case] port: Value, #[case] expected: Option<u16>) {
        let pod = Arc::new(json!({"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8000}]}]}}));
        assert_eq!(target_port(&port, &[&pod]), expected);
    }

    #[test]
    fn only_ready_endpoints_serve() {
        let service = json!({"spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}});
        let slice = json!({"ports": [{"name": "", "port": 8080}], "endpoints": [
            {"addresses": ["10.244.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.244.0.2"], "conditions": {"ready": false}},
            {"addresses": ["10.244.0.3"]},
        ]});
        let entry = entry(&service, &[slice]);
        let addresses: Vec<_> = entry.ports[0].endpoints.iter().map(|(a, p)| format!("{a}:{p}")).collect();
        assert_eq!(addresses, ["10.244.0.1:8080", "10.244.0.3:8080"]);
    }
}

//! Services to EndpointSlices to the network, and node ports as sockets on loopback.
//!
//! A node port of this world is the real port of a socket on 127.0.0.1, whatever number the Service asked for: many worlds
//! share the machine. The Service says the real number.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Surroundings, pods, settle, workloads::is_ready};
use crate::{
    api::kinds,
    dataplane::network::{Network, ServiceEntry, ServicePort},
    dialects::{
        Name, Snapshot,
        object::{self, list, name, namespace, text, text_or},
    },
};

/// The node ports that are open: by Service and port.
#[derive(Debug, Default)]
pub struct Services {
    open: BTreeMap<(Name, u16), NodePort>,
}

#[derive(Debug)]
struct NodePort {
    number: u16,
    stop: CancellationToken,
}

impl Drop for NodePort {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Services {
    /// Writes EndpointSlices, tells the network, opens and closes node ports.
    pub(super) fn reconcile(&mut self, around: &Surroundings, snapshot: &Snapshot) {
        let mut entries = HashMap::new();
        for service in snapshot.all(&kinds::SERVICE).filter(|s| !object::is_going(s)) {
            let slices = slices(around, snapshot, service);
            entries.insert(object::key(service), entry(service, &slices));
        }
        around.network.set_services(entries);
        self.node_ports(around, snapshot);
    }

    /// Opens the node ports of a Service that is about to be made and writes their numbers into it, so that the first
    /// reader of the Service sees the real ones.
    pub(super) fn reserve(&mut self, around: &Surroundings, service: &mut Value) {
        if object::kind(service) != kinds::SERVICE || !has_node_ports(service) {
            return;
        }
        let key = object::key(service);
        for written in service["spec"]["ports"].as_array_mut().into_iter().flatten() {
            let Some(port) = object::port(written, "/port") else { continue };
            match open(around, &(key.clone(), port)) {
                Ok(opened) => {
                    written["nodePort"] = json!(opened.number);
                    self.open.insert((key.clone(), port), opened);
                }
                Err(error) => tracing::warn!(?key, %error, "a node port could not be opened"),
            }
        }
    }

    fn node_ports(&mut self, around: &Surroundings, snapshot: &Snapshot) {
        let wanted: Vec<_> = snapshot
            .all(&kinds::SERVICE)
            .filter(|s| !object::is_going(s))
            .filter(|s| has_node_ports(s))
            .flat_map(|s| list(s, "/spec/ports").filter_map(|p| Some((object::key(s), object::port(p, "/port")?))))
            .collect();
        self.open.retain(|key, _| wanted.contains(key));
        for key in wanted {
            if !self.open.contains_key(&key) {
                match open(around, &key) {
                    Ok(opened) => {
                        self.open.insert(key.clone(), opened);
                    }
                    Err(error) => {
                        tracing::warn!(?key, %error, "a node port could not be opened");
                        continue;
                    }
                }
            }
            let ((home, service), port) = &key;
            let number = self.open.get(&key).map_or(0, |o| o.number);
            let says = snapshot.get(&kinds::SERVICE, home, service).is_some_and(|s| {
                list(s, "/spec/ports")
                    .any(|p| object::port(p, "/port") == Some(*port) && object::port(p, "/nodePort") == Some(number))
            });
            if !says {
                let written = around.store.change(&kinds::SERVICE, home, service, |service| {
                    for written in service["spec"]["ports"].as_array_mut().into_iter().flatten() {
                        if object::port(written, "/port") == Some(*port) {
                            written["nodePort"] = json!(number);
                        }
                    }
                });
                settle("a node port", written);
            }
        }
    }
}

fn has_node_ports(service: &Value) -> bool {
    matches!(text(service, "/spec/type"), "NodePort" | "LoadBalancer")
}

/// Opens a socket that leads to the endpoints of a Service's port.
fn open(around: &Surroundings, ((home, service), port): &(Name, u16)) -> std::io::Result<NodePort> {
    let (listener, socket) = pods::listen()?;
    let stop = around.stop.child_token();
    let (network, stopped) = (around.network.clone(), stop.clone());
    let (home, service, port) = (home.clone(), service.clone(), *port);
    tokio::spawn(async move {
        tokio::select! {
            () = lead(&listener, &network, &home, &service, port) => {}
            () = stopped.cancelled() => {}
        }
    });
    Ok(NodePort { number: socket.port(), stop })
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
        match network.pod_port(address, pod_port).and_then(|p| p.door) {
            Some(door) => door(stream),
            None => {
                let network = network.clone();
                tokio::spawn(async move { copy(stream, &network, address, pod_port).await });
            }
        }
    }
}

async fn copy(mut stream: TcpStream, network: &Network, address: IpAddr, port: u16) {
    if let Ok(mut behind) = network.connect_address(address, port).await
        && let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut behind).await
    {
        tracing::debug!(%error, "a forwarded connection broke");
    }
}

/// The EndpointSlices of a Service: written for those with a selector, read for those without.
fn slices(around: &Surroundings, snapshot: &Snapshot, service: &Value) -> Vec<Value> {
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
    let made = existing.iter().find(|s| object::is_owned_by(s, service));
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
            around.store.apply(slice.clone())
        }
        None => {
            slice["metadata"]["generateName"] = json!(format!("{}-", name(service)));
            around.store.create(slice.clone())
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

/// A Service as the network knows it.
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

//! Where a gateway answers: candidates from its status, its Service and its nodes, tried by connecting; else a forward.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::{Dial, Tcp};

use super::{ApiFailure, Cluster, Forward, ObjectRef, clock::Deadline, items, text};

/// How long each candidate may take.
const TRY: Duration = Duration::from_secs(2);
/// How long the forward may take, which goes through the API server.
const TRY_FORWARD: Duration = Duration::from_secs(10);
const NODES: usize = 5;

#[derive(Clone, Debug)]
pub struct AddressAsk {
    pub gateway: ObjectRef,
    pub port: u16,
    /// Label selector of the Service that leads to it, in whatever namespace: `a=b,c=d`.
    pub service_labels: String,
    /// `host:port`s that the place knows besides, for example the loopback port that kind maps to the node port.
    pub extra: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressKind {
    Status,
    ClusterIp,
    NodePort,
    Extra,
    /// Through the API server. Checks of replicas, aborts and backpressure mean nothing there.
    PortForward,
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status => "Gateway status",
            Self::ClusterIp => "cluster address of the Service",
            Self::NodePort => "node port",
            Self::Extra => "address of the place",
            Self::PortForward => "port-forward",
        })
    }
}

#[derive(Clone)]
pub struct Reached {
    pub dial: Arc<dyn Dial>,
    /// `host:port`, or what the forward leads to.
    pub address: String,
    pub kind: AddressKind,
    pub before: Vec<Tried>,
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reached({} by {})", self.address, self.kind)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// `host:port`, or what was looked up.
    pub address: String,
    pub kind: AddressKind,
    pub problem: String,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.address, self.kind, self.problem)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error(transparent)]
    Api(#[from] ApiFailure),
    #[error("find an address of {0}: it does not exist")]
    NoGateway(ObjectRef),
    #[error("find an address of {gateway}: none of {} candidates answers{}", tried.len(), tried.iter().map(|tried| format!("\n  {tried}")).collect::<String>())]
    NoneAnswers { gateway: ObjectRef, tried: Vec<Tried> },
}

impl AddressError {
    /// The first address that was asked, though it did not answer: of a gateway that answered before, a check is to find that.
    pub fn silent(&self) -> Option<Reached> {
        let Self::NoneAnswers { tried, .. } = self else { return None };
        let asked =
            |tried: &&Tried| tried.address.parse::<SocketAddr>().is_ok() && !tried.problem.starts_with(NOT_ASKED);
        let Tried { address, kind, .. } = tried.iter().find(asked)?.clone();
        Some(Reached { dial: Arc::new(Tcp::to(&address)), address, kind, before: tried.clone() })
    }
}

/// How the problem of an address begins that was not asked.
const NOT_ASKED: &str = "not asked: ";

impl Cluster {
    /// Finds the way to a gateway: its status addresses with the listener's port, its Service's cluster address, node
    /// ports, the place's own addresses; each gets 2 s, all at once, and the first in this order that answers is taken.
    /// When none does, a port-forward to the Service.
    pub async fn reach(&self, ask: &AddressAsk) -> Result<Reached, AddressError> {
        let gateway = self.get(&ask.gateway).await?.ok_or_else(|| AddressError::NoGateway(ask.gateway.clone()))?;
        let mut tried = Vec::new();
        let services = match self.list("v1", "Service", None, &ask.service_labels).await {
            Ok(services) => services,
            Err(failure) => {
                // A cluster of others may not let us look into all namespaces.
                let address = format!("Services with {}", ask.service_labels);
                tried.push(Tried { address, kind: AddressKind::ClusterIp, problem: failure.to_string() });
                Vec::new()
            }
        };
        let mut candidates = status_addresses(&gateway, ask.port);
        candidates.extend(services.iter().filter_map(|service| cluster_address(service, ask.port)));
        let node_ports: Vec<u16> = services.iter().filter_map(|service| node_port(service, ask.port)).collect();
        if !node_ports.is_empty() {
            match self.list("v1", "Node", None, "").await {
                Ok(nodes) => candidates.extend(node_addresses(&nodes, &node_ports)),
                Err(failure) => {
                    let problem = failure.to_string();
                    tried.push(Tried { address: "nodes".to_owned(), kind: AddressKind::NodePort, problem });
                }
            }
        }
        candidates.extend(ask.extra.iter().map(|extra| (AddressKind::Extra, extra.clone())));
        if self.on_loopback {
            let outside = candidates.extract_if(.., |(_, address)| !is_loopback(address));
            let problem = format!("{NOT_ASKED}it lies outside this process, where the cluster is rehearsed");
            tried.extend(outside.map(|(kind, address)| Tried { address, kind, problem: problem.clone() }));
        }

        let mut answered = stream::iter(candidates)
            .map(|(kind, address)| async move {
                let dial: Arc<dyn Dial> = Arc::new(Tcp::to(&address));
                let answer = answers(dial.as_ref(), TRY).await;
                (kind, address, dial, answer)
            })
            .buffered(32); // in order, whatever the order of answering
        while let Some((kind, address, dial, answer)) = answered.next().await {
            match answer {
                Ok(()) => return Ok(Reached { dial, address, kind, before: tried }),
                Err(problem) => tried.push(Tried { address, kind, problem }),
            }
        }
        for service in &services {
            let (namespace, name) = (text(service, "/metadata/namespace"), text(service, "/metadata/name"));
            let dial = Forward::to(self, namespace, name, ask.port);
            let (address, kind) = (dial.describe(), AddressKind::PortForward);
            match answers(&dial, TRY_FORWARD).await {
                Ok(()) => return Ok(Reached { dial: Arc::new(dial), address, kind, before: tried }),
                Err(problem) => tried.push(Tried { address, kind, problem }),
            }
        }
        Err(AddressError::NoneAnswers { gateway: ask.gateway.clone(), tried })
    }
}

/// Whether a request to an unknown host gets an HTTP response, whatever its status. That a connection is taken says too
/// little: the ports that a container engine maps take connections when nobody is behind them, and so does a forward.
async fn answers(dial: &dyn Dial, within: Duration) -> Result<(), String> {
    let asked = async {
        let mut stream = dial.dial().await.map_err(|error| error.to_string())?;
        let request = b"GET / HTTP/1.1\r\nhost: address.igc.test\r\nuser-agent: igc\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.map_err(|error| format!("taken, but not written to: {error}"))?;
        stream.flush().await.map_err(|error| format!("taken, but not written to: {error}"))?;
        let mut head = [0_u8; 7];
        stream.read_exact(&mut head).await.map_err(|error| format!("taken, but no response: {error}"))?;
        if &head == b"HTTP/1." { Ok(()) } else { Err("answers, but not in HTTP/1".to_owned()) }
    };
    match Deadline::within(within).bound(asked).await {
        Some(answer) => answer,
        None => Err(format!("no answer within {} s", within.as_secs())),
    }
}

type Candidate = (AddressKind, String);

/// `host:port`, with brackets around an IPv6 address.
fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn is_loopback(address: &str) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

fn status_addresses(gateway: &Value, port: u16) -> Vec<Candidate> {
    items(gateway, "/status/addresses")
        .map(|address| text(address, "/value"))
        .filter(|host| !host.is_empty())
        .map(|host| (AddressKind::Status, joined(host, port)))
        .collect()
}

fn cluster_address(service: &Value, port: u16) -> Option<Candidate> {
    let host = text(service, "/spec/clusterIP");
    (!host.is_empty() && host != "None").then(|| (AddressKind::ClusterIp, joined(host, port)))
}

fn node_port(service: &Value, port: u16) -> Option<u16> {
    let found = items(service, "/spec/ports").find(|candidate| candidate["port"] == port)?;
    found["nodePort"].as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

fn node_addresses(nodes: &[Value], ports: &[u16]) -> Vec<Candidate> {
    let addresses = nodes.iter().take(NODES).flat_map(|node| items(node, "/status/addresses"));
    addresses
        .filter(|address| matches!(text(address, "/type"), "InternalIP" | "ExternalIP"))
        .flat_map(|address| ports.iter().map(|port| (AddressKind::NodePort, joined(text(address, "/address"), *port))))
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({"status": {"addresses": [{"type": "IPAddress", "value": "10.0.0.9"}, {"value": "fd00::1"}]}}), &["10.0.0.9:80", "[fd00::1]:80"])]
    #[case(json!({"status": {}}), &[])]
    #[case(json!({"status": {"addresses": [{"type": "IPAddress"}, {"value": ""}]}}), &[])]
    fn status_addresses_carry_the_port_of_the_listener(#[case] gateway: Value, #[case] expected: &[&str]) {
        let found: Vec<String> = status_addresses(&gateway, 80).into_iter().map(|(_, address)| address).collect();
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case(json!({"spec": {"clusterIP": "10.96.0.7"}}), Some("10.96.0.7:80"))]
    #[case(json!({"spec": {"clusterIP": "None"}}), None)]
    #[case(json!({"spec": {}}), None)]
    fn a_headless_service_has_no_address(#[case] service: Value, #[case] expected: Option<&str>) {
        assert_eq!(cluster_address(&service, 80).map(|(_, address)| address).as_deref(), expected);
    }

    #[rstest]
    #[case::first_that_was_asked(&[("nodes", "forbidden"), ("10.0.0.9:80", "not asked: it is outside"), ("127.0.0.1:8", "no response"), ("127.0.0.1:9", "refused")], Some("127.0.0.1:8"))]
    #[case::none_was(&[("nodes", "forbidden"), ("10.0.0.9:80", "not asked: it is outside")], None)]
    fn a_silent_gateway_is_where_it_was_asked(#[case] tried: &[(&str, &str)], #[case] silent: Option<&str>) {
        let tried = tried.iter().map(|(address, problem)| Tried {
            address: (*address).to_owned(),
            kind: AddressKind::Status,
            problem: (*problem).to_owned(),
        });
        let gateway = ObjectRef::new("gateway.networking.k8s.io/v1", "Gateway", "ns", "gw");
        let error = AddressError::NoneAnswers { gateway, tried: tried.collect() };
        assert_eq!(error.silent().map(|reached| reached.address).as_deref(), silent);
    }

    #[test]
    fn node_ports_are_those_of_the_port_that_is_asked_for() {
        let service = json!({"spec": {"ports": [{"port": 443, "nodePort": 30443}, {"port": 80, "nodePort": 30080}]}});
        assert_eq!(node_port(&service, 80), Some(30080));
        assert_eq!(node_port(&service, 81), None);
        let nodes = [
            json!({"status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "172.18.0.2"}]}}),
        ];
        assert_eq!(node_addresses(&nodes, &[30080]), [(AddressKind::NodePort, "172.18.0.2:30080".to_owned())]);
    }
}

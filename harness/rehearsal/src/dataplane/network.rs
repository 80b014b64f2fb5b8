//! The network of a world: pod addresses, Service addresses and names, and where they lead on loopback.
//!
//! Pods advertise addresses like 10.244.0.7; each of their ports is a socket on 127.0.0.1. Nothing that is not in these
//! tables can be reached: a world has no way out.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::net::TcpStream;

use crate::{
    hops::{Between, Hops},
    lock,
};

/// Takes a connection that would have been made to a pod's port, without a socket in between.
pub type Door = Arc<dyn Fn(TcpStream) + Send + Sync>;

#[derive(Clone)]
pub struct PodPort {
    /// The loopback socket behind it.
    pub socket: SocketAddr,
    pub door: Option<Door>,
    pub of: PortOf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortOf {
    Gateway,
    Others,
}

impl fmt::Debug for PodPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodPort").field("socket", &self.socket).field("door", &self.door.is_some()).finish()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub port: u16,
    /// (pod address, pod port), ready ones only.
    pub endpoints: Vec<(IpAddr, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    pub cluster_ip: Option<IpAddr>,
    pub ports: Vec<ServicePort>,
}

#[derive(Debug, Default)]
struct Tables {
    addresses: HashSet<IpAddr>,
    pods: HashMap<(IpAddr, u16), PodPort>,
    services: HashMap<(String, String), ServiceEntry>,
    turns: HashMap<(String, String, u16), usize>,
}

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Network {
    tables: Arc<Mutex<Tables>>,
    hops: Hops,
    hop: Option<Between>,
}

#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    #[error("resolve {0}")]
    UnknownHost(String),
    #[error("find an endpoint of {0}")]
    NoEndpoint(String),
    #[error("connect: {0}")]
    Connect(#[from] io::Error),
}

impl Network {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        lock(&self.tables)
    }

    pub fn with_hops(hops: Hops) -> Self {
        Self { hops, ..Self::default() }
    }

    pub fn over(&self, hop: Between) -> Self {
        Self { hop: Some(hop), ..self.clone() }
    }

    pub fn hops(&self) -> &Hops {
        &self.hops
    }

    /// Makes a pod's address known: ports that nobody listens on are refused.
    pub fn add_pod(&self, address: IpAddr) {
        self.tables().addresses.insert(address);
    }

    pub fn add_pod_port(&self, address: IpAddr, port: u16, behind: PodPort) {
        let tables = &mut *self.tables();
        tables.addresses.insert(address);
        tables.pods.insert((address, port), behind);
    }

    pub fn remove_pod(&self, address: IpAddr) {
        let tables = &mut *self.tables();
        tables.addresses.remove(&address);
        tables.pods.retain(|(ip, _), _| *ip != address);
    }

    /// Replaces what is known of all Services, keyed by (namespace, name).
    pub fn set_services(&self, services: HashMap<(String, String), ServiceEntry>) {
        self.tables().services = services;
    }

    pub fn pod_port(&self, address: IpAddr, port: u16) -> Option<PodPort> {
        self.tables().pods.get(&(address, port)).cloned()
    }

    /// One of the ready endpoints of a Service, in turn.
    pub fn endpoint(&self, namespace: &str, name: &str, port: u16) -> Option<(IpAddr, u16)> {
        let Tables { services, turns, .. } = &mut *self.tables();
        let service = services.get(&(namespace.to_owned(), name.to_owned()))?;
        let endpoints = &service.ports.iter().find(|p| p.port == port)?.endpoints;
        let turn = turns.entry((namespace.to_owned(), name.to_owned(), port)).or_default();
        *turn = turn.wrapping_add(1);
        endpoints.get(*turn % endpoints.len().max(1)).copied()
    }

    /// What a name resolves to, as the cluster's DNS answers: `<service>.<namespace>[.svc[.cluster.local]]` or an address.
    fn resolve(&self, host: &str) -> Option<IpAddr> {
        if let Ok(address) = host.parse() {
            return Some(address);
        }
        let host = host.trim_end_matches('.');
        let short = host.strip_suffix(".cluster.local").unwrap_or(host);
        let short = short.strip_suffix(".svc").unwrap_or(short);
        let (name, namespace) = short.split_once('.')?;
        self.tables().services.get(&(namespace.to_owned(), name.to_owned()))?.cluster_ip
    }

    /// Where nothing is there, addresses that exist refuse, and those that do not are unreachable.
    pub fn socket(&self, address: IpAddr, port: u16) -> Result<SocketAddr, Unreachable> {
        if address.is_loopback() {
            return Ok(SocketAddr::new(address, port)); // a test's own server
        }
        let service = {
            let tables = self.tables();
            if let Some(pod) = tables.pods.get(&(address, port)) {
                return Ok(pod.socket);
            }
            tables.services.iter().find(|(_, s)| s.cluster_ip == Some(address)).map(|(key, _)| key.clone())
        };
        let refused = || Unreachable::Connect(io::Error::from(io::ErrorKind::ConnectionRefused));
        match service {
            Some((namespace, name)) => {
                let (address, port) = self.endpoint(&namespace, &name, port).ok_or_else(refused)?;
                // Endpoints that a test wrote by hand may name loopback sockets.
                let own = address.is_loopback().then(|| SocketAddr::new(address, port));
                self.tables().pods.get(&(address, port)).map(|p| p.socket).or(own).ok_or_else(refused)
            }
            None if self.tables().addresses.contains(&address) => Err(refused()),
            None => Err(Unreachable::Connect(io::Error::from(io::ErrorKind::HostUnreachable))),
        }
    }

    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Unreachable> {
        let address = self.resolve(host).ok_or_else(|| Unreachable::UnknownHost(host.to_owned()))?;
        self.connect_address(address, port).await
    }

    pub async fn connect_address(&self, address: IpAddr, port: u16) -> Result<TcpStream, Unreachable> {
        let socket = self.hops.lead(self.hop, self.socket(address, port)?).await?;
        let stream = TcpStream::connect(socket).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub async fn connect_service(&self, namespace: &str, name: &str, port: u16) -> Result<TcpStream, Unreachable> {
        let (address, port) = self
            .endpoint(namespace, name, port)
            .ok_or_else(|| Unreachable::NoEndpoint(format!("Service {namespace}/{name} port {port}")))?;
        self.connect_address(address, port).await
    }
}

pub fn pod_address(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 244, 0, 0).to_bits() | (n & 0xFFFF)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 9));

    fn network() -> (Network, IpAddr) {
        let (network, pod) = (Network::default(), pod_address(7));
        let socket = SocketAddr::from(([127, 0, 0, 1], 40_007));
        network.add_pod_port(pod, 8080, PodPort { socket, door: None, of: PortOf::Others });
        let entry = ServiceEntry {
            cluster_ip: Some(SERVICE),
            ports: vec![
                ServicePort { port: 80, endpoints: vec![(pod, 8080)] },
                ServicePort { port: 81, endpoints: vec![] },
            ],
        };
        network.set_services(HashMap::from([(("ns".to_owned(), "svc".to_owned()), entry)]));
        (network, pod)
    }

    #[test]
    fn addresses_lead_to_sockets_and_nowhere_else() {
        let (network, pod) = network();
        let idle = pod_address(8);
        network.add_pod(idle);
        assert_eq!(pod.to_string(), "10.244.0.7");
        assert_eq!(network.socket(pod, 8080).ok().map(|s| s.port()), Some(40_007));
        assert_eq!(network.socket(SERVICE, 80).ok().map(|s| s.port()), Some(40_007));
        for (address, port, kind) in [
            (pod, 8081, io::ErrorKind::ConnectionRefused),
            (idle, 8080, io::ErrorKind::ConnectionRefused),
            (SERVICE, 81, io::ErrorKind::ConnectionRefused),
            (IpAddr::from([192, 0, 2, 1]), 80, io::ErrorKind::HostUnreachable),
        ] {
            match network.socket(address, port) {
                Err(Unreachable::Connect(error)) => assert_eq!(error.kind(), kind),
                other => panic!("{address}:{port} gave {other:?}"),
            }
        }
    }

    #[test]
    fn names_resolve_as_in_a_cluster() {
        let (network, _) = network();
        for name in ["svc.ns.svc.cluster.local", "svc.ns.svc", "svc.ns", "10.96.0.9"] {
            assert_eq!(network.resolve(name), Some(SERVICE), "{name}");
        }
        for name in ["svc", "other.ns.svc.cluster.local", "example.com"] {
            assert_eq!(network.resolve(name), None, "{name}");
        }
        assert_eq!(network.endpoint("ns", "svc", 81), None);
    }
}
